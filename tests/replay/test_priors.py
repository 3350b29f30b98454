"""Priors of replayed strategies: what they may know, and how they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from planted_runs import planted_runs
from replay.made_up import many_tasks
from tunecast.predictor import Prior
from tunecast.predictor.features import FEATURES
from tunecast.predictor.task_groups import dataset_families
from tunecast.predictor.train import train
from tunecast.records import Outcome, Run
from tunecast.replay import comparing, priors
from tunecast.replay.cases import Clock, cases_of, on_clock
from tunecast.replay.comparing import compare_strategies
from tunecast.replay.folds import Fold
from tunecast.replay.priors import kept_prior


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNECAST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "priors"


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return planted_runs(tasks=4, runs=5)


def same(left: Prior, right: Prior) -> bool:
    return left.identity == right.identity


def test_a_prior_is_trained_once(runs: list[Run], cache: Path) -> None:
    first = kept_prior(runs)
    (file,) = cache.iterdir()
    made = file.stat().st_mtime_ns
    assert same(kept_prior(runs[::-1]), first)
    assert file.stat().st_mtime_ns == made
    file.write_bytes(b"cut off")
    assert same(kept_prior(runs), first)
    assert file.stat().st_size > 100


def test_hidden_features_are_not_learned_from(runs: list[Run], cache: Path) -> None:
    hidden = ("log_effective_rate", "log_rate", "log_travel", "surplus", "surplus_above", "surplus_below")
    columns = [FEATURES.index(name) for name in hidden]
    for names, sees in (((), True), (hidden, False)):
        gain = kept_prior(runs, names).quality.forests.gain
        assert bool(set(columns) & set(gain.arrays["feature"].tolist())) is sees
    assert len(list(cache.iterdir())) == 2


def test_a_run_that_went_on_makes_another_prior(runs: list[Run], cache: Path) -> None:
    paused = [replace(runs[-1], outcome=Outcome.PAUSED, curve=runs[-1].curve[:1])]
    kept_prior([*runs[:-1], *paused])
    kept_prior(runs)
    assert len(list(cache.iterdir())) == 2


def test_another_clock_makes_another_prior(runs: list[Run], cache: Path) -> None:
    other = [replace(p, training=replace(p.training, cpu=2 * p.training.cpu + 1.0)) for p in runs[0].curve]
    timed = [replace(runs[0], curve=tuple(other)), *runs[1:]]
    for clock in Clock:
        kept_prior(on_clock(timed, clock))
    assert len(list(cache.iterdir())) == 2


def test_whatever_determines_a_prior_is_in_its_key(runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    first = next(run for run in runs if len(run.curve) > 1)
    end = first.curve[-1]
    lower = replace(end, validation=replace(end.validation, loss=0.9 * end.validation.loss))
    described = {**first.dataset.meta_features, "log_examples": 9.0}
    others = [
        replace(first, curve=(*first.curve[:-1], lower)),
        replace(first, dataset=replace(first.dataset, meta_features=described)),
        replace(first, model=replace(first.model, width=2 * first.model.width)),
        replace(first, machine=replace(first.machine, threads=first.machine.threads + 1)),
    ]
    keys = [priors._key([other if run is first else run for run in runs], ()) for other in (first, *others)]
    keys.append(priors._key(runs, ("log_rate",)))
    assert len(set(keys)) == len(keys)
    monkeypatch.setattr(priors, "version", lambda name: "another" if name == "scikit-learn" else "0")
    keys.append(priors._key(runs, ()))
    monkeypatch.setattr(priors, "version", lambda name: "another" if name == "scipy" else "0")
    keys.append(priors._key(runs, ()))
    assert len(set(keys)) == len(keys)


def test_the_code_that_computes_features_is_in_the_key() -> None:
    rooms = {file.parent.name for file in priors._sources()}
    assert {"tunecast", "data", "estimate", "methods", "models", "predictor"} <= rooms


def test_other_code_makes_other_priors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    monkeypatch.setattr(priors, "_sources", lambda: [file])

    def written(text: str) -> str:
        file.write_text(text, encoding="utf-8")
        return priors._code.__wrapped__()

    assert written("def double(x):\n    return 2 * x\n") != written("def double(x):\n    return 3 * x\n")


def test_a_library_that_is_missing_is_said_by_training_not_by_the_key(
    runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(priors, "LIBRARIES", ("no-such-library",))
    assert len(priors._key(runs, ("log_rate",))) == 32


def test_a_cache_that_takes_nothing_is_no_trouble(runs: list[Run], cache: Path) -> None:
    cache.parent.write_text("a file, where a folder is wanted")
    assert kept_prior(runs).provenance.runs > 0


@pytest.mark.parametrize("fold", [Fold.TASK, Fold.FAMILY])
def test_nothing_of_the_case_is_in_its_prior(fold: Fold, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = many_tasks(12)
    cases = cases_of(runs)[0][:2]
    known: list[set[str]] = []

    def watched(allowed: Sequence[Run]) -> Prior:
        known.append({run.task.dataset for run in allowed})
        return train(allowed)

    monkeypatch.setattr(comparing, "kept_prior", watched)
    compare_strategies(cases, runs, ("transfer",), seeds=1, budgets=(1.0,), fold=fold, thinking_seconds=0.0)
    family_of = dataset_families(run.task.dataset for run in runs)
    for case, tasks in zip(cases, known, strict=True):
        assert len(tasks) == (
            11 if fold is Fold.TASK else 12 - list(family_of.values()).count(family_of[case.task])
        )
        assert case.task not in tasks
