"""Predicts how long a trial's next step takes, learning from the session's own steps."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from typing import TYPE_CHECKING

from tunecast.records import Machine

if TYPE_CHECKING:
    from tunecast.training.measurement import Measurement

UPPER_QUANTILE = 1.2816
"""90% of a normal distribution lies below this many standard deviations above the mean."""
FIRST_GUESS_FACTOR = {"full": 1.8, "lora": 1.0, "ia3": 1.0}
"""Seconds per token relative to the baseline, by its backward passes, before a method is measured."""
OTHER_METHOD = 1.5
SCORING_MARGIN = 1.5
"""Allowance for a busy machine on everything but training, such as repeated scoring."""
UNMEASURED_SPREAD = 0.3
MIN_SPREAD = 0.05
LATEST = 8
"""Number of recent steps that overheads are averaged over."""


class RuntimeModel:
    """Seconds of a step: a rate per training token for each method, plus an overhead around training.

    A trial's last step takes longer, because all validation examples are scored once. Rates are pooled by
    tokens, so that a short step on a busy machine counts little.

    Args:
        overhead_seconds: Overhead around a step's training, as known before the first step.
        validation_seconds: Seconds to score all validation examples.
    """

    def __init__(
        self, seconds_per_token: float, overhead_seconds: float = 0.0, validation_seconds: float = 0.0
    ) -> None:
        self._first_guess = seconds_per_token
        self._first_overhead = overhead_seconds
        self.validation_seconds = validation_seconds
        self._steps: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._rates: dict[str, tuple[float, float]] = {}
        self._overheads: deque[float] = deque(maxlen=LATEST)
        self._overheads_by_method: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=LATEST))

    def at_rate(self, share: float) -> RuntimeModel:
        """Return the first guess for a worker whose speed is this multiple of this one's."""
        seconds = 1.0 / share
        return RuntimeModel(
            seconds * self._first_guess, seconds * self._first_overhead, seconds * self.validation_seconds
        )

    def learn(self, method: str, tokens: float, training_seconds: float, other_seconds: float) -> None:
        """Learn from a step.

        Args:
            tokens: Training tokens of the step, weighted by effort as in predictions.
            training_seconds: Wall time of training alone.
            other_seconds: Wall time of the rest of the step: attaching, evaluation, checkpoint.
        """
        if tokens > 0:
            self._steps[method].append((tokens, training_seconds / tokens))
            self._rates.pop(method, None)
        for overheads in (self._overheads, self._overheads_by_method[method]):
            overheads.append(max(0.0, other_seconds))

    def learn_from(
        self, method: str, tokens_before: int, measured: Measurement, seconds: float, effort: float = 1.0
    ) -> None:
        """Learn from a step as a worker measured it; a step without a point teaches nothing.

        Repeated training counts as training. ``seconds`` is the time from the request to the answer,
        ``effort`` the weight of the training tokens.
        """
        point = measured.point
        if point is None:
            return
        training = point.training.wall + measured.retraining_seconds
        other = seconds - training - measured.validation_seconds - measured.choosing_seconds
        tokens = point.tokens_seen - tokens_before + measured.retrained_tokens
        self.learn(method, effort * tokens, training, other)

    def expected(self, method: str, tokens: float, points: int = 1, *, ends: bool = False) -> float:
        """Return the expected seconds for more training tokens and points.

        With ``ends``, the last of the points ends the trial.
        """
        return tokens * self._rate(method)[0] + self._scoring(method, points, ends)

    def upper(self, method: str, tokens: float, points: int = 1, *, ends: bool = False) -> float:
        """Return the 90% upper bound of the seconds that :meth:`expected` estimates."""
        rate, spread = self._rate(method)
        training = tokens * rate * math.exp(UPPER_QUANTILE * spread)
        return training + SCORING_MARGIN * self._scoring(method, points, ends)

    def _scoring(self, method: str, points: int, ends: bool) -> float:
        """Return the overhead in seconds by the latest steps of a method, or of all methods if it has none.

        Methods differ in the size of their checkpoints.
        """
        latest = self._overheads_by_method.get(method) or self._overheads or [self._first_overhead]
        return points * sum(latest) / len(latest) + (self.validation_seconds if ends else 0.0)

    def _rate(self, method: str) -> tuple[float, float]:
        """Return seconds per token and the standard deviation of its logarithm, cached for all candidates."""
        if method not in self._rates:
            self._rates[method] = self._learned_rate(method)
        return self._rates[method]

    def _learned_rate(self, method: str) -> tuple[float, float]:
        steps = self._steps[method]
        if not steps:
            return self._first_guess * FIRST_GUESS_FACTOR.get(method, OTHER_METHOD), UNMEASURED_SPREAD
        total = sum(tokens for tokens, _ in steps)
        mean = sum(tokens * rate for tokens, rate in steps) / total
        variance = sum(tokens * math.log(max(rate, 1e-12) / mean) ** 2 for tokens, rate in steps) / total
        # With few steps the observed spread is itself uncertain: the prior counts as one more step.
        count = len(steps)
        pooled = (count * variance + UNMEASURED_SPREAD**2) / (count + 1)
        # The next step varies like the others, and their mean is itself uncertain.
        return mean, max(MIN_SPREAD, math.sqrt(pooled * (1 + 1 / count)))


class RuntimeModels:
    """The pace of each kind of worker: those on like machines share what they learn.

    Args:
        first: The pace that was measured before the first trial.
        machine: Where it was measured.
        dtype: Type of compute, in which machines are compared.
    """

    def __init__(self, first: RuntimeModel, machine: Machine, dtype: str) -> None:
        self.first = first
        self._dtype = dtype
        self._known = [(machine, first)]

    def of(self, machine: Machine) -> RuntimeModel:
        """Return the pace of workers on a machine; at first, that of their rate."""
        for known, pace in self._known:
            if known.is_as_fast(machine, self._dtype):
                return pace
        (reference, first), rate = self._known[0], machine.rate(self._dtype)
        self._known.append((machine, first.at_rate(rate / reference.rate(self._dtype))))
        return self._known[-1][1]
