"""Other libraries' searches as pure functions of the history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from sample_runs import sample_pipeline
from search.known_runs import context
from trial_tables import Trial, history, simulate
from tunecast.errors import ConfigurationError
from tunecast.records import Outcome, Pipeline
from tunecast.search import History, Policy, Remaining, check_strategy, get_strategy, strategies
from tunecast.search.rivals.base import Proposal, Rival
from tunecast.search.rivals.rebuilt import rebuilt

TRIALS = 24
STEPS = 60
LIBRARIES = {one.name: one.library for one in strategies() if one.library}
BARE = context({})
libraries = pytest.mark.parametrize("name", LIBRARIES)


class Scripted(Rival):
    """Asks for candidates in a fixed order, to a quarter of the full length; notes what it is told."""

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
    pytest.importorskip(LIBRARIES[name])
    lasting, asked = get_strategy(name).policy(BARE), 0

    def often_killed(seen: History, remaining: Remaining) -> int | None:
        nonlocal asked
        asked += 1
        chosen = lasting(with_rates(seen), remaining)
        if asked % 6 == 0:
            assert get_strategy(name).policy(BARE)(with_rates(seen), remaining) == chosen
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


def test_running_trials_are_passed_over_and_their_results_are_not_foretold() -> None:
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


@libraries
def test_a_missing_library_is_one_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunecast.search.rivals.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=rf"(?s)--strategy: {name} needs.*tunecast\[rivals\]"):
        check_strategy(name)
