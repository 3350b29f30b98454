"""The contract of strategies; it runs for every registered one."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from sample_runs import sample_pipeline
from search.known_runs import PIPELINES, context, task_runs
from trial_tables import Trial, history
from tunecast.errors import ConfigurationError
from tunecast.methods import Restrictions
from tunecast.methods.space import BASELINE
from tunecast.predictor import load_prior
from tunecast.records import Outcome
from tunecast.search import (
    Context,
    Policy,
    Remaining,
    Strategy,
    check_strategy,
    get_strategy,
    strategies,
)

NAMES = [*(one.name for one in strategies() if not one.library), "given"]  # benchmarks/ adds others' searches
every_strategy = pytest.mark.parametrize("name", NAMES)
BARE = context({})
KNOWN = replace(
    context({name: task_runs(name, [2.0, 1.0, 3.0, None], PIPELINES) for name in "ab"}), prior=load_prior()
)
CANDIDATES = [sample_pipeline(learning_rate=1e-4 * 1.1**place, lora_r=8) for place in range(300)]


def policy(name: str, known: Context = KNOWN) -> Policy:
    return get_strategy(name).policy(known)


def histories(strategy: Strategy) -> int:
    """How many histories to try: fewer for strategies that think for longer."""
    return 100 if strategy.predicts else 300


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


@every_strategy
def test_a_policy_is_pure_and_only_ever_advances_open_trials(name: str) -> None:
    draw = random.Random(0)
    for _ in range(histories(get_strategy(name))):
        seen = history(random_trials(draw))
        remaining = Remaining(draw.random(), draw.choice((None, 10.0)), draw.choice((None, 0, 3)))
        chosen = policy(name)(seen, remaining)
        assert chosen == policy(name)(seen, remaining)
        assert chosen is None or seen.trials[chosen].is_open


@every_strategy
def test_a_policy_starts_no_trial_beyond_the_budget(name: str) -> None:
    draw = random.Random(1)
    for _ in range(histories(get_strategy(name))):
        seen = history(random_trials(draw))
        chosen = policy(name)(seen, Remaining(draw.random(), new_trials=0))
        assert chosen is None or seen.trials[chosen].is_started


@every_strategy
def test_a_policy_ends_when_every_trial_is_closed(name: str) -> None:
    closed = [
        Trial((2.0,), Outcome.FAILED),
        Trial(tuple([2.0] * 7), Outcome.COMPLETED),
        Trial((2.0,), running=True),
    ]
    assert policy(name)(history(closed), Remaining(1.0)) is None


@every_strategy
def test_a_policy_uses_only_the_knowledge_that_its_strategy_names(name: str) -> None:
    strategy = get_strategy(name)
    if strategy.predicts:
        with pytest.raises(ConfigurationError, match="needs a trained prior"):
            strategy.policy(replace(KNOWN, prior=None))
        known, bare = KNOWN, replace(BARE, prior=KNOWN.prior)
    elif strategy.knows == "runs":
        known, bare = replace(KNOWN, prior=None), KNOWN
    else:
        known, bare = KNOWN, BARE
    draw = random.Random(2)
    for _ in range(30):
        seen = history(random_trials(draw))
        remaining = Remaining(draw.random())
        assert policy(name, known)(seen, remaining) == policy(name, bare)(seen, remaining)


@every_strategy
def test_candidates_are_some_of_those_it_was_given_and_none_twice(name: str) -> None:
    strategy = get_strategy(name)
    kept = strategy.select(KNOWN, CANDIDATES)
    assert {one.id for one in kept} <= {one.id for one in CANDIDATES}
    assert len({one.id for one in kept}) == len(kept) >= 200
    assert kept == strategy.select(KNOWN, CANDIDATES)
    order = strategy.order(KNOWN, kept)
    assert order is None or set(order) <= {one.id for one in kept}
    assert order is None or len(set(order)) == len(order)


@every_strategy
def test_a_strategy_without_a_search_pins_every_trial_and_shares_the_budget_among_them(name: str) -> None:
    strategy = get_strategy(name)
    pinned = strategy.pinned(BASELINE, Restrictions())
    assert BASELINE not in pinned
    for unit in ("seconds", "tokens", "trials"):
        assert 0 < (strategy.trials or 1) * strategy.share_of_budget(unit) <= 1
    if strategy.trials is not None:
        assert 1 + len(pinned) == strategy.trials
        assert not strategy.stops_early


@every_strategy
def test_options_that_a_strategy_does_not_use_are_refused(name: str) -> None:
    strategy = get_strategy(name)
    check_strategy(name)
    if strategy.stops_early:
        check_strategy(name, value=2.0)
    else:
        with pytest.raises(ConfigurationError, match=f"--value: the strategy {name}") as caught:
            check_strategy(name, value=2.0)
        assert caught.value.hint == "Use one of: transfer, quick-tune."
    if strategy.knows != "prior":
        with pytest.raises(ConfigurationError, match=f"--prior: the strategy {name}") as caught:
            check_strategy(name, "prior.safetensors")
        assert caught.value.hint == "Use one of: transfer, quick-tune."
