"""The canonical form of a dataset: turns, examples and three splits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from typing import Any

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of an example.

    Args:
        role: ``system``, ``user``, ``assistant``, or ``text`` for running text without roles.
        content: The message.
        trained: Whether the model learns to write it.
    """

    role: str
    content: str
    trained: bool


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a dataset in canonical form. The last turn is always trained.

    Args:
        turns: The messages in order.
        row: 1-based row (or line) of the source file.
    """

    turns: tuple[Turn, ...]
    row: int


@dataclass(frozen=True)
class Dataset:
    """Checked examples in three splits that share no prompt unless a warning says so.

    Args:
        name: The file's stem, the folder's name or the hub id.
        source: The data argument as the user wrote it.
        format: The detected format, such as ``prompt-completion`` or ``messages``.
        train: Examples to learn from.
        validation: Examples to choose between models.
        test: Examples to score the chosen model.
        warnings: What the user should know, one sentence each.
        empty_rows: Rows left out because they have nothing to train on.
        origin: What made the rows, as :func:`tunecast.data.origin.read_origin` returns it; None if they are
            not known to be synthetic.
    """

    name: str
    source: str
    format: str
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    warnings: tuple[str, ...] = ()
    empty_rows: int = 0
    origin: Mapping[str, Any] | None = None

    def splits(self) -> Iterator[tuple[str, tuple[Example, ...]]]:
        """Yield the splits by name, in the order train, validation, test."""
        yield "train", self.train
        yield "validation", self.validation
        yield "test", self.test

    @cached_property
    def fingerprint(self) -> str:
        """A hash over the contents of all examples of all splits, 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for name, examples in self.splits():
            digest.update(f"{name} {len(examples)}\n".encode())
            for example in examples:
                turns = [(turn.role, turn.content, turn.trained) for turn in example.turns]
                digest.update(json.dumps(turns).encode() + b"\n")
        return digest.hexdigest()[:16]


def reference(example: Example) -> str:
    """Return the text of the last trained turn, which generated answers are compared with."""
    return example.turns[-1].content


def with_answer(example: Example, answer: str) -> Example:
    """Return an example with another text of its last trained turn."""
    return replace(example, turns=(*example.turns[:-1], replace(example.turns[-1], content=answer)))


def opening(examples: Sequence[Example]) -> tuple[Turn, ...]:
    """Return the messages that all examples begin with, before the prompt, such as a system message.

    The user's message follows them in every example, so that a new prompt can take its place. None of them is
    trained.
    """
    earlier = zip(*(example.turns[:-2] for example in examples), strict=False)
    shared = [turns[0] for turns in takewhile(lambda turns: len(set(turns)) == 1, earlier)]
    while shared and any(example.turns[len(shared)].role != "user" for example in examples):
        shared.pop()
    return tuple(replace(turn, trained=False) for turn in shared)


def prompt_text(example: Example) -> str:
    """Return everything before the last trained turn, one message per line; empty for running text."""
    return "\n".join(turn.content for turn in example.turns[:-1])


def trained_text(example: Example) -> str:
    """Return everything that is trained, one message per line."""
    return "\n".join(turn.content for turn in example.turns if turn.trained)


def prompt_key(example: Example) -> str:
    """Return a key that equal prompts share; case and the amount of white space do not matter.

    Examples without a prompt are distinguished by their text.
    """
    return " ".join(prompt_text(example).casefold().split()) or " ".join(
        reference(example).casefold().split()
    )
