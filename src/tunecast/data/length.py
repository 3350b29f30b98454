"""Chooses the maximum sequence length for a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tunecast.data.encode import encode
from tunecast.data.examples import Dataset, Example
from tunecast.records import Architecture

if TYPE_CHECKING:
    from numpy.typing import NDArray

LONGEST_BY_DEFAULT = 1024
SAMPLE = 1000


def fitting_length(
    dataset: Dataset, tokenizer: Any, *, context: int | None, architecture: Architecture
) -> int:
    """Return the multiple of 64 that holds 99% of the training examples, at most the context and 1,024.

    For an encoder-decoder, the longer of prompt and completion counts. A ``context`` of None has no limit.

    Raises:
        DataError: More than half of the prompts are too long.
    """
    limit = _limit(context)
    sample = spread(dataset.train, 0)[:SAMPLE]
    lengths = [
        max(len(example.input_ids), len(example.labels))
        for example in encode(sample, tokenizer, max_length=limit, architecture=architecture)
    ]
    return length_for(lengths, context)


def length_for(lengths: Sequence[int] | NDArray[Any], context: int | None) -> int:
    """Apply the rule of :func:`fitting_length` to the tokens of each example, shape (examples,)."""
    needed = int(np.quantile(lengths, 0.99))
    return min(_limit(context), 64 * -(-needed // 64))


def _limit(context: int | None) -> int:
    return min(context or LONGEST_BY_DEFAULT, LONGEST_BY_DEFAULT)


def spread(examples: Sequence[Example], seed: int) -> tuple[Example, ...]:
    """Shuffle the examples by a seed, so that the first few are a fair sample."""
    order = np.random.default_rng([seed, 3]).permutation(len(examples))
    return tuple(examples[int(index)] for index in order)
