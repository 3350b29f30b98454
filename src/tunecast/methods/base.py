"""The interface of a finetuning method, which each file of this package implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tunecast.methods.rates import adapter_rate
from tunecast.records import Hyperparameters, ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter
    from torch import Tensor

    from tunecast.data import EncodedExample
    from tunecast.estimate import Footprint


def is_constant(parameter: Hyperparameter) -> bool:
    """Return whether a hyperparameter has only one value, by nature or because the user fixed it."""
    return parameter.size == 1


class Method(ABC):
    """How weights are changed.

    A method turns the worker's frozen base model into a model to train, and later restores the base model.
    All trained parameters are float32. Methods are stateless: the state of a trial lives in the model that
    ``attach`` returns.
    """

    name: ClassVar[str]
    """The name in pipelines, on the command line and in tables."""

    delivers: ClassVar[str]
    """What ``save`` writes: ``adapter`` (PEFT format, needs the base model) or ``model`` (self-contained)."""

    optimizer: ClassVar[str] = ""
    """A stateless optimiser that the method prescribes; empty if ``optim`` chooses."""

    ignores: ClassVar[frozenset[str]] = frozenset()
    """Shared hyperparameters without effect under this method. They are not searched."""

    applies_weight_decay: ClassVar[bool] = False
    """Whether the method decays weights itself, before each update, instead of the optimiser."""

    rate_multiple: ClassVar[float] = 1.0
    """The method's usual learning rate as a multiple of LoRA's on the same model."""

    fixed_rate: ClassVar[float | None] = None
    """The method's usual learning rate if it is the same for all models, else None."""

    weight: ClassVar[float] = 1.0
    """How often the method is sampled relative to the others that apply."""

    @abstractmethod
    def applies(self, model: ModelFacts) -> str | None:
        """Return why the method cannot be used on ``model``, or None if it can."""

    @abstractmethod
    def hyperparameters(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """Return the method's own hyperparameters and their ranges on ``model``, with ``learning_rate``."""

    def central_rate(self, model: ModelFacts) -> float:
        """Return the learning rate that suits the method with AdamW when nothing is known about the task."""
        return self.fixed_rate or self.rate_multiple * adapter_rate(model)

    def constraints(self, parameters: Mapping[str, Hyperparameter]) -> Sequence[Any]:
        """Return ConfigSpace conditions and forbidden clauses between hyperparameters.

        Args:
            parameters: The hyperparameters by name, after the user's restrictions: any may have become a
                constant or lost values.
        """
        return ()

    @abstractmethod
    def attach(self, base: Any, pipeline: Pipeline, seed: int) -> Any:
        """Build a trainable model from the frozen base.

        Args:
            seed: Seed of random initialisation. torch's global generator is left unchanged.

        Returns:
            A model whose parameters with ``requires_grad`` are those to train, all float32.
        """

    def choose(self, base: Any, pipeline: Pipeline, examples: Sequence[EncodedExample]) -> Hyperparameters:
        """Choose further hyperparameters for ``attach`` from the data; none by default.

        Called once per trial. The result is kept beside the trial's checkpoints.

        Args:
            base: The base model, frozen, in evaluation mode. It must be left unchanged.
        """
        return {}

    def before_update(self, model: Any, learning_rate: float) -> None:  # noqa: B027 (mostly nothing)
        """Change the gradients of a step, which are summed over the batch and not yet clipped.

        Args:
            model: The model that ``attach`` returned, in training mode.
        """

    def after_update(self, model: Any, step: int, total_steps: int) -> None:  # noqa: B027
        """Act on freshly updated weights while their gradients still exist.

        Args:
            model: The model that ``attach`` returned, in training mode.
            step: Number of the step, starting at 1.
        """

    def state(self, model: Any) -> dict[str, Tensor]:
        """Return what exact resume needs besides trained weights and optimiser; nothing by default."""
        return {}

    def restore(self, model: Any, state: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Restore what :meth:`state` returned."""

    @abstractmethod
    def detach(self, model: Any) -> Any:
        """Undo :meth:`attach` and return the base model."""

    @abstractmethod
    def save(self, model: Any, folder: Path, base_location: str) -> None:
        """Write files that a fresh process loads with transformers and peft alone.

        Args:
            model: The trained model that ``attach`` returned.
            base_location: Where the adapter will find its base model: a relative path or a hub id.
        """

    def footprint(self, pipeline: Pipeline, model: ModelFacts) -> Footprint | None:
        """State what the method trains and holds, from which bytes and seconds are estimated.

        Returns:
            None where that cannot be said: it has to be measured.
        """
        return None

    @abstractmethod
    def trainable_parameters(self, model: ModelFacts, pipeline: Pipeline) -> int:
        """Count the parameters that ``attach`` would train, without loading weights."""
