"""The made-up tasks of the guard's benchmark are other tasks, not the real ones."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import alien_tasks
from replay.made_up import pipelines, task_runs
from tunecast import data
from tunecast.data.meta_features import DEPENDENCE
from tunecast.errors import DataError, OutputError, StoreError
from tunecast.predictor import Prior
from tunecast.predictor.train import train
from tunecast.records import Run
from tunecast.replay.cases import Case
from tunecast.replay.comparing import Comparison, compare_strategies
from tunecast.store import Store

ROWS = [{"prompt": f"Which colour is number {n}?", "completion": f"colour {n}"} for n in range(20)]


def write_sources(tasks: Path) -> None:
    for source in {source for source, _ in alien_tasks.ALIENS.values()}:
        (tasks / source).mkdir(parents=True)
        for split in ("train", "test"):
            text = "".join(json.dumps(row) + "\n" for row in ROWS)
            (tasks / source / f"{split}.jsonl").write_text(text)


def write_task(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def runs_on(folder: Path, model: str = "nano") -> list[Run]:
    """Runs on the dataset that a folder holds now."""
    content = data.read(str(folder)).fingerprint
    return [
        replace(run, dataset=replace(run.dataset, fingerprint=content))
        for run in task_runs(folder.name, choices=pipelines(12), model=model)
    ]


def test_every_made_up_task_differs_from_its_source(tmp_path: Path) -> None:
    write_sources(tmp_path)
    alien_tasks.make(tmp_path, tmp_path / "aliens")
    assert len(alien_tasks.ALIENS) == 10
    for name in alien_tasks.ALIENS:
        for split in ("train", "test"):
            file = tmp_path / "aliens" / f"alien_{name}" / f"{split}.jsonl"
            rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
            assert len(rows) == len(ROWS)
            changed = sum(new["completion"] != old["completion"] for new, old in zip(rows, ROWS, strict=True))
            assert changed > len(ROWS) / 2, name
    alien_tasks.make(tmp_path, tmp_path / "again")
    for file in (tmp_path / "aliens").rglob("*.jsonl"):
        assert file.read_text() == (tmp_path / "again" / file.relative_to(tmp_path / "aliens")).read_text()


def test_tasks_are_made_all_or_none(tmp_path: Path) -> None:
    tasks, output = tmp_path / "tasks", tmp_path / "made" / "aliens"
    write_sources(tasks)
    hidden = next(iter(alien_tasks.ALIENS.values()))[0]
    (tasks / hidden).rename(tmp_path / "hidden")
    with pytest.raises(DataError, match=f"no task {hidden}"):
        alien_tasks.make(tasks, output)
    last = list(alien_tasks.ALIENS.values())[-1][0]
    (tmp_path / "hidden").rename(tasks / hidden)
    (tasks / last / "test.jsonl").write_text("cut off")
    with pytest.raises(ValueError, match="Expecting value"):
        alien_tasks.make(tasks, output)
    assert list(output.parent.iterdir()) == []
    (tasks / last / "test.jsonl").write_text("")
    alien_tasks.make(tasks, output)
    made = {file: file.stat().st_mtime_ns for file in output.rglob("*.jsonl")}
    assert len(made) == 20
    alien_tasks.make(tasks, output)
    assert {file: file.stat().st_mtime_ns for file in output.rglob("*.jsonl")} == made
    assert [folder.name for folder in output.parent.iterdir()] == ["aliens"]
    shutil.rmtree(output / "alien_rot13_answers")
    alien_tasks.make(tasks, output)
    assert len(list(output.rglob("*.jsonl"))) == 20


def test_tasks_are_made_anew_where_what_they_are_made_of_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, output = tmp_path / "tasks", tmp_path / "made" / "aliens"
    write_sources(tasks)
    alien_tasks.make(tasks, output)
    random = output / "alien_random_labels" / "train.jsonl"
    texts = [random.read_text()]
    alien_tasks.make(tasks, output, seed=1)
    texts.append(random.read_text())
    (tasks / "tweet_emotion" / "train.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    alien_tasks.make(tasks, output, seed=1)
    texts.append(random.read_text())
    assert len(set(texts)) == 3
    assert len(texts[-1].splitlines()) == 1
    other = tmp_path / "program.py"
    other.write_text("makes other tasks")
    made = random.stat().st_ino
    monkeypatch.setattr(alien_tasks, "__file__", str(other))
    alien_tasks.make(tasks, output, seed=1)
    assert random.stat().st_ino != made
    assert [folder.name for folder in output.parent.iterdir()] == ["aliens"]


def test_nothing_else_is_lost_for_made_up_tasks(tmp_path: Path) -> None:
    write_sources(tmp_path / "tasks")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"holds thesis\.tex"):
        alien_tasks.make(tmp_path / "tasks", tmp_path / "own")
    with pytest.raises(OutputError, match="is not a folder"):
        alien_tasks.make(tmp_path / "tasks", tmp_path / "own" / "thesis.tex")
    assert (tmp_path / "own" / "thesis.tex").read_text() == "years of work"


def test_a_part_of_the_made_up_tasks_is_not_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sources(tmp_path / "tasks")
    alien_tasks.make(tmp_path / "tasks", tmp_path / "aliens")
    store = tmp_path / "runs.sqlite"
    with Store.open(store) as opened:
        for run in runs_on(tmp_path / "aliens" / "alien_shuffled_queries"):
            opened.put(run)
        for run in task_runs("alien_random_labels", choices=pipelines(12)):
            opened.put(run)
    asked = ["judge", "--store", str(store), "--tasks", str(tmp_path / "tasks")]
    told = []
    for aliens in (tmp_path / "tasks", tmp_path / "aliens"):
        monkeypatch.setattr(sys, "argv", ["alien_tasks.py", *asked, "--aliens", str(aliens)])
        with pytest.raises(SystemExit) as ended:
            alien_tasks.main()
        assert ended.value.code == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        told.append(shown.err)
    assert "lacks alien_shuffled_intents, alien_shuffled_sentences, alien_shuffled_queries" in told[0]
    # Those on random labels are of a dataset of this name that is another one by now.
    assert "lacks runs on alien_shuffled_intents, alien_shuffled_sentences, alien_random_labels" in told[1]


def test_a_task_that_would_count_twice_is_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alien = tmp_path / "aliens" / "alien_shuffled_queries"
    write_task(alien)
    monkeypatch.setattr(alien_tasks, "ALIENS", {"shuffled_queries": alien_tasks.ALIENS["shuffled_queries"]})
    with Store.open(tmp_path / "runs.sqlite") as opened:
        for model in ("nano", "micro"):
            for run in runs_on(alien, model):
                opened.put(run)
    with pytest.raises(StoreError, match="runs on alien_shuffled_queries on several base models"):
        alien_tasks.judge(str(tmp_path / "runs.sqlite"), tmp_path / "aliens", tmp_path / "tasks")


def test_the_guard_fires_by_either_sign_and_on_enough_tasks() -> None:
    silent, new, aside = (alien_tasks.Doubts(*told) for told in ((False, 0.5), (True, 0.0), (False, 0.6)))
    assert [told.fires for told in (silent, new, aside)] == [False, True, True]

    def wrong(made_up: int, real: int) -> list[str]:
        caught = [new] * made_up + [silent] * (10 - made_up)
        return alien_tasks._wrong_rates(caught, [aside] * real + [silent] * (20 - real))

    assert wrong(8, 2) == []
    assert wrong(7, 2) == ["fires on 7 of 10 made-up tasks, 80% wanted"]
    assert wrong(8, 3) == ["fires on 3 of 20 real tasks, 10% allowed"]


def test_the_difference_to_asha_is_that_of_the_same_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    tasks = [f"alien_{name}" for name in alien_tasks.ALIENS]
    base = np.linspace(0.1, 0.5, len(tasks))[:, None]
    by_strategy = {"transfer": -0.02, "asha": 0.0, "random": 0.3}
    budgets = np.zeros(len(alien_tasks.BUDGETS))
    regrets = np.stack([base + by_strategy[name] + budgets for name in alien_tasks.STRATEGIES])
    assert alien_tasks._print_regrets(tasks, regrets) == []
    shown = capsys.readouterr().out
    assert shown.count("  -2.00 [-2.00, -2.00]") == len(alien_tasks.BUDGETS)
    regrets[alien_tasks.STRATEGIES.index("transfer"), :, 1] += 0.03
    assert alien_tasks._print_regrets(tasks, regrets) == ["regret above asha's at 3 baseline trials"]


def test_no_made_up_task_is_judged_by_what_knows_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = ("geo_sql", "atis_sql", "apple_one", "brick_two", "cloud_three", "delta_four")
    alien = "alien_shuffled_queries"
    for folder in (tmp_path / "aliens" / alien, *(tmp_path / "tasks" / name for name in real[:4])):
        write_task(folder)
    known = [run for name in real for run in task_runs(name, choices=pipelines(12))]
    # What is no longer known may still lie in the store of the made-up tasks: it counts for nothing.
    forgotten = task_runs("echo_five", choices=pipelines(12))
    stores = {"a store": [*runs_on(tmp_path / "aliens" / alien), *forgotten], None: known}
    described: set[str] = set()
    diagnostics = alien_tasks.diagnostics

    def watched_diagnostics(case: Case, *rest: Any) -> Any:
        described.update([case.task] * (DEPENDENCE in case.dataset.meta_features))
        return diagnostics(case, *rest)

    learned: list[set[str]] = []
    replayed: list[tuple[set[str], set[str]]] = []

    def watched_prior(known: Sequence[Run]) -> Prior:
        learned.append({run.task.dataset for run in known})
        return train(known)

    def watched_compare(cases: Sequence[Case], known: Sequence[Run], *rest: Any, **more: Any) -> Comparison:
        replayed.append(({case.task for case in cases}, {run.task.dataset for run in known}))
        return compare_strategies(cases, known, *rest, **more)

    monkeypatch.setattr(alien_tasks, "SEEDS", 1)
    monkeypatch.setattr(alien_tasks, "ALIENS", {"shuffled_queries": alien_tasks.ALIENS["shuffled_queries"]})
    monkeypatch.setattr(alien_tasks, "diagnostics", watched_diagnostics)
    monkeypatch.setattr(alien_tasks, "dependence", lambda rows: 0.5)  # there are too few to measure it
    monkeypatch.setattr(alien_tasks, "kept_prior", watched_prior)
    monkeypatch.setattr("tunecast.replay.comparing.kept_prior", watched_prior)
    monkeypatch.setattr(alien_tasks, "compare_strategies", watched_compare)
    monkeypatch.setattr(
        alien_tasks, "open_for_reading", lambda name: nullcontext(SimpleNamespace(runs=lambda: stores[name]))
    )
    status = alien_tasks.judge("a store", tmp_path / "aliens", tmp_path / "tasks")
    assert described == {alien, *real[:4]}, "the guard is to know as much of the real ones"
    others = set(real) - {"geo_sql", "atis_sql"}
    assert replayed == [({alien}, others)]
    # First and last come the priors of the made-up task, between them those of the real ones.
    first, *between = learned[: 1 + len(real)]
    assert first == others
    assert between == [set(real) - {name} for name in sorted(real)]
    replays = learned[1 + len(real) :]
    assert replays
    assert all(known == others for known in replays), "every replayed strategy that predicts has one"
    shown = capsys.readouterr().out
    assert re.search(r"^made up: the guard fires on \d of 1 tasks; ", shown, re.MULTILINE)
    assert re.search(r"^real, left out: the guard fires on \d of 6 tasks; ", shown, re.MULTILINE)
    last = shown.splitlines()[-1]
    assert last.startswith("Missed: ") if status else last == "All limits are met."
