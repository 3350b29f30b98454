"""The evaluation loop: measures every example and pools the measurements into a score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunecast.records import Score
from tunecast.training.compute import Compute
from tunecast.training.failures import is_out_of_memory
from tunecast.training.losses import Loss
from tunecast.training.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from tunecast.data import EncodedExample

BATCH_TOKENS = 4096
"""Padded tokens of one evaluation batch on an accelerator, unless memory runs out."""
PROCESSOR_BATCH_TOKENS = 1024
"""The same on a CPU, where larger batches are slower: their logits need new memory each time
(``benchmarks/evaluation_batches.py``)."""


class Evaluator:
    """Scores models; when memory runs out, its own batches shrink and training is not affected.

    ``batch_tokens`` are the padded tokens of one batch; None chooses by device. Several ``ranks`` share the
    batches, and each has all measurements in the end.
    """

    def __init__(
        self, compute: Compute, loss: Loss, batch_tokens: int | None = None, ranks: Ranks = ALONE
    ) -> None:
        self._compute = compute
        self._loss = loss
        self._ranks = ranks
        usual = PROCESSOR_BATCH_TOKENS if compute.device == "cpu" else BATCH_TOKENS
        self.batch_tokens = batch_tokens or usual

    def score(
        self, model: Any, examples: Sequence[EncodedExample], *, interval_seed: int | None = None
    ) -> Score:
        """Score a model on examples; see :meth:`measure` and :meth:`Loss.score`."""
        return self._loss.score(examples, self.measure(model, examples), interval_seed=interval_seed)

    def measure(self, model: Any, examples: Sequence[EncodedExample]) -> np.ndarray:
        """Measure every example once, in evaluation mode, with one row per example.

        Raises:
            MemoryError, RuntimeError: Memory ran out with a single example.
        """
        import torch

        order = sorted(range(len(examples)), key=lambda i: -examples[i].tokens)
        rows: list[Any] = [None] * len(examples)
        model.eval()
        with torch.inference_mode():
            if self._ranks.share:
                return self._shared(model, examples, order)
            while order:
                part = order[: self._batch_size(examples[order[0]].tokens)]
                measured = self._measured(model, [examples[i] for i in part])
                if measured is None:
                    continue
                for index, row in zip(part, measured, strict=True):
                    rows[index] = row
                del order[: len(part)]
        return np.array(rows, dtype=np.float64)

    def _shared(self, model: Any, examples: Sequence[EncodedExample], order: list[int]) -> np.ndarray:
        """Measure the batches that fall to this rank, and exchange the measurements.

        All ranks take part in equally many forward passes: one without a batch repeats the last one.
        """
        batches: list[list[int]] = []
        while order:
            batches.append(order[: self._batch_size(examples[order[0]].tokens)])
            del order[: len(batches[-1])]
        batches += [batches[-1]] * (-len(batches) % self._ranks.count)
        own = self._ranks.part(batches)
        measured = [self._measured(model, [examples[index] for index in batch]) for batch in own]
        rows: dict[int, Any] = {}
        for theirs in self._ranks.each(list(zip(own, measured, strict=True))):
            for batch, found in theirs:
                assert found is not None
                rows |= zip(batch, found, strict=True)
        return np.array([rows[index] for index in range(len(examples))], dtype=np.float64)

    def _batch_size(self, longest: int) -> int:
        return max(1, self.batch_tokens // max(longest, 1))

    def _measured(self, model: Any, examples: list[EncodedExample]) -> np.ndarray | None:
        """Measure a batch; None if memory ran out and the next attempt must be smaller."""
        try:
            with self._compute.autocast():
                measured = self._loss.measure(model, self._loss.collate(examples, self._compute))
            return np.asarray(measured.double().cpu().numpy())
        except Exception as error:  # all but memory errors are raised again
            if not is_out_of_memory(error) or len(examples) == 1 or self._ranks.share:
                raise
        self._compute.free_memory()
        self.batch_tokens = len(examples) // 2 * examples[0].tokens
        return None
