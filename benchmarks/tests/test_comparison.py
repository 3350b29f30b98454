"""All parts of the comparison by one command: failures leave the others alone, and what is there is kept."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from itertools import takewhile
from pathlib import Path

import pytest

import comparison
from tunecast_benchmarks import parts, provenance

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PROGRAM = BENCHMARKS / "comparison.py"
BY_BUDGET = {name: {"1": 0.5} for name in ("mean_rank", "normalised_regret", "low", "high")}
COMPARED = {
    "header": "Replays.",
    "cases": [],
    "sentences": [],
    "pairs": {},
    "strategies": {"asha": BY_BUDGET},
}
RUN = """
import runpy, sys
sys.argv.pop(0)
sys.executable = sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a program that takes another interpreter for the one that runs it."""
STUB = """#!/bin/sh
# Replaces the interpreter: records its command line, and behaves as the files beside it say.
own=$(dirname "$0")
echo "$*" >>"$own/asked"
case "$*" in
*compare.py*) cat "$own/compared.json" ;;
*) echo "a table of $*" ;;
esac
for word in $(cat "$own/slow" 2>/dev/null); do
    case "$*" in *"$word"*) touch "$own/begun"; while [ ! -e "$own/go" ]; do sleep 0.05; done ;; esac
done
for word in $(cat "$own/missing" 2>/dev/null); do
    case "$*" in *"$word"*) echo "Missed: a limit"; exit 1 ;; esac
done
for word in $(cat "$own/failing" 2>/dev/null); do
    case "$*" in *"$word"*) echo "$word is broken" >&2; exit 3 ;; esac
done
"""


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    """A folder with an interpreter that takes no time."""
    folder = tmp_path / "stubs"
    folder.mkdir()
    (folder / "interpreter").write_text(STUB)
    (folder / "interpreter").chmod(0o755)
    (folder / "compared.json").write_text(json.dumps(COMPARED))
    return folder


def environment(**more: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("TUNECAST_")}
    places = {"TUNECAST_TASKS": "/the/tasks", "TUNECAST_MODELS": "/the/models"}
    path = os.pathsep.join([str(BENCHMARKS), *filter(None, [own.get("PYTHONPATH")])])
    return {**own, **places, "PYTHONPATH": path, **more}


def command(stubs: Path, *names: str) -> list[str]:
    interpreter, folder = stubs / "interpreter", stubs.parent / "results"
    return [sys.executable, "-c", RUN, str(interpreter), str(PROGRAM), str(folder), *names]


@dataclass(frozen=True)
class Called:
    """How a call ended, and what it printed."""

    returncode: object
    stdout: str
    stderr: str


def compare(stubs: Path, *names: str, **more: str) -> Called:
    """A call within this process, which has read the code that all keys are hashes of already."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        given = environment(**more)
        for name in set(os.environ) - set(given):
            patch.delenv(name)
        for name, value in given.items():
            patch.setenv(name, value)
        patch.setattr(sys, "executable", str(stubs / "interpreter"))
        patch.setattr(sys, "argv", [str(PROGRAM), str(stubs.parent / "results"), *names])
        with pytest.raises(SystemExit) as ended:
            comparison.main()
    return Called(ended.value.code, out.getvalue(), err.getvalue())


@contextmanager
def begun(stubs: Path, name: str, program: str) -> Iterator[subprocess.Popen[str]]:
    """A call that is at a part, until the end or its own."""
    (stubs / "slow").write_text(program)
    asked = command(stubs, name)
    with subprocess.Popen(asked, env=environment(), stdout=subprocess.PIPE, text=True) as call:
        try:
            wait_for((stubs / "begun").exists)
            yield call
        finally:
            (stubs / "go").touch()


def wait_for(sign: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not sign():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.05)


def asked(stubs: Path) -> list[str]:
    """What the stubs were asked since the last time."""
    lines = (stubs / "asked").read_text().splitlines() if (stubs / "asked").exists() else []
    (stubs / "asked").unlink(missing_ok=True)
    return lines


def page(stubs: Path) -> str:
    return (stubs.parent / "results" / "page.md").read_text()


def test_a_part_that_fails_leaves_the_others_alone_and_is_measured_next_time(stubs: Path) -> None:
    (stubs / "failing").write_text("ablations.py collect")
    first = compare(stubs)
    assert first.returncode == 1
    failed = re.findall(r"^(\S+): failed with exit status 3\n  (.*)$", first.stderr, re.MULTILINE)
    assert [name for name, _ in failed] == ["ablations", "aliens"], first.stderr
    assert "ablations.py is broken" in first.stderr
    assert "collect is broken" in first.stderr
    missing = re.search("^Not measured: (.*)\\.$", page(stubs), re.MULTILINE)
    assert missing
    lacking = {"quicktune-check", "quicktunetool", "quicktunetool-free-thinking", "scoring"}
    assert set(re.findall("`(.*?)`", missing[1])) == {*lacking, "ablations", "aliens"}
    assert "a table of" in page(stubs)
    assert page(stubs).count("\nMeasured on ") == 11
    assert not any(" judge " in line for line in asked(stubs)), "there was nothing to judge"

    (stubs / "failing").unlink()
    second = compare(stubs)
    assert second.returncode == 0, second.stderr
    assert [re.search(r"\w+\.py|tunecast \w+", line)[0] for line in asked(stubs)] == [  # type: ignore[index]
        "ablations.py",
        "alien_tasks.py",
        "tunecast collect",
        "alien_tasks.py",
    ]
    assert second.stdout.count("already measured") == 11
    assert page(stubs).count("\nMeasured on ") == 13


def test_a_result_that_the_page_cannot_read_spoils_that_section_alone(stubs: Path) -> None:
    (stubs / "compared.json").write_text("{}")
    assert compare(stubs, "task", "surrogates").returncode == 0
    assert "Its output cannot be read" in page(stubs)
    assert "a table of" in page(stubs)


def test_parts_are_chosen_by_name(stubs: Path) -> None:
    assert compare(stubs, "task", "demo").returncode == 0
    assert [re.search(r"--folds task|demo_seeds", line)[0] for line in asked(stubs)] == [  # type: ignore[index]
        "--folds task",
        "demo_seeds",
    ]
    asking = command(stubs, "tusk")
    wrong = subprocess.run(asking, env=environment(), capture_output=True, text=True, timeout=120)
    assert wrong.returncode == 2
    assert "There is no part 'tusk'" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_the_interpreter_that_runs_it_runs_everything_whatever_the_path_has(stubs: Path) -> None:
    other = stubs / "other"
    other.mkdir()
    for name in ("tunecast", "python"):
        (other / name).symlink_to("/bin/false")
    path = os.pathsep.join([str(other), os.environ["PATH"]])
    done = compare(stubs, "task", "ablations", PATH=path)
    assert done.returncode == 0, done.stderr
    replays, ablations = asked(stubs)
    assert replays.startswith(f"{BENCHMARKS / 'compare.py'} --model nano-16m ")
    assert ablations == str(BENCHMARKS / "ablations.py")
    assert ": `python benchmarks/compare.py --model nano-16m " in page(stubs)
    assert ": `python benchmarks/ablations.py`" in page(stubs)


def test_it_says_how_far_it_is_and_what_it_runs(stubs: Path) -> None:
    assert compare(stubs, "ablations").returncode == 0
    shown = compare(stubs, "ablations", "aliens").stdout.splitlines()
    assert [line.partition(" --")[0] for line in shown] == [
        "1 of 2, ablations: already measured",
        f"2 of 2, aliens: begins; its messages are in {stubs.parent / 'results' / 'aliens.log'}",
        "2 of 2, aliens: runs python benchmarks/alien_tasks.py make",
        "2 of 2, aliens: runs tunecast collect",
        "2 of 2, aliens: runs python benchmarks/alien_tasks.py judge",
        "2 of 2, aliens: measured",
    ]


def test_what_is_not_set_is_said_and_only_what_is_optional_may_lack(stubs: Path) -> None:
    done = compare(stubs, "aliens", "scoring", TUNECAST_TASKS="")
    assert done.returncode == 1
    assert "aliens: left out, since it needs TUNECAST_TASKS" in done.stderr
    assert "scoring: left out, since it needs TUNECAST_QUICKTUNE_PYTHON" in done.stdout
    assert "scoring" not in done.stderr
    assert asked(stubs) == []


def test_a_limit_that_is_missed_is_a_result_that_is_told_every_time(stubs: Path) -> None:
    (stubs / "missing").write_text("surrogates.py")
    for times in (1, 0):
        done = compare(stubs, "surrogates")
        assert done.returncode == 1
        assert "surrogates: measured, but it misses a limit" in done.stderr
        assert len(asked(stubs)) == times
    assert "Missed: a limit" in page(stubs)


def test_results_are_carried_to_code_that_gives_the_same(stubs: Path) -> None:
    assert compare(stubs, "ablations").returncode == 0
    results = stubs.parent / "results"
    measured = parts.Result.read(results, "ablations")
    assert measured
    old = replace(measured, code="of an older layout", command="python -m old.ablations")
    old.write(results, "ablations")
    asked(stubs)
    assert compare(stubs, "--only-page").returncode == 0
    assert "**Out of date**" in page(stubs)
    told = compare(stubs, "ablations", "family", "--carry")
    assert (told.returncode, told.stdout) == (0, "family: no result\n")
    carried = parts.Result.read(results, "ablations")
    assert carried == replace(measured, carried=provenance.commit())
    assert "gives the same" in page(stubs)
    assert "**Out of date**" not in page(stubs)
    replace(old, knowledge="of other runs").write(results, "ablations")
    assert "must be measured again" in compare(stubs, "ablations", "--carry").stdout
    assert "**Out of date**" in page(stubs)
    assert asked(stubs) == []


def test_two_callers_never_measure_the_same_part(stubs: Path) -> None:
    with begun(stubs, "ablations", "ablations.py") as first:
        other = compare(stubs, "ablations", "family")
        # If only the caller is killed, its command still finishes the part.
        first.kill()
        first.wait()
        orphaned = compare(stubs, "ablations")
    for done in (other, orphaned):
        assert done.returncode == 0, done.stderr
        assert "ablations: is being measured by another call" in done.stdout
    assert "family: measured" in other.stdout
    assert sum("ablations.py" in line for line in asked(stubs)) == 1


@pytest.mark.parametrize(
    ("first", "program", "second"),
    [("surrogates", "surrogates.py", "ablations"), ("ablations", "ablations.py", "demo")],
)
def test_a_part_that_is_timed_is_measured_alone(stubs: Path, first: str, program: str, second: str) -> None:
    asking = command(stubs, second)
    with (
        begun(stubs, first, program) as call,
        subprocess.Popen(asking, env=environment(), stdout=subprocess.PIPE, text=True) as waiting,
    ):
        try:
            assert waiting.stdout
            said = waiting.stdout.readline()
            assert f"{second}: waits for another call's measurement" in said
            # Its command outlives a caller that is killed alone, and is still not to be disturbed.
            call.kill()
            call.wait()
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(0.5)
            assert len(asked(stubs)) == 1
        finally:
            (stubs / "go").touch()
        assert f"{second}: measured" in waiting.stdout.read()
    assert waiting.returncode == 0


def test_what_depends_on_the_machine_s_speed_is_timed() -> None:
    timed = {name for name, part in parts.PARTS.items() if part.is_timed}
    assert timed == {"surrogates", "scoring", "sessions-smollm2", "demo"}


@cache
def help_of(*program: str) -> str:
    more = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(
        [*program, "--help"], env=environment(**more), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_part_names_programs_and_flags_that_there_are() -> None:
    from tunecast.replay.stored import CompareSettings  # what compare's flags are parsed by

    checked = 0
    for part in parts.PARTS.values():
        assert len(part.code()) == 16, "every file that it rests on is there"
        for words in part.commands(Path("folder")):
            flags = {word for word in words if word.startswith("--")}
            if flags:
                told = help_of(*takewhile(lambda word: not word.startswith("--"), words))
                assert flags <= set(re.findall(r"--[\w-]+", told)), part.name
                checked += 1
    assert checked >= 14
    shown = [part.shown for part in parts.PARTS.values() if part.is_json]
    assert len(shown) == len(set(shown)) == 9
    for line in shown:
        given = dict(re.findall(r"--(model|folds|budgets|clock) (\S+)", line))
        CompareSettings.parse(
            store=None, strategies=(), seeds=1, budgets=given.get("budgets", "1"),
            folds=given["folds"], model=given["model"], clock=given["clock"], workers=1,
            thinking_seconds=None,
        )  # fmt: skip
