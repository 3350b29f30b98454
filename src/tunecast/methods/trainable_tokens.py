"""Trainable tokens: a few rows of the embedding are trained, those of the tokens that mark up a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tunecast.methods.peft_method import PeftMethod, task_type
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from ConfigSpace.hyperparameters import Hyperparameter

MARKS = ("bos_token_id", "eos_token_id")
"""Tokens that every text carries; padding is not read and gets no gradient."""


class TrainableTokens(PeftMethod):
    """Trains the rows of the tokens that begin and end texts, with the head's where the two are tied.

    Not even a chat model's other marks are trained: the configuration does not name them.
    """

    name: ClassVar[str] = "trainable_tokens"
    weight: ClassVar[float] = 0.05
    fixed_rate: ClassVar[float | None] = 1e-3

    def applies(self, model: ModelFacts) -> str | None:
        """A decoder whose configuration names such tokens."""
        if model.architecture == "encoder-decoder":
            return "its encoder and decoder look tokens up apart, and peft would train rows that neither uses"
        if not _indices(model.config):
            return "its configuration names no tokens that begin or end a text"
        return None

    def hyperparameters(self, model: ModelFacts) -> Sequence[Hyperparameter]:
        """The learning rate alone: so few numbers can, and must, move far."""
        from ConfigSpace import Float

        return (Float("learning_rate", (1e-4, 2e-1), default=self.fixed_rate, log=True),)

    def peft_config(self, pipeline: Pipeline, *, encoder_decoder: bool) -> Any:
        """The ``TrainableTokensConfig`` of a pipeline; :meth:`suit` adds which tokens."""
        from peft import TrainableTokensConfig

        return TrainableTokensConfig(task_type=task_type(encoder_decoder))

    def suit(self, peft_config: Any, model_config: Any) -> None:
        """Name the rows."""
        peft_config.token_indices = _indices(model_config.to_dict())


def _indices(config: Mapping[str, Any]) -> list[int]:
    """The ids of the tokens, each once; some configurations give a list of ends."""
    found: list[int] = []
    for mark in MARKS:
        value = config.get(mark)
        found += value if isinstance(value, list) else [] if value is None else [value]
    return sorted({int(token) for token in found})
