"""Shells complete commands, options, and the names that options take."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tunecast.cli import app

LISTING = """
import json, sys
sys.argv = ["tunecast"]
from tunecast.cli import main
try:
    main()
except SystemExit:
    print("\\n" + json.dumps(sorted(sys.modules)))
"""
HEAVY = {"torch", "transformers", "numpy", "sqlalchemy", "yaml"}
IN_BASH = """
. "$HOME/.bashrc"
complete -p tunecast
COMP_WORDS=(tunecast tune --model smo)
COMP_CWORD=3
_tunecast_completion tunecast
echo "${COMPREPLY[@]}"
"""


def asked(typed: str, shell: str = "bash") -> dict[str, str]:
    """The environment in which a shell asks for the last word."""
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), "_TYPER_COMPLETE_ARGS": typed}
    return words | {"_TYPER_COMPLETE_FISH_ACTION": "get-args", "_TUNECAST_COMPLETE": f"complete_{shell}"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_options_without_heavy_imports(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LISTING],
        env={**os.environ, **asked("tunecast tune --bud", shell)},
        capture_output=True,
        text=True,
        check=True,
    )
    *offered, modules = done.stdout.splitlines()
    assert "--budget" in "".join(offered)
    assert not set(json.loads(modules)) & HEAVY


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("tune --strategy ash", ["asha"]),
        ("tune --methods lora,ad", ["lora,adalora"]),
        ("tune --methods lora,lor", []),
        ("tune --track wandb,m", ["wandb,mlflow"]),
        ("tune --executor in", ["in-process"]),
        ("evaluate --executor q", []),
        ("tune --kind sh", ["short-answers"]),
        ("tune --dtype b", ["bfloat16"]),
        ("tune --objective acc", ["accuracy"]),
        ("tune --data std", ["stdlib"]),
        ("tune --data /nowhere", []),
        ("train --method ad", ["adalora"]),
        ("compare --strategies random,tra", ["random,transfer"]),
    ],
)
def test_names_are_completed_and_files_left_to_the_shell(typed: str, offered: list[str]) -> None:
    done = CliRunner().invoke(app, env=asked(f"tunecast {typed}"), prog_name="tunecast")
    assert done.stdout.split() == offered


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_one_command_installs_completion_in_bash(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("tunecast")
    if not program.is_file():
        pytest.skip("needs the installed command")
    home = {**os.environ, "HOME": str(tmp_path), "PATH": f"{program.parent}:{os.environ['PATH']}"}
    # The shell is recognised by the parent process.
    told = subprocess.run(
        ["bash", "-c", "tunecast --install-completion; true"],
        env=home,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "bash completion installed" in told.stdout
    done = subprocess.run(["bash", "-c", IN_BASH], env=home, capture_output=True, text=True, check=True)
    assert "_tunecast_completion" in done.stdout.splitlines()[0]
    assert done.stdout.splitlines()[-1] == "smollm2"
