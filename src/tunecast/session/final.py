"""The final training: the pipeline that ended best, once more, under as long a schedule as is affordable."""

from __future__ import annotations

from dataclasses import dataclass

from tunecast.session.allowance import Allowance
from tunecast.session.budget import Used
from tunecast.session.forecast import leading_trial
from tunecast.session.pace import Pace
from tunecast.session.trials import Trials

__all__ = ["FinalTraining", "choose_final"]

LEAST_STRETCH = 1.5
"""A final training is at least this many times as long as the trials before it."""
MORE_POINTS = 2
"""A longer schedule is also measured where a shorter one had not taken enough steps yet."""


@dataclass(frozen=True)
class FinalTraining:
    """What is trained finally.

    Args:
        run: The run of the trial whose pipeline it is.
        tokens: Its full length.
    """

    run: str
    tokens: int


def choose_final(
    trials: Trials, allowance: Allowance, pace: Pace, used: Used, *, most_tokens: int
) -> FinalTraining | None:
    """The pipeline of the trial that ended best, with what is left of the budget; None if that is too little.

    Args:
        trials: Those of the search.
        allowance: What is left.
        pace: Foretells seconds.
        used: What is spent.
        most_tokens: The longest that is worth it; 0 for none.
    """
    best = leading_trial(trials)
    if best is None or not most_tokens:
        return None
    pipeline = best.spec.pipeline
    affordable = allowance.tokens_for(pipeline.method, len(best.plan.grid) + MORE_POINTS, used, pace)
    longest = max(example.tokens for example in best.bench.train)
    beyond = (
        int(pipeline.number("per_device_train_batch_size")) * longest
    )  # a schedule ends with a whole batch
    tokens = min(most_tokens, affordable - beyond)
    if tokens < LEAST_STRETCH * best.spec.full_length_tokens:
        return None
    return FinalTraining(best.spec.run, tokens)
