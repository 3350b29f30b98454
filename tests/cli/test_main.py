"""The command line as a whole: quick help, a help text for every flag, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

import tunecast
from sessions import call_main
from tunecast.cli import app

HEAVY = ("torch", "transformers", "peft", "datasets", "numpy", "scipy", "sqlalchemy", "pyarrow", "plotly")
HEAVY += ("ConfigSpace", "yaml", "rich.live", "rich.progress")
LISTING = "import json, sys\nfrom tunecast.cli import main\ntry: main()\nexcept SystemExit as ended: pass\n"
LISTING += "print('\\n' + json.dumps(sorted(sys.modules)))"
LEAVING = "import atexit, gc\nfrom tunecast.cli import main\n"
LEAVING += "atexit.register(lambda: print(len(gc.get_objects()), gc.get_freeze_count()))\nmain()"


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """All commands that do something, with their full names."""
    below = getattr(command, "commands", None)
    if not below:
        yield " ".join(path), command
        return
    for name, inner in below.items():
        yield from commands(inner, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("arguments", [["--help"], ["tune", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LISTING, *arguments], capture_output=True, text=True, check=True
    )
    assert not set(json.loads(done.stdout.splitlines()[-1])) & set(HEAVY)


def test_workers_start_and_the_user_reads_before_heavy_libraries_are_imported(tmp_path: Path) -> None:
    """The workers' libraries take the longest of all, so nothing slow may come before their start."""
    code = (
        "import json, os, subprocess, sys\nfrom tunecast.cli import main\n"
        "def started(*arguments, **options):\n"
        "    print(json.dumps(sorted(sys.modules)), flush=True)\n    os._exit(0)\n"
        "subprocess.Popen = started\nmain()\n"
    )
    flags = ("--model", "smollm2", "--data", "stdlib", "--output-dir", str(tmp_path / "out"))
    for command in (("tune",), ("train", "--method", "lora")):
        done = subprocess.run(
            [sys.executable, "-c", code, *command, *flags], capture_output=True, text=True, check=True
        )
        assert "Loading the libraries" in done.stderr
        slow = {"torch", "transformers", "peft", "datasets", "scipy", "sqlalchemy", "ConfigSpace", "plotly"}
        assert not set(json.loads(done.stdout)) & slow


def test_nothing_is_looked_through_for_garbage_at_the_end() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAVING, "--version"], capture_output=True, text=True, check=True
    )
    watched, kept = map(int, done.stdout.splitlines()[-1].split())
    assert kept > 10_000 > watched


def test_a_terminal_that_lacks_letters_ends_no_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from tunecast.cli import main; main()",
            "data",
            "check",
            str(tmp_path / "mały"),
        ],
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "ma?y" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_has_a_help_text(name: str) -> None:
    command = COMMANDS[name]
    assert command.help, f"tunecast {name} has no description"
    silent = [parameter.name for parameter in command.params if not getattr(parameter, "help", None)]
    assert silent == []
    swallowed = [parameter.name for parameter in command.params if "[" in getattr(parameter, "help", "")]
    assert swallowed == [], "rich takes brackets for markup and prints nothing of them"


def test_the_main_job_is_there() -> None:
    assert "tune" in COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_every_word_of_the_help_texts(name: str) -> None:
    code, out, _ = call_main(*name.split(), "--help")
    assert code == 0
    for parameter in COMMANDS[name].params:
        default = str(getattr(parameter, "help", "")).rpartition("(default: ")[2].rstrip(")").split(" ")[0]
        assert default[:8] in out, f"{parameter.name}: markup has eaten the default"
    assert "bool" not in out, "a flag takes no value"
    assert "list[" not in out, "an option that may be repeated takes one value"
    assert "FUNCTION" not in out, "a path is a path, not what reads it"
    assert "<str>" not in out, "a text has one name, whether it may be repeated or not"


def test_version() -> None:
    assert call_main("--version")[:2] == (0, f"tunecast {tunecast.__version__}\n")


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["tune", "--budget"]])
def test_mistakes_on_the_command_line_exit_with_two(arguments: list[str]) -> None:
    code, out, err = call_main(*arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
