"""The longest sequence that a dataset needs: what a session trains with unless told otherwise."""

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
    """The multiple of 64 that holds 99% of the training examples, within the context and 1,024.

    An encoder-decoder's prompt and completion are two sequences, and the longer one counts.

    Args:
        dataset: The dataset.
        tokenizer: A transformers tokenizer.
        context: Positions of the base model, None where it has no fixed limit.
        architecture: ``decoder-only`` or ``encoder-decoder``.

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
    """The rule of :func:`fitting_length` for lengths that were counted already.

    Args:
        lengths: Tokens of each example, shape (examples,).
        context: As there.
    """
    needed = int(np.quantile(lengths, 0.99))
    return min(_limit(context), 64 * -(-needed // 64))


def _limit(context: int | None) -> int:
    return min(context or LONGEST_BY_DEFAULT, LONGEST_BY_DEFAULT)


def spread(examples: Sequence[Example], seed: int) -> tuple[Example, ...]:
    """The examples in a seeded random order, so that the first few are a fair sample."""
    order = np.random.default_rng([seed, 3]).permutation(len(examples))
    return tuple(examples[int(index)] for index in order)
