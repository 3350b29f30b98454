"""Trainable tokens: trains only the embedding rows of the tokens that begin and end a text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tunecast.methods.peft_method import PeftMethod, task_type
from tunecast.records import ModelFacts, Pipeline

MARKS = ("bos_token_id", "eos_token_id")
"""Tokens that every text contains. Padding is never read, so it gets no gradient."""


class TrainableTokens(PeftMethod):
    """Trains the rows of the begin and end tokens, and the head's rows if the two tables are tied.

    Other tokens of a chat template are not trained, because the configuration does not name them.
    """

    name: ClassVar[str] = "trainable_tokens"
    weight: ClassVar[float] = 0.05
    supports_head: ClassVar[bool] = False  # peft does not load such an adapter as it was saved
    fixed_rate: ClassVar[float | None] = 1e-3
    rate_range: ClassVar[tuple[float, float] | None] = (1e-4, 2e-1)  # so few numbers can, and must, move far

    def applies(self, model: ModelFacts) -> str | None:
        """Require a decoder whose configuration names such tokens."""
        if model.architecture == "encoder-decoder":
            return "its encoder and decoder have separate embeddings, and peft would train unused rows"
        if not _indices(model.config):
            return "its configuration names no tokens that begin or end a text"
        return None

    def peft_config(self, pipeline: Pipeline, *, encoder_decoder: bool) -> Any:
        """Build the ``TrainableTokensConfig``; :meth:`suit` adds the tokens."""
        from peft import TrainableTokensConfig

        return TrainableTokensConfig(task_type=task_type(encoder_decoder))

    def suit(self, peft_config: Any, model_config: Any) -> None:
        """Set the token ids."""
        peft_config.token_indices = _indices(model_config.to_dict())


def _indices(config: Mapping[str, Any]) -> list[int]:
    """Return the distinct token ids; some configurations list several end tokens."""
    found: list[int] = []
    for mark in MARKS:
        value = config.get(mark)
        found += value if isinstance(value, list) else [] if value is None else [value]
    return sorted({int(token) for token in found})
