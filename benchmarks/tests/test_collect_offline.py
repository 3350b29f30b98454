from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from collect_offline import OfflineSettings, collect_offline, main
from sample_runs import sample_run
from tunecast.collect import CollectionSummary, Plan
from tunecast.errors import ModelError, OutputError
from tunecast.progress import Silent
from tunecast.store import Store, open_for_reading

SCRIPT = Path(__file__).parents[2] / "plans" / "collect_offline.sh"

# Two times the import of everything in each of several processes takes its time on a busy machine.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def settings(write_plan: Callable[..., Path], roots: dict[str, str], tmp_path: Path) -> OfflineSettings:
    datasets = {"folder": "{world}/tasks", "only": ["apples"]}
    calibration = write_plan(
        datasets=datasets,
        name="calibration",
        exclusive=True,
        pipelines={"methods": {"full": 1}, "always": []},
        full_length_tokens={200: 1},
    )
    return OfflineSettings(
        calibration=calibration,
        plan=write_plan(full_length_tokens={200: 1, 800: 1}, datasets=datasets),
        output_dir=tmp_path / "out",
        seconds=2000.0,
        calibration_seconds=600.0,
        processes=(1, 2),
        device="cpu",
        threads=1,
        roots=roots,
    )


@pytest.mark.slow
def test_calibrates_collects_and_exports(settings: OfflineSettings) -> None:
    summary = collect_offline(settings)
    assert set(summary.token_parameters_per_second) == {1, 2}
    assert summary.processes in (1, 2)
    assert all(rate > 0 for rate in summary.token_parameters_per_second.values())
    assert summary.collection.collected > 0
    written = json.loads((settings.output_dir / "summary.json").read_text(encoding="utf-8"))
    assert written["exported"] == summary.exported
    with open_for_reading(settings.output_dir / "runs.parquet") as store:
        runs = list(store.runs())
    assert len(runs) == summary.exported > summary.collection.collected
    assert len({run.session for run in runs}) == 3


def test_the_script_does_the_same(settings: OfflineSettings, tmp_path: Path) -> None:
    assert settings.roots is not None
    flags = {
        "--calibration": settings.calibration,
        "--plan": settings.plan,
        "--device": "cpu",
        "--calibration-seconds": 600,
        "--processes": 1,
        "--threads": 1,
        "--root": f"world={settings.roots['world']}",
    }
    (tmp_path / "project").symlink_to(SCRIPT.parents[1])  # a name with a blank, and no wheels to install
    given = [str(tmp_path / "project" / "plans" / SCRIPT.name), "", str(tmp_path / "the output"), "2000"]
    done = subprocess.run(
        ["sh", *given, *(str(part) for pair in flags.items() for part in pair)],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["processes"] == 1
    with open_for_reading(tmp_path / "the output" / "runs.parquet") as store:
        assert len(store.summaries()) == summary["exported"] > 0


def test_a_calibration_without_a_finished_run_is_told(
    settings: OfflineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(Silent, "log", lambda _, text: told.append(text))
    settings = replace(settings, calibration_seconds=0.0, seconds=0.0, processes=(1,))
    assert collect_offline(settings).token_parameters_per_second == {1: 0.0}
    assert told[-1] == "No calibration run finished in time; one process collects."


@pytest.mark.parametrize(
    ("flag", "value"), [("--plan", "/nowhere/plan.yaml"), ("--root", "tasks"), ("--processes", "1,x")]
)
def test_a_mistake_is_one_message(
    settings: OfflineSettings, capsys: pytest.CaptureFixture[str], tmp_path: Path, flag: str, value: str
) -> None:
    given = {"--calibration": str(settings.calibration), "--plan": str(settings.plan), "--seconds": "9"}
    given |= {"--output-dir": str(tmp_path / "never"), "--root": f"world={(settings.roots or {})['world']}"}
    with pytest.raises(SystemExit) as ended:
        main([part for pair in {**given, flag: value}.items() for part in pair])
    assert ended.value.code == 2
    assert value in capsys.readouterr().err
    assert not (tmp_path / "never").exists()


def test_a_folder_that_cannot_be_made_is_named(settings: OfflineSettings, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(OutputError, match=r"--output-dir .*taken cannot be made"):
        collect_offline(replace(settings, output_dir=tmp_path / "taken"))


def stand_in(failing: Callable[[Plan, int], bool]) -> Callable[..., CollectionSummary]:
    """In place of ``collect``: one run for each call, at once, but for calls that fail."""

    def collect(plan: Plan, store: Path, *, workers: int, **_: object) -> CollectionSummary:
        with Store.open(store) as opened:
            if failing(plan, workers):
                raise ModelError("no room")
            opened.put(replace(sample_run(), id=f"{plan.name}-{workers}", session=plan.name))
        return CollectionSummary(plan.name, 1, 0, 1, {"completed": 1}, 0, 1.0)

    return collect


def test_too_many_processes_count_for_nothing(
    settings: OfflineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = stand_in(lambda _, workers: workers == 2)
    monkeypatch.setattr("collect_offline.collect", failing)
    summary = collect_offline(settings)
    assert summary.token_parameters_per_second[1] > 0
    assert summary.token_parameters_per_second[2] == 0
    assert (summary.processes, summary.exported) == (1, 2)


def test_what_was_made_is_exported_where_the_plan_fails(
    settings: OfflineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = stand_in(lambda plan, _: plan.name == "small")
    monkeypatch.setattr("collect_offline.collect", failing)
    with pytest.raises(ModelError, match="no room"):
        collect_offline(settings)
    with open_for_reading(settings.output_dir / "runs.parquet") as store:
        assert len(store.summaries()) == 2


def test_a_second_calibration_says_the_same_without_a_run(
    settings: OfflineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collect_offline.collect", stand_in(lambda *_: False))
    first, second = collect_offline(settings), collect_offline(settings)
    assert first.token_parameters_per_second[1] > 0
    assert second.token_parameters_per_second == first.token_parameters_per_second
    assert second.exported == first.exported
