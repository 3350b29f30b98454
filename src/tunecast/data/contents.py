"""Warns of examples that are well formed and teach the wrong thing: their prompts or answers are at fault."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from tunecast.data.answers import ClosedAnswers, answer_of, closed_answers
from tunecast.data.examples import Dataset, Example, prompt_text
from tunecast.data.problems import listed

MISSING_VALUES = frozenset(
    ("NA", "N/A", "n/a", "<NA>", "#N/A", "#NA", "NaN", "nan", "-NaN", "-nan", "NULL", "Null", "null", "None")
)
"""Texts that stand for a missing value in tables; ``pandas.read_csv`` takes most of them for one."""


def content_warnings(dataset: Dataset) -> list[str]:
    """Return what is suspicious about the texts of a dataset, one sentence each, with counts and rows."""
    closed = closed_answers(dataset)
    return [*_skewed(dataset, closed), *_conflicting(dataset.train, closed), *_texts(dataset)]


def _skewed(dataset: Dataset, closed: ClosedAnswers | None) -> Iterator[str]:
    if closed is None:
        return
    total = len(dataset.train)
    most = closed.counts[closed.majority]
    if most == total:
        yield (
            f"All {total} training examples have the same answer, {_quoted(closed.majority)}. There is "
            "nothing to learn: add examples with other answers."
        )
    elif closed.is_skewed:
        counts = listed(f"{_quoted(answer)} {count:,}" for answer, count in closed.counts.items())
        others = [e.row for e in dataset.train if answer_of(e) != closed.majority]
        yield (
            f"The answers are skewed: {most / total:.0%} of {total} training examples have the same one "
            f"({counts}; the others are in rows {listed(others)}). A model that always gives it is right as "
            "often, so judge scores by their distance from the majority answer's."
        )


def _conflicting(train: Sequence[Example], closed: ClosedAnswers | None) -> Iterator[str]:
    """Find training prompts with several answers; only white space around turns is ignored."""
    groups: dict[tuple[tuple[str, str], ...], list[Example]] = defaultdict(list)
    for example in train:
        if prompt_text(example).strip():
            groups[tuple((turn.role, turn.content.strip()) for turn in example.turns[:-1])].append(example)
    several = [group for group in groups.values() if len({answer_of(example) for example in group}) > 1]
    if not several:
        return
    rows = sum(map(len, several))
    first = several[0]
    other = next(example for example in first if answer_of(example) != answer_of(first[0]))
    advice = (
        "Correct them: a prompt has one label."
        if closed is not None
        else "Correct them, unless the prompt has several good answers."
    )
    prompts = f"{len(several)} training prompts have" if len(several) > 1 else "A training prompt has"
    yield (
        f"{prompts} different answers, in {rows} of {len(train)} examples "
        f"(such as rows {first[0].row} and {other.row}). {advice}"
    )


def _texts(dataset: Dataset) -> Iterator[str]:
    """Find empty prompts, and prompts and answers that stand for a missing value."""
    for name, examples in dataset.splits():
        asked = [example for example in examples if len(example.turns) > 1]
        if empty := [example.row for example in asked if not prompt_text(example).strip()]:
            yield (
                f"{name}: {len(empty)} of {len(examples)} prompts are empty or null (rows {listed(empty)}). "
                "Remove these rows, or fill them in."
            )
        prompts = [(prompt_text(example).strip(), example.row) for example in asked]
        yield from _missing_values(f"{name}: {{}} is the prompt of {{}} of {len(examples)} examples", prompts)
        answers = [(answer_of(example), example.row) for example in examples]
        yield from _missing_values(f"{name}: {{}} is the answer in {{}} of {len(examples)} examples", answers)


def _missing_values(sentence: str, texts: Sequence[tuple[str, int]]) -> Iterator[str]:
    """Fill in ``sentence`` the missing values among the texts, and how often they occur."""
    found = [(text, row) for text, row in texts if text in MISSING_VALUES]
    if found:
        values = " or ".join(map(_quoted, sorted({text for text, _ in found})))
        rows = listed(row for _, row in found)
        yield (
            f"{sentence.format(values, len(found))} (rows {rows}), and is used as such. "
            "If it stands for a missing value, remove these rows."
        )


def _quoted(text: str, longest: int = 30) -> str:
    return repr(text if len(text) <= longest else f"{text[: longest - 1]}…")
