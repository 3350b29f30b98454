"""What a finetuning method is: the role that every file of this folder plays."""

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


def is_constant(parameter: Hyperparameter) -> bool:
    """Whether a hyperparameter has one value only, by nature or because the user fixed it."""
    return parameter.size == 1


class Method(ABC):
    """How weights are changed.

    A method takes the worker's frozen base model and returns a model to train; afterwards it gives the base
    back as it was. Whatever it trains is float32. Methods hold no state of a trial: that lives in the model
    which ``attach`` returns.
    """

    name: ClassVar[str]
    """The name in pipelines, on the command line and in tables."""

    delivers: ClassVar[str]
    """What ``save`` writes: ``adapter`` (PEFT format, needs the base model) or ``model`` (stands alone)."""

    optimizer: ClassVar[str] = ""
    """The optimiser that the method prescribes, one without state; empty where ``optim`` chooses."""

    ignores: ClassVar[frozenset[str]] = frozenset()
    """Shared hyperparameters that have no effect under this method, and are not searched."""

    rate_multiple: ClassVar[float] = 1.0
    """The method's usual learning rate as a multiple of LoRA's on the same model."""

    fixed_rate: ClassVar[float | None] = None
    """The method's usual learning rate where it is alike for all models; else None."""

    weight: ClassVar[float] = 1.0
    """How often the method is drawn, relative to the others that apply."""

    @abstractmethod
    def applies(self, model: ModelFacts) -> str | None:
        """Why the method cannot be used on ``model``, or None when it can."""

    @abstractmethod
    def hyperparameters(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """The method's own hyperparameters and their ranges on ``model``, ``learning_rate`` among them."""

    def central_rate(self, model: ModelFacts) -> float:
        """The learning rate that suits the method with AdamW before anything is known of the task."""
        return self.fixed_rate or self.rate_multiple * adapter_rate(model)

    def constraints(self, parameters: Mapping[str, Hyperparameter]) -> Sequence[Any]:
        """ConfigSpace conditions and forbidden clauses between hyperparameters.

        Args:
            parameters: The hyperparameters by name as they stand after the user's restrictions: any of them
                may have become a constant or have fewer values.
        """
        return ()

    @abstractmethod
    def attach(self, base: Any, pipeline: Pipeline, seed: int) -> Any:
        """Make a trainable model of the frozen base.

        Args:
            base: The base model, frozen, in evaluation mode.
            pipeline: A pipeline of this method.
            seed: Seed of whatever is initialised at random; torch's global generator is left as it was.

        Returns:
            A model whose parameters with ``requires_grad`` are those to train, all of them float32.
        """

    def choose(self, base: Any, pipeline: Pipeline, examples: Sequence[EncodedExample]) -> Hyperparameters:
        """What the method decides on the data, as hyperparameters that ``attach`` gets beside the others.

        It is asked once for a trial, and its answer is kept beside the trial's checkpoints. Mostly nothing.

        Args:
            base: The base model, frozen, in evaluation mode; left as it was.
            pipeline: A pipeline of this method.
            examples: The trial's training examples.
        """
        return {}

    def before_update(self, model: Any) -> None:  # noqa: B027 (most methods have nothing to do here)
        """Change the gradients of a step, summed over its batch and not yet clipped; mostly nothing.

        Args:
            model: What ``attach`` returned, in training mode.
        """

    def after_update(self, model: Any, step: int, total_steps: int) -> None:  # noqa: B027
        """Act on weights that have just been updated, while their gradients are there; mostly nothing.

        Args:
            model: What ``attach`` returned, in training mode.
            step: Number of the step, from 1.
            total_steps: Steps of the complete schedule.
        """

    def state(self, model: Any) -> dict[str, Tensor]:
        """What an exact continuation needs beside trained weights and optimiser; mostly nothing."""
        return {}

    def restore(self, model: Any, state: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Put back what :meth:`state` took; mostly nothing."""

    @abstractmethod
    def detach(self, model: Any) -> Any:
        """Undo :meth:`attach` and return the base model, as far as the method can restore it."""

    @abstractmethod
    def save(self, model: Any, folder: Path, base_location: str) -> None:
        """Write what a fresh process loads with transformers and peft alone.

        Args:
            model: The trained model that ``attach`` returned.
            folder: An existing folder.
            base_location: Where the saved adapter is to find its base model; a relative path or a hub id.
        """

    @abstractmethod
    def trainable_parameters(self, model: ModelFacts, pipeline: Pipeline) -> int:
        """Number of parameters that ``attach`` will train, without loading weights."""
