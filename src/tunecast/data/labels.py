"""The labels of a classification as token ids, in the words and the template of its completions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tunecast.data.encode import IGNORED, encode_whole
from tunecast.data.examples import Example, reference, with_answer
from tunecast.errors import DataError
from tunecast.records import Architecture


@dataclass(frozen=True)
class EncodedLabel:
    """A label as a model would answer it.

    Args:
        text: The label without surrounding white space.
        ids: Its tokens, as they are trained: with the end-of-turn token, where the tokenizer has one.
        completion: Its most frequent spelling as a completion, white space included.
    """

    text: str
    ids: tuple[int, ...]
    completion: str


def encode_labels(
    labels: Iterable[str], train: Sequence[Example], tokenizer: Any, *, architecture: Architecture
) -> tuple[EncodedLabel, ...]:
    """Encode labels as completions of training examples, each in its most frequent spelling.

    Raises:
        DataError: The tokenizer writes two labels alike.
    """
    spellings: dict[str, str] = {}
    for text, _ in Counter(map(reference, train)).most_common():
        spellings.setdefault(text.strip(), text)
    names = list(labels)
    answered = [with_answer(train[0], spellings[name]) for name in names]
    encoded = encode_whole(answered, tokenizer, architecture=architecture)
    found: dict[tuple[int, ...], str] = {}
    for name, item in zip(names, encoded, strict=True):
        ids = tuple(token for token in item.labels if token != IGNORED)
        if ids in found:
            raise DataError(
                f"The labels {found[ids]!r} and {name!r} are the same {len(ids)} tokens to this model.",
                "Rename one of them, choose another model, or give --kind short-answers.",
            )
        found[ids] = name
    return tuple(EncodedLabel(name, ids, spellings[name]) for ids, name in found.items())
