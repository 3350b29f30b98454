"""Metrics of classification as objectives of steps that need no gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunecast.training.label_points import measure_labels
from tunecast.training.losses.completion import CompletionLoss
from tunecast.training.metrics import get_metric

if TYPE_CHECKING:
    from tunecast.data import EncodedExample, EncodedLabel
    from tunecast.training.compute import Compute


class MetricLoss(CompletionLoss):
    """Minus a metric of the likeliest labels of a batch (Malladi et al., arXiv 2305.17333, section 3.3).

    Points, and the training loss that they report, measure the nats of completions, as under every loss. On
    a small batch most directions leave the metric as it is, and such a step moves nothing.

    Args:
        labels: The labels; a training example must have one of them.
        metric: Name of the metric.
    """

    def __init__(self, labels: Sequence[EncodedLabel], metric: str) -> None:
        self._labels = labels
        self._metric = get_metric(metric)

    def compared(
        self, model: Any, examples: Sequence[EncodedExample], compute: Compute
    ) -> tuple[float, float]:
        """Choose the label of each example by likelihood."""
        found = measure_labels(model, examples, self._labels, compute)
        return -self._metric.score(found.chosen, found.true), float(found.nats.sum())
