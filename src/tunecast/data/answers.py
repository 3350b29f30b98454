"""Recognises a closed set of answers, such as the labels of a classification."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from tunecast.data.examples import Dataset, Example, reference, with_answer

MAX_ANSWERS = 500
MIN_REPEATS = 3.0
"""Mean number of training examples of an answer, below which answers are open text."""
MIN_KNOWN = 0.95
"""Share of held-out answers that must occur in training."""
SKEWED_SHARE = 0.5
SKEWED_RATIO = 1.5
"""Answers are skewed if the most frequent one has this share, and this multiple of an even share."""


@dataclass(frozen=True)
class ClosedAnswers:
    """The answers of a dataset whose completions come from a small set.

    Args:
        counts: Training examples by answer, the most frequent first.
    """

    counts: Mapping[str, int]

    @property
    def majority(self) -> str:
        """The most frequent training answer."""
        return next(iter(self.counts))

    @property
    def is_skewed(self) -> bool:
        """Whether always giving the majority answer is right so often that accuracy says little."""
        share = self.counts[self.majority] / self._total
        return len(self.counts) > 1 and share >= max(SKEWED_SHARE, SKEWED_RATIO / len(self.counts))

    @cached_property
    def _total(self) -> int:
        return sum(self.counts.values())

    def nats(self, answer: str) -> float:
        """Return the surprise of an answer under the shares of training answers, in nats.

        Every answer, and one unknown answer, counts one example more than it has (Laplace's rule), so that
        the surprise is finite.
        """
        return -math.log((self.counts.get(answer, 0) + 1) / (self._total + len(self.counts) + 1))


def answer_of(example: Example) -> str:
    """Return the answer of an example without surrounding white space."""
    return reference(example).strip()


def closed_answers(dataset: Dataset) -> ClosedAnswers | None:
    """Return the closed set of a dataset's answers; None if its answers are open text.

    The set is closed if it is small, its answers repeat, held-out answers occur in training, and each
    example trains its answer only.
    """
    answers = training_answers(dataset)
    held_out = (*dataset.validation, *dataset.test)
    known = sum(answer_of(example) in answers.counts for example in held_out)
    is_closed = (
        are_repeated(dataset.train)
        and known >= MIN_KNOWN * len(held_out)
        and all(map(trains_one_answer, held_out))
    )
    return answers if is_closed else None


def explained_answers(dataset: Dataset) -> tuple[str, ...]:
    """Return the answers that completions give in their first line and explain in further lines.

    Returns:
        At least two answers of a closed set, the most frequent first, each as :func:`spellings` has it; empty
        if the completions have another form.
    """
    if not all("\n" in answer_of(example) for example in dataset.train):
        return ()
    train, validation, test = (tuple(map(_first_line, examples)) for _, examples in dataset.splits())
    answers = closed_answers(replace(dataset, train=train, validation=validation, test=test))
    if answers is None or len(answers.counts) < 2:
        return ()
    spelled = spellings(train)
    return tuple(spelled[answer] for answer in answers.counts)


def _first_line(example: Example) -> Example:
    """Return an example whose completion ends with its first line that is not blank."""
    line = re.match(r"\s*[^\n]*", reference(example))
    return with_answer(example, line[0].rstrip() if line else "")


def spellings(examples: Sequence[Example]) -> dict[str, str]:
    """Return each answer's most frequent spelling as a completion, with the white space around it."""
    found: dict[str, str] = {}
    for text, _ in Counter(map(reference, examples)).most_common():
        found.setdefault(text.strip(), text)
    return found


def are_repeated(examples: Sequence[Example]) -> bool:
    """Whether each example trains its answer only, and the answers are few and repeat."""
    distinct = len(set(map(answer_of, examples)))
    few = 0 < distinct <= min(MAX_ANSWERS, len(examples) / MIN_REPEATS)
    return few and all(map(trains_one_answer, examples))


def training_answers(dataset: Dataset) -> ClosedAnswers:
    """Count the training answers, whether they are a closed set or not."""
    return ClosedAnswers(dict(Counter(answer_of(example) for example in dataset.train).most_common()))


def trains_one_answer(example: Example) -> bool:
    """Return whether an example has a prompt, and trains its answer alone."""
    return len(example.turns) > 1 and sum(turn.trained for turn in example.turns) == 1
