"""What holds for every strategy: a new one is tested here by its place in the table."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from search.known_runs import PIPELINES, context, task_runs
from trial_tables import Trial, history
from tunecast.errors import ConfigurationError
from tunecast.predictor import load_prior
from tunecast.records import Outcome
from tunecast.search import (
    LIBRARY_BASED,
    RUN_BASED,
    STRATEGIES,
    SURROGATE_BASED,
    Remaining,
    check_strategy,
    get_strategy,
)

strategies = pytest.mark.parametrize("name", STRATEGIES)
KNOWN = replace(
    context({name: task_runs(name, [2.0, 1.0, 3.0, None], PIPELINES) for name in "ab"}), prior=load_prior()
)
COUNTS = dict.fromkeys(SURROGATE_BASED, 100) | dict.fromkeys(LIBRARY_BASED, 30)
"""Histories for strategies that think longer than others."""


def skip_without_library(name: str) -> None:
    if name in LIBRARY_BASED:
        pytest.importorskip(LIBRARY_BASED[name])


def random_trials(draw: random.Random, count: int = 9) -> list[Trial]:
    """Trials in every possible state."""
    return [
        Trial(
            losses=tuple(
                draw.choice((1.0, 2.0, draw.uniform(1, 5), float("nan"))) for _ in range(draw.randrange(8))
            ),
            outcome=draw.choice((Outcome.PAUSED, Outcome.PAUSED, *Outcome)),
            running=draw.random() < 0.2,
        )
        for _ in range(count)
    ]


@strategies
def test_pure_and_only_ever_advances_open_trials(name: str) -> None:
    skip_without_library(name)
    draw = random.Random(0)
    for _ in range(COUNTS.get(name, 300)):
        seen = history(random_trials(draw))
        remaining = Remaining(draw.random(), draw.choice((None, 10.0)), draw.choice((None, 0, 3)))
        chosen = get_strategy(name, KNOWN)(seen, remaining)
        assert chosen == get_strategy(name, KNOWN)(seen, remaining)
        assert chosen is None or seen.trials[chosen].is_open


@strategies
def test_ends_when_every_trial_is_closed(name: str) -> None:
    skip_without_library(name)
    closed = [
        Trial((2.0,), Outcome.FAILED),
        Trial(tuple([2.0] * 7), Outcome.COMPLETED),
        Trial((2.0,), running=True),
    ]
    assert get_strategy(name, KNOWN)(history(closed), Remaining(1.0)) is None


def test_unknown_strategy_suggests_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"'ashaa'(.|\n)*Did you mean asha\?"):
        get_strategy("ashaa")


@pytest.mark.parametrize("name", [*RUN_BASED, *SURROGATE_BASED])
def test_what_rests_on_other_tasks_says_so_where_there_are_none(name: str) -> None:
    check_strategy(name)
    with pytest.raises(ConfigurationError, match="recorded runs of other tasks"):
        get_strategy(name)


@pytest.mark.parametrize("name", SURROGATE_BASED)
def test_what_rests_on_surrogates_takes_none_but_those_it_is_given(name: str) -> None:
    with pytest.raises(ConfigurationError, match="trained surrogates"):
        get_strategy(name, replace(KNOWN, prior=None))
