"""A predicted loss with its uncertainty, as every package states it."""

from __future__ import annotations

import math
from dataclasses import dataclass

NORMAL_90 = 1.6449
"""Standard deviations on either side of the mean that hold 90% of a normal distribution."""


@dataclass(frozen=True)
class Prediction:
    """A predicted loss, whose logarithm is normally distributed.

    Args:
        log_loss: Mean of the logarithm of the loss in nats per label token.
        deviation: Standard deviation of that logarithm.
        failure: Probability that the training diverges.
    """

    log_loss: float
    deviation: float
    failure: float = 0.0

    @property
    def loss(self) -> float:
        """The median loss in nats per label token."""
        return math.exp(self.log_loss)

    @property
    def low(self) -> float:
        """Lower end of the 90% interval."""
        return math.exp(self.log_loss - NORMAL_90 * self.deviation)

    @property
    def high(self) -> float:
        """Upper end of the 90% interval."""
        return math.exp(self.log_loss + NORMAL_90 * self.deviation)
