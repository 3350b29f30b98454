"""The interface of a finetuning method, which each file of this package implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tunecast.methods.rates import adapter_rate, around
from tunecast.optimizers import OPTIMIZERS
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
    """A way of changing weights.

    A method turns the worker's frozen base model into a model to train, and later restores the base model.
    All trained parameters are float32, unless the method trains the base itself. Apart from caches, methods
    are stateless: the state of a trial lives in the model that ``attach`` returns.
    """

    name: ClassVar[str]
    """The name in pipelines, on the command line and in tables."""

    delivers: ClassVar[str]
    """Format of ``save``: ``adapter`` (PEFT format, needs the base model) or ``model`` (self-contained)."""

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

    rate_range: ClassVar[tuple[float, float] | None] = None
    """The learning rates to search around ``fixed_rate``; None for an eighth to eight times the usual one."""

    supports_head: ClassVar[bool] = True
    """Whether it can train a classification head beside its own parameters."""

    depends_on_length: ClassVar[bool] = False
    """Whether what a step does depends on the number of steps to come, beside the learning rate."""

    is_last_resort: ClassVar[bool] = False
    """Whether searches offer it by default only if nothing else fits in memory, or a predictor prefers it."""

    weight: ClassVar[float] = 1.0
    """Relative frequency with which the method is sampled among those that apply."""

    @abstractmethod
    def applies(self, model: ModelFacts) -> str | None:
        """Return why the method cannot be used on ``model`` on this machine, or None if it can."""

    def applies_elsewhere(self, model: ModelFacts) -> str | None:
        """Return why the method cannot be used on ``model`` on any machine, or None if it can."""
        return self.applies(model)

    def why_not_shardable(self) -> str | None:
        """Return why a trial cannot be spread over devices, or None if it can.

        By default it can if the method has no hooks: these see whole tensors.
        """
        if self.optimizer and not OPTIMIZERS[self.optimizer].is_elementwise:
            return "its optimiser needs whole tensors"
        hooks = ("choose", "before_update", "after_update", "state")
        if any(getattr(type(self), name) is not getattr(Method, name) for name in hooks):
            return "its hooks need whole tensors"
        return None

    def release_base(self, model: Any) -> None:  # noqa: B027 (mostly nothing)
        """Give up what only :meth:`detach` needs, for a model that is never taken apart again."""

    def hyperparameters(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """Return the learning rate and the choices, with their ranges on ``model``."""
        from ConfigSpace import Float

        usual = self.fixed_rate if self.rate_range else None  # else the middle of the range
        bounds = self.rate_range or around(self.central_rate(model))
        return (Float("learning_rate", bounds, default=usual, log=True), *self.choices(model))

    def choices(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """Return the method's own hyperparameters besides the learning rate; none by default."""
        return ()

    def central_rate(self, model: ModelFacts) -> float:
        """Return the learning rate that suits the method with AdamW when nothing is known about the task."""
        return self.fixed_rate or self.rate_multiple * adapter_rate(model)

    def constraints(self, parameters: Mapping[str, Hyperparameter]) -> Sequence[Any]:
        """Return ConfigSpace conditions and forbidden clauses between hyperparameters.

        After the user's restrictions any hyperparameter may have become a constant or lost values.
        """
        return ()

    @abstractmethod
    def attach(self, base: Any, pipeline: Pipeline, seed: int) -> Any:
        """Build a trainable model from the frozen base, which is in evaluation mode.

        Parameters with ``requires_grad`` are those to train, all float32 unless they are the base's own. A
        classification head that the base has is always among them. torch's global generator is left
        unchanged.
        """

    def choose(self, base: Any, pipeline: Pipeline, examples: Sequence[EncodedExample]) -> Hyperparameters:
        """Choose further hyperparameters for ``attach`` from the trial's training examples; none by default.

        Called once per trial; the result is kept beside its checkpoints. The base model is frozen, in
        evaluation mode, and must be left unchanged.
        """
        return {}

    def before_update(self, model: Any, learning_rate: float) -> None:  # noqa: B027 (mostly nothing)
        """Change the gradients of a step, which are summed over the batch and not yet clipped.

        The model is in training mode; ``learning_rate`` is that of this step.
        """

    def after_update(self, model: Any, step: int, total_steps: int) -> None:  # noqa: B027
        """Act on freshly updated weights while their gradients still exist; ``step`` starts at 1."""

    def state(self, model: Any) -> dict[str, Tensor]:
        """Return the state that exact resume needs besides weights and optimiser; nothing by default."""
        return {}

    def restore(self, model: Any, state: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Restore what :meth:`state` returned."""

    @abstractmethod
    def detach(self, model: Any) -> Any:
        """Undo :meth:`attach` and return the base model; None if it is used up."""

    @abstractmethod
    def save(self, model: Any, folder: Path, base_location: str) -> None:
        """Write files into an existing folder that a fresh process loads with transformers and peft alone.

        ``base_location`` is a relative path or a hub id at which the adapter finds its base model.
        """

    def footprint(self, pipeline: Pipeline, model: ModelFacts) -> Footprint | None:
        """State the weights and bytes that the method trains and holds; None if they must be measured."""
        return None

    @abstractmethod
    def trainable_parameters(self, model: ModelFacts, pipeline: Pipeline) -> int:
        """Count the parameters that ``attach`` would train, without loading weights."""
