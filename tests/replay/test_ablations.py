"""The priors of the ablations lack what they are said to lack, and nothing else."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from planted_runs import ZERO_SHOT_LOSS, planted_model, planted_runs
from replay.made_up import many_tasks
from tunecast.records import Run
from tunecast.replay.cases import cases_of
from tunecast.replay.comparing import compare_strategies
from tunecast.replay.folds import Fold
from tunecast.search import Context
from tunecast.surrogates import Setting, Subject
from tunecast.surrogates.examples import examples_of
from tunecast.surrogates.families import FAMILIES
from tunecast.surrogates.features import columns
from tunecast.surrogates.train import train


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    module = importlib.import_module("ablations")
    known = set(FAMILIES)
    yield module
    for name in set(FAMILIES) - known:
        del FAMILIES[name]


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return planted_runs(tasks=10, runs=16)


def test_a_blinded_surrogate_does_not_see_what_is_hidden(benchmark: ModuleType, runs: list[Run]) -> None:
    examples = examples_of(runs)
    rate, share = columns(["log_rate"]), columns(["share"])
    blind = benchmark.Blinded("forest", ["log_rate", "log_effective_rate", "log_travel"]).fit(examples, 0)
    sighted = FAMILIES["forest"].fit(examples, 0)
    for column, hidden in ((rate, True), (share, False)):
        moved = examples.features.copy()
        moved[:, column] += 3.0
        same = np.array_equal(blind.predict(moved)[0], blind.predict(examples.features)[0])
        assert same is hidden
        assert not np.array_equal(sighted.predict(moved)[0], sighted.predict(examples.features)[0])


def test_a_prior_without_curves_foretells_as_before_the_first_point(
    benchmark: ModuleType, runs: list[Run]
) -> None:
    prior = train(runs, families=("ridge",))
    blind = benchmark.WithoutCurves(**{part.name: getattr(prior, part.name) for part in fields(prior)})
    run = next(run for run in runs if len(run.curve) == 4)
    setting = Setting(run.dataset, run.model, run.full_length_tokens, run.unique_examples, ZERO_SHOT_LOSS)
    before, after = (Subject(run.pipeline, run.curve[:count]) for count in (0, 2))
    assert blind.predict(setting, [after]).end == blind.predict(setting, [before]).end
    assert blind.predict(setting, [before]).end == prior.predict(setting, [before]).end
    assert prior.predict(setting, [after]).end != prior.predict(setting, [before]).end


def test_fewer_tasks_are_of_as_many_families_as_there_are(benchmark: ModuleType, runs: list[Run]) -> None:
    first = next(run for run in runs if run.curve)
    tasks = {run.task.dataset for run in runs}
    context = Context(first.dataset, first.model, first.full_length_tokens, runs=tuple(runs))
    for count in (4, 8):
        kept = benchmark._of_fewer_tasks(context, count)
        names = {run.task.dataset for run in kept}
        assert len(names) == count
        assert names < tasks
        assert [run for run in runs if run.task.dataset in names] == list(kept)
        assert len({name.partition("_")[0] for name in names}) == count


def test_every_variant_is_replayed_and_what_is_hidden_costs(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = many_tasks(12, shift=0.6)  # so that rates are known from curves alone
    hidden = ("log_rate", "log_effective_rate", "log_travel")
    monkeypatch.setattr(benchmark, "HIDDEN", {"without rate": hidden})
    monkeypatch.setattr(benchmark, "FEWER_TASKS", (4,))
    own = benchmark.variants("forest")
    cases = cases_of(runs)[0][:2]
    found = compare_strategies(
        cases, runs, [*own], seeds=2, budgets=(1.0, 4.0), fold=Fold.FAMILY, thinking_seconds=0.0, own=own
    )
    mean = dict(zip(found.strategies, found.by_task()[:, :, 1].mean(axis=1), strict=True))
    assert mean["whole"] < mean["without partial curve"]
    shown = benchmark.regrets(found)
    assert all(f"| {name} |" in shown for name in own)


def test_what_carries_from_a_narrow_model_to_a_wide_one_is_told(
    benchmark: ModuleType, runs: list[Run]
) -> None:
    wide = planted_runs(tasks=6, runs=6, seed=1, model=planted_model(512))
    lines = benchmark.carried([*runs, *wide], "small-512").splitlines()[2:]
    found = {tuple(cell.strip() for cell in line.split("|")[1:3]): line.split("|") for line in lines}
    assert set(found) == {(a, b) for a in ("other models", "its own runs", "both") for b in ("none", "some")}
    # The planted law is the same at every width, and there are few runs of the wide model.
    assert float(found["other models", "none"][4]) > 0.6
    assert float(found["both", "some"][4]) > 0.6
