"""Chooses the maximum sequence length for a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nlargest
from typing import Any, TypeVar

import numpy as np

from tunecast.data.encode import encode_whole
from tunecast.data.examples import Dataset, Example
from tunecast.records import Architecture

Item = TypeVar("Item")

LONGEST_BY_DEFAULT = 1024
FAR_BEYOND = 4
"""An example this many times longer than 99% of them does not decide the length for all."""
SAMPLE = 1000
LONGEST_OF_A_SPLIT = 16
"""Examples of each split that are looked at in any case, because a sample may miss the longest."""


def fitting_length(
    dataset: Dataset, tokenizer: Any, *, context: int | None, architecture: Architecture
) -> int:
    """Return the multiple of 64 that holds all examples, at most the context and 1,024.

    Examples more than four times as long as 99% of the training examples do not count. For an
    encoder-decoder, the longer of prompt and completion counts. A ``context`` of None has no limit.
    """

    def lengths(examples: Sequence[Example]) -> list[int]:
        encoded = encode_whole(examples, tokenizer, architecture=architecture)
        return [max(len(example.input_ids), len(example.labels)) for example in encoded]

    return length_for(lengths(spread(dataset.train, 0)[:SAMPLE]), lengths(longest_examples(dataset)), context)


def length_for(lengths: Sequence[int], longest: Sequence[int], context: int | None) -> int:
    """Apply the rule of :func:`fitting_length`.

    Args:
        lengths: Tokens of a fair sample of the training examples.
        longest: Tokens of the longest examples of all splits.
        context: The base model's context, None without a limit.
    """
    limit = _limit(context)
    usual = int(np.quantile(lengths, 0.99))
    most = min(limit, FAR_BEYOND * usual)
    needed = max([min(usual, limit), *(tokens for tokens in (*lengths, *longest) if tokens <= most)])
    return min(limit, 64 * -(-needed // 64))


def longest_examples(dataset: Dataset) -> list[Example]:
    """Return the examples of each split that have the most characters."""
    return [
        example
        for _, examples in dataset.splits()
        for example in nlargest(LONGEST_OF_A_SPLIT, examples, key=_characters)
    ]


def _characters(example: Example) -> int:
    return sum(len(turn.content) for turn in example.turns)


def _limit(context: int | None) -> int:
    return min(context or LONGEST_BY_DEFAULT, LONGEST_BY_DEFAULT)


def spread(examples: Sequence[Item], seed: int) -> tuple[Item, ...]:
    """Shuffle examples by a seed, so that the first few are a fair sample."""
    order = np.random.default_rng([seed, 3]).permutation(len(examples))
    return tuple(examples[int(index)] for index in order)
