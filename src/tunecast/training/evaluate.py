"""The evaluation loop: nats of every completion, and the scores made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunecast.records import Score
from tunecast.training.batch import example_nats
from tunecast.training.compute import Compute
from tunecast.training.failures import is_out_of_memory

if TYPE_CHECKING:
    from tunecast.data import EncodedExample

BATCH_TOKENS = 4096
"""Padded tokens of one evaluation batch on an accelerator, before memory says otherwise."""
PROCESSOR_BATCH_TOKENS = 1024
"""The same on a processor, which larger batches take longer: their logits are new memory each time
(``benchmarks/evaluation_batches.py``)."""
RESAMPLES = 1000


@dataclass(frozen=True)
class ExampleScores:
    """What was measured on each example; all arrays have shape (examples,)."""

    nats: np.ndarray
    label_tokens: np.ndarray
    completion_bytes: np.ndarray

    def score(self, *, interval_seed: int | None = None) -> Score:
        """Pool the examples into a score.

        Args:
            interval_seed: Seed of the bootstrap over examples that gives the loss its 95% interval; None
                omits it.
        """
        nats, tokens = float(self.nats.sum()), int(self.label_tokens.sum())
        low = high = None
        if interval_seed is not None:
            low, high = self._loss_interval(interval_seed)
        return Score(
            loss=nats / max(tokens, 1),
            nats_per_completion=nats / max(len(self.nats), 1),
            bits_per_byte=nats / math.log(2) / max(int(self.completion_bytes.sum()), 1),
            examples=len(self.nats),
            label_tokens=tokens,
            loss_low=low,
            loss_high=high,
        )

    def _loss_interval(self, seed: int) -> tuple[float, float]:
        generator = np.random.default_rng(seed)
        losses = np.empty(RESAMPLES)
        for number in range(RESAMPLES):  # one at a time: all at once take gigabytes for a large split
            chosen = generator.integers(0, len(self.nats), len(self.nats))
            losses[number] = self.nats[chosen].sum() / max(self.label_tokens[chosen].sum(), 1)
        low, high = np.quantile(losses, [0.025, 0.975])
        return float(low), float(high)


class Evaluator:
    """Scores models; when memory runs out its own batches shrink, and training is left alone.

    Args:
        compute: How to compute.
        batch_tokens: Padded tokens of one batch; None takes what suits the device.
    """

    def __init__(self, compute: Compute, batch_tokens: int | None = None) -> None:
        self._compute = compute
        usual = PROCESSOR_BATCH_TOKENS if compute.device == "cpu" else BATCH_TOKENS
        self.batch_tokens = batch_tokens or usual

    def evaluate(self, model: Any, examples: Sequence[EncodedExample]) -> ExampleScores:
        """Measure every example once, in evaluation mode.

        Raises:
            MemoryError, RuntimeError: Memory ran out with a single example.
        """
        import torch

        order = sorted(range(len(examples)), key=lambda i: -examples[i].tokens)
        nats = np.zeros(len(examples))
        model.eval()
        with torch.inference_mode():
            while order:
                part = order[: self._batch_size(examples[order[0]].tokens)]
                measured = self._measured(model, [examples[i] for i in part])
                if measured is None:
                    continue
                nats[part] = measured
                del order[: len(part)]
        return ExampleScores(
            nats,
            np.array([example.label_tokens for example in examples]),
            np.array([example.completion_bytes for example in examples]),
        )

    def _batch_size(self, longest: int) -> int:
        return max(1, self.batch_tokens // max(longest, 1))

    def _measured(self, model: Any, examples: list[EncodedExample]) -> np.ndarray | None:
        """Nats of a batch; None when memory ran out and the next attempt is to be smaller."""
        try:
            with self._compute.autocast():
                nats = example_nats(model, self._compute.collate(examples))
            return np.asarray(nats.double().cpu().numpy())
        except Exception as error:  # only memory is handled; the rest goes on up
            if not is_out_of_memory(error) or len(examples) == 1:
                raise
        self._compute.free_memory()
        self.batch_tokens = len(examples) // 2 * examples[0].tokens
        return None
