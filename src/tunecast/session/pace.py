"""How long the next step of a trial will take, learned from the session's own steps."""

from __future__ import annotations

import math
from collections import defaultdict

__all__ = ["Pace"]

UPPER_QUANTILE = 1.2816
"""Standard deviations above the mean that hold 90% of a normal distribution."""
FIRST_GUESS_FACTOR = {"full": 1.8, "lora": 1.0, "ia3": 1.0}
"""Seconds per token relative to the expert pipeline, before a method was measured: what backward passes it needs."""
UNMEASURED_SPREAD = 0.5
LEAST_SPREAD = 0.1


class Pace:
    """Seconds per training token by method, with the spread of what was seen."""

    def __init__(self, seconds_per_token: float) -> None:
        self._first_guess = seconds_per_token
        self._seen: dict[str, list[float]] = defaultdict(list)

    def learn(self, method: str, tokens: int, seconds: float) -> None:
        """Take in a step: all its seconds, evaluation and checkpoint included, over its training tokens."""
        if tokens > 0:
            self._seen[method].append(seconds / tokens)

    def expected(self, method: str, tokens: int) -> float:
        """Expected seconds for ``tokens`` more training tokens."""
        return tokens * math.exp(self._log_rate(method)[0])

    def upper(self, method: str, tokens: int) -> float:
        """The 90% upper bound of those seconds."""
        mean, spread = self._log_rate(method)
        return tokens * math.exp(mean + UPPER_QUANTILE * spread)

    def _log_rate(self, method: str) -> tuple[float, float]:
        """Mean and standard deviation of log seconds per token."""
        seen = [math.log(rate) for rate in self._seen[method]]
        if not seen:
            guess = self._first_guess * FIRST_GUESS_FACTOR.get(method, 1.5)
            return math.log(guess), UNMEASURED_SPREAD
        mean = sum(seen) / len(seen)
        if len(seen) == 1:
            return mean, UNMEASURED_SPREAD / 2
        variance = sum((rate - mean) ** 2 for rate in seen) / (len(seen) - 1)
        return mean, max(LEAST_SPREAD, math.sqrt(variance))
