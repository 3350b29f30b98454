"""Prompts in each model's own chat template, where those of three models differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunecast.data import encode_prompt
from tunecast.errors import DataError, ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from tunecast.data import Example

NO_LIMIT = 10**9
Ids = tuple[int, ...]


class OwnPrompts:
    """Replaces prompts as the expert's tokenizer writes them by those of another model's tokenizer.

    Args:
        examples: The examples whose prompts will be read.
        tokenizer: The expert's tokenizer.
        own: The other model's tokenizer.

    Raises:
        DataError: An example has several answers: the answers between would be written in two templates.
    """

    def __init__(self, examples: Sequence[Example], tokenizer: Any, own: Any) -> None:
        self._own: dict[Ids, Ids] = {}
        for example in examples:
            if sum(turn.trained for turn in example.turns) > 1:
                raise DataError(
                    f"Row {example.row} has several answers, and the models have different chat templates.",
                    "Give one answer per row, or models with the same chat template.",
                )
            written, wanted = (
                encode_prompt(example, one, max_length=NO_LIMIT, architecture="decoder-only")
                for one in (tokenizer, own)
            )
            self._own[written] = wanted
        self._lengths = sorted({len(written) for written in self._own}, reverse=True)

    def rewritten(self, ids: Tensor, mask: Tensor, least: int) -> tuple[Tensor, Tensor]:
        """Replace the prompts of a batch that is padded on the left.

        Args:
            ids: Prompts with or without a part of their answers; shape (rows, positions).
            mask: 1 for a token and 0 for padding, of the same shape.
            least: Least number of positions of the result.

        Returns:
            Token ids and mask of shape (rows, new positions), padded on the left.

        Raises:
            ModelError: A prompt was cut.
        """
        rows = [
            self._row(tuple(row[kept.bool()].tolist()))
            for row, kept in zip(ids.cpu(), mask.cpu(), strict=True)
        ]
        positions = max(least, *map(len, rows))
        new_ids, new_mask = ids.new_zeros(len(rows), positions), mask.new_zeros(len(rows), positions)
        for number, row in enumerate(rows):
            new_ids[number, positions - len(row) :] = ids.new_tensor(row)
            new_mask[number, positions - len(row) :] = 1
        return new_ids, new_mask

    def _row(self, row: Ids) -> Ids:
        for length in self._lengths:
            if (own := self._own.get(row[:length])) is not None:
                return own + row[length:]
        raise ModelError(
            "A prompt is too long: it was cut, and cannot be written again in another model's chat template.",
            "Shorten the prompts, or give models with the same chat template.",
        )


def own_prompts(examples: Sequence[Example], tokenizer: Any, own: Any) -> OwnPrompts | None:
    """Return the rewriting of prompts for a model; None if its tokenizer writes them as the expert's does."""
    return None if _writes(tokenizer) == _writes(own) else OwnPrompts(examples, tokenizer, own)


def _writes(tokenizer: Any) -> tuple[Any, ...]:
    """Return everything that decides how a tokenizer writes a prompt, beside its vocabulary."""
    return tokenizer.chat_template, tokenizer("a").input_ids, tokenizer.eos_token_id
