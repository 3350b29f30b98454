"""The protocol of a training loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from tunecast.data import EncodedExample, Example
    from tunecast.records import Architecture, Pipeline, Score
    from tunecast.training.compute import Compute


class Loss(ABC):
    """The loss that a trial minimises and its points report.

    The training loop, the evaluator and the session know losses only through these methods. The loop picks
    examples, splits them into micro-batches that fit in memory, and steps the optimiser; the loss turns
    examples into tensors and tensors into a number.

    Preference losses fit in one file too. DPO, for instance:

    - A ``PreferencePair`` subclasses :class:`~tunecast.data.EncodedExample`. It adds the rejected sequence
      and a field for the reference model's log-probabilities, and overrides ``tokens`` to count both
      sequences, since budgets and batches are measured in tokens.
    - ``encode`` tokenises the chosen and the rejected completion.
    - ``prepare`` runs the base model over the examples and stores its log-probabilities in copies
      of them, so no second model is held in memory while training.
    - ``collate`` stacks chosen and rejected sequences into one batch, which halves into pairs again in
      ``minimised``.
    - ``weight`` counts pairs instead of label tokens.
    - ``measure`` and ``score`` report the loss per pair, and the accuracy of the implicit reward if wanted.
    """

    needs_head: ClassVar[bool] = False
    """Whether models answer by a head of this loss, so that no other loss can measure them."""

    def model(self, base: Any, compute: Compute, seed: int) -> Any:
        """Return the model to train: the frozen base model itself, unless the loss needs another head."""
        return base

    def encode(
        self, examples: Sequence[Example], tokenizer: Any, *, max_length: int, architecture: Architecture
    ) -> Sequence[EncodedExample]:
        """Tokenise examples; see :func:`tunecast.data.encode`, which this calls unless overridden."""
        from tunecast.data import encode

        return encode(examples, tokenizer, max_length=max_length, architecture=architecture)

    def prepare(
        self, base: Any, examples: Sequence[EncodedExample], compute: Compute
    ) -> Sequence[EncodedExample]:
        """Add to one split's examples results that need the base model; by default, none.

        The result has as many examples, in the same order.
        """
        return examples

    def weight(self, examples: Sequence[EncodedExample]) -> int:
        """Return the divisor of a batch's summed loss: label tokens, unless overridden."""
        return sum(example.label_tokens for example in examples)

    @abstractmethod
    def collate(self, examples: Sequence[EncodedExample], compute: Compute) -> Any:
        """Turn at least one example into a batch of tensors on the device."""

    @abstractmethod
    def minimised(self, model: Any, batch: Any, pipeline: Pipeline) -> tuple[Tensor, Tensor]:
        """Compute the loss of each example in training mode.

        Returns:
            The differentiable loss to minimise, and the reported training loss, both summed per example,
                shape (examples,).
        """

    def compared(
        self, model: Any, examples: Sequence[EncodedExample], compute: Compute
    ) -> tuple[float, float] | None:
        """Compute what steps without gradients compare on a whole batch, in evaluation mode.

        Returns:
            The value to minimise, and the reported training loss, summed; None where these are the sums of
                :meth:`minimised`.
        """
        return None

    @abstractmethod
    def measure(self, model: Any, batch: Any) -> Tensor:
        """Measure each example in evaluation mode; shape (examples,) or (examples, values)."""

    @abstractmethod
    def score(
        self, examples: Sequence[EncodedExample], measured: np.ndarray, *, interval_seed: int | None = None
    ) -> Score:
        """Pool rows of :meth:`measure`, in the order of ``examples``, into a score.

        ``interval_seed`` seeds the bootstrap that gives the loss its 95% interval; None omits the interval.
        """

    @abstractmethod
    def difference_interval(
        self, examples: Sequence[EncodedExample], first: np.ndarray, second: np.ndarray, *, seed: int
    ) -> tuple[float, float]:
        """Compute the 95% interval of the first model's loss minus the second's.

        ``first`` and ``second`` are rows of :meth:`measure` of the same examples. Both are pooled over the
        same resamples (a paired bootstrap), so what makes examples hard cancels out.
        """
