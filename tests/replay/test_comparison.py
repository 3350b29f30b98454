"""All parts of the comparison by one command: failures leave the others alone, and what is there is kept."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

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
STUB = """#!/bin/sh
# Stands for tunecast and python: says what it was asked, and does as files beside it say.
own=$(dirname "$0")
echo "$(basename "$0") $*" >>"$own/asked"
case "$*" in
*compare*) cat "$own/compared.json" ;;
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
def parts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("comparison_parts")


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    """A folder of commands that take no time."""
    folder = tmp_path / "stubs"
    folder.mkdir()
    for name in ("tunecast", "python"):
        (folder / name).write_text(STUB)
        (folder / name).chmod(0o755)
    (folder / "compared.json").write_text(json.dumps(COMPARED))
    return folder


def environment(stubs: Path, **more: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("TUNECAST_")}
    places = {"TUNECAST_TASKS": "/the/tasks", "TUNECAST_MODELS": "/the/models"}
    return {**own, **places, "PATH": f"{stubs}:{own['PATH']}", **more}


def compare(stubs: Path, *names: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), str(stubs.parent / "results"), *names]
    return subprocess.run(
        command, env=environment(stubs, **more), capture_output=True, text=True, timeout=120
    )


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
    assert set(re.findall("`(.*?)`", missing[1])) == {"quicktune-check", "scoring", "ablations", "aliens"}
    assert "a table of" in page(stubs)
    assert page(stubs).count("\nMeasured on ") == 11
    assert not any(" judge " in line for line in asked(stubs)), "there was nothing to judge"

    (stubs / "failing").unlink()
    second = compare(stubs)
    assert second.returncode == 0, second.stderr
    programs = [line for line in asked(stubs) if line.startswith("python")]
    assert [re.search(r"(\w+)\.py", line)[1] for line in programs] == [  # type: ignore[index]
        "ablations",
        "alien_tasks",
        "alien_tasks",
    ]
    assert second.stdout.count("is there already") == 11
    assert page(stubs).count("\nMeasured on ") == 13


def test_a_result_that_the_page_cannot_read_spoils_that_section_alone(stubs: Path) -> None:
    (stubs / "compared.json").write_text("{}")
    assert compare(stubs, "task", "surrogates").returncode == 0
    assert "What it printed cannot be read" in page(stubs)
    assert "a table of" in page(stubs)


def test_parts_are_chosen_by_name(stubs: Path) -> None:
    assert compare(stubs, "task", "demo").returncode == 0
    assert [re.search(r"--folds task|demo_seeds", line)[0] for line in asked(stubs)] == [  # type: ignore[index]
        "--folds task",
        "demo_seeds",
    ]
    wrong = compare(stubs, "tusk")
    assert wrong.returncode == 2
    assert "There is no part 'tusk'" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_a_part_whose_command_is_not_there_fails_alone(stubs: Path) -> None:
    (stubs / "tunecast").unlink()
    done = compare(stubs, "task", "surrogates", PATH=f"{stubs}:/usr/bin:/bin")
    assert done.returncode == 1
    assert "task: failed with exit status 127\n  tunecast: No such file" in done.stderr
    assert "surrogates: measured" in done.stdout


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


def test_two_callers_never_measure_the_same_part(stubs: Path) -> None:
    (stubs / "slow").write_text("surrogates.py")
    command = [sys.executable, str(PROGRAM), str(stubs.parent / "results"), "surrogates"]
    with subprocess.Popen(command, env=environment(stubs), stdout=subprocess.PIPE, text=True) as first:
        try:
            until = time.monotonic() + 60
            while not (stubs / "begun").exists() and time.monotonic() < until:
                time.sleep(0.05)
            other = compare(stubs, "surrogates", "ablations")
            # Whoever kills the caller alone leaves the part to its command.
            first.kill()
            first.wait()
            orphaned = compare(stubs, "surrogates")
        finally:
            (stubs / "go").touch()
    for done in (other, orphaned):
        assert done.returncode == 0, done.stderr
        assert "surrogates: is being measured by another call" in done.stdout
    assert "ablations: measured" in other.stdout
    assert sum("surrogates.py" in line for line in asked(stubs)) == 1


def test_other_code_runs_or_circumstances_are_another_measurement(
    parts: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import provenance  # type: ignore[import-not-found]

    part = parts.PARTS["task"]
    monkeypatch.delenv(parts.QUICKTUNE, raising=False)
    keys = [part.key(), parts.PARTS["family"].key()]
    assert part.key() == keys[0]
    monkeypatch.setenv(parts.QUICKTUNE, "python")
    keys.append(part.key())
    monkeypatch.delenv(parts.QUICKTUNE)
    other = tmp_path / "runs.parquet"
    other.write_bytes(b"more runs")
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "shipped", lambda: other)
        keys.append(part.key())
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "shipped_prior", lambda: other)
        keys.append(part.key())
    package = tmp_path / "tunecast"
    for name in parts.REPLAYS:
        (package / name).mkdir(parents=True)
    monkeypatch.setattr(provenance.tunecast, "__file__", str(package / "__init__.py"))
    for number, name in enumerate(parts.REPLAYS):
        (package / name / "code.py").write_text(f"number = {number}")
        keys.append(part.key())
    assert len(set(keys)) == len(keys)
    (package / "report").mkdir()
    (package / "report" / "code.py").write_text("number = 9")
    assert part.key() == keys[-1], "replays do not rest on reports"


def test_every_part_names_programs_and_flags_that_there_are(parts: ModuleType) -> None:
    from tunecast.replay.stored import CompareSettings  # what compare's flags are parsed by

    for part in parts.PARTS.values():
        for file in part.files:
            assert (BENCHMARKS.parent / file).is_file(), part.name
    shown = [part.shown for part in parts.PARTS.values() if part.is_json]
    assert len(shown) == len(set(shown)) == 6
    for line in shown:
        given = dict(re.findall(r"--(model|folds|budgets|clock) (\S+)", line))
        CompareSettings.parse(
            store=None, strategies=(), rivals=False, seeds=1, budgets=given.get("budgets", "1"),
            folds=given["folds"], model=given["model"], clock=given["clock"], workers=1,
            thinking_seconds=None,
        )  # fmt: skip
