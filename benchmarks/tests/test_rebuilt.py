"""Other libraries' searches as pure functions of the history."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sample_runs import sample_pipeline
from search.known_runs import context
from sessions import finish
from trial_tables import Trial, history, simulate
from tunecast.errors import ConfigurationError
from tunecast.plugins import check_library
from tunecast.records import Outcome, Pipeline
from tunecast.search import History, Policy, Remaining, find_strategy
from tunecast.store import Store
from tunecast_benchmarks.rivals.base import Proposal, Rival
from tunecast_benchmarks.rivals.rebuilt import rebuilt
from tunecast_benchmarks.strategies import Dehb, Tpe

TRIALS = 24
STEPS = 60
STRATEGIES = {one.name: one for one in (Tpe(), Dehb())}
BARE = context({})
libraries = pytest.mark.parametrize("name", STRATEGIES)


class Scripted(Rival):
    """Asks for candidates in a fixed order, to a quarter of the full length; notes its results."""

    def __init__(self, pipelines: Sequence[Pipeline], seed: int) -> None:
        super().__init__(pipelines, by_index=True)
        self.seed = seed
        self.told: list[tuple[int, float | None]] = []
        self.order = iter([2, 0, 1, 3] * 3)

    def _ask(self) -> Proposal | None:
        index = next(self.order, None)
        return None if index is None else Proposal(index, index=index, share=0.25)

    def _tell(self, token: Any, loss: float | None, share: float) -> None:
        self.told.append((token, loss))

    def _drop(self, token: Any, loss: float | None) -> None:
        pass


def loss(trial: int, place: int) -> float | None:
    """A table with a valley; one trial in seven runs out of memory half-way."""
    return None if trial % 7 == 3 and place == 3 else 1.0 + abs(trial - 11) / 10 + 1 / (1 + place)


def with_rates(seen: History) -> History:
    """The same with pipelines that differ, as libraries need them."""
    pipelines = [sample_pipeline(learning_rate=1e-4 * 1.5**i, lora_r=8) for i in range(len(seen.trials))]
    trials = [replace(trial, pipeline=one) for trial, one in zip(seen.trials, pipelines, strict=True)]
    return History(tuple(trials))


@libraries
def test_built_anew_before_every_choice_it_chooses_as_if_it_had_never_stopped(name: str) -> None:
    pytest.importorskip(STRATEGIES[name].library)
    lasting, asked = STRATEGIES[name].policy(BARE), 0

    def often_killed(seen: History, remaining: Remaining) -> int | None:
        nonlocal asked
        asked += 1
        chosen = lasting(with_rates(seen), remaining)
        if asked % 6 == 0:
            assert STRATEGIES[name].policy(BARE)(with_rates(seen), remaining) == chosen
        return chosen

    _, choices = simulate(often_killed, loss, trials=TRIALS, steps=STEPS)
    assert len(choices) == STEPS
    assert len(set(choices)) >= 5
    assert 0 not in choices  # the first is the session's own


def asks_like(table: Sequence[Trial], remaining: Remaining | None = None) -> tuple[int | None, list[Any]]:
    built: list[Scripted] = []

    def build(pipelines: Sequence[Pipeline], seed: int) -> Rival:
        built.append(Scripted(pipelines, seed))
        return built[-1]

    strategy: Policy = rebuilt(build)
    return strategy(history(table), remaining or Remaining(1.0)), built[0].told


def test_running_trials_are_passed_over_and_their_results_stay_hidden() -> None:
    done, half = (1.0,) * 5, (2.0,) * 2
    assert asks_like([Trial(), Trial(), Trial(), Trial(), Trial()]) == (3, [])
    assert asks_like([Trial(), Trial(), Trial(), Trial(done), Trial()]) == (1, [(2, 1.0)])
    assert asks_like([Trial(), Trial(), Trial(), Trial(half, running=True), Trial()]) == (1, [])
    failed = Trial(half, Outcome.FAILED)
    assert asks_like([Trial(), failed, Trial(), Trial(done), Trial()]) == (2, [(2, 1.0), (0, None)])


def test_no_new_trial_where_none_may_be_started() -> None:
    none_left = Remaining(1.0, new_trials=0)
    assert asks_like([Trial()] * 5, none_left) == (None, [])
    assert asks_like([Trial(), Trial(), Trial(), Trial((2.0,)), Trial()], none_left) == (3, [])


def test_a_choice_that_did_not_fit_is_asked_for_again() -> None:
    lasting = rebuilt(Scripted)
    seen = history([Trial()] * 5)
    closed = History((*seen.trials[:3], replace(seen.trials[3], next_share=None), seen.trials[4]))
    assert [lasting(one, Remaining(1.0)) for one in (seen, closed, seen, closed)] == [3, 1, 3, 1]


@pytest.mark.parametrize(("name", "installation"), [("tpe", "optuna"), ("dehb", "--no-deps dehb")])
def test_a_missing_library_is_one_error(
    name: str, installation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = STRATEGIES[name]
    monkeypatch.setattr("tunecast.plugins.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=f"--strategy: {name} needs the package") as caught:
        check_library(name, one.library, one.installation, flag="--strategy")
    assert caught.value.hint == f"Install it: pip install {installation}"


@pytest.mark.skipif(
    "CI" not in os.environ and not find_strategy("tpe"), reason="needs pip install -e benchmarks"
)
@libraries
def test_it_is_a_strategy_of_sessions(name: str, tiny_llama: Path, toy_data: Path, tmp_path: Path) -> None:
    pytest.importorskip(STRATEGIES[name].library)
    flags = ("--strategy", name, "--no-forecast", "--budget", "3-trials", "--epochs", "0.5")
    done = finish(tmp_path / "out", tiny_llama, toy_data, *flags)
    with Store.open(tmp_path / "out" / "runs.sqlite", create=False) as store:
        tried = [run for run in store.runs() if run.is_candidate]
    assert 1 < len(tried) <= 3
    assert len({run.pipeline.id for run in tried}) == len(tried)
    assert tried[0].outcome is Outcome.COMPLETED
    assert done.result["incumbent"]["trial"] in {run.id for run in tried}
