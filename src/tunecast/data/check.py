"""Checks a dataset before training: lengths, the mask, duplicates, what is cut or left out, and contents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np

from tunecast.data.contents import content_warnings
from tunecast.data.dependence import UNRELATED, dependence, is_unrelated
from tunecast.data.encode import IGNORED, EncodedExample, encode_whole, encoding_warnings, fit
from tunecast.data.examples import Dataset, Example, prompt_text, trained_text
from tunecast.data.facts import words
from tunecast.data.kinds import AUTO, task_kind
from tunecast.data.labels import encode_labels
from tunecast.data.problems import listed
from tunecast.data.splitting import shared_prompts
from tunecast.records import Architecture

SHOWN_FROM = 20
"""The example shown is the shortest of this many."""


@dataclass(frozen=True)
class Lengths:
    """Percentiles of a length in tokens, and the maximum."""

    p50: int
    p90: int
    p99: int
    largest: int


@dataclass(frozen=True)
class _Encoding:
    """The results that depend on the tokenizer."""

    lengths: Mapping[str, Lengths]
    too_long: int
    truncated: int
    trained_share: float | None
    end_of_turn: str | None
    shown_row: int
    segments: tuple[tuple[str, bool], ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class CheckReport(_Encoding):
    """The result of ``tunecast data check``.

    Args:
        source: The data argument as the user wrote it.
        fingerprint: Hash over all examples of all splits.
        examples: Number of examples by split.
        empty_rows: Rows left out because they have nothing to train on.
        duplicates: Training examples that repeat an earlier one, prompt and completion.
        shared_prompts: Held-out examples whose prompt is also trained on, by split.
        token_unit: ``tokens``, or ``words`` without a tokenizer.
        max_length: Maximum sequence length, None if unlimited.
        context: The base model's context length, None if it has no fixed limit.
        lengths: Percentiles of ``prompt``, ``completion`` and ``total`` over all splits, before truncation.
        too_long: Examples left out because the prompt alone reaches ``max_length``.
        truncated: Examples whose completion is cut.
        trained_share: Share of all tokens that are labels, None without a tokenizer.
        end_of_turn: Text of the end-of-turn token if every completion ends with one, else None.
        kind: Kind of the task.
        kind_reason: What it was recognised by.
        labels: Training examples by label, None unless it is a classification.
        suggested_metric: The metric that suits the kind.
        measured: How that is measured.
        shown_row: Row of the example in ``segments``.
        segments: One example as the model sees it: pieces of text, and whether each is trained.
    """

    name: str
    source: str
    format: str
    fingerprint: str
    examples: Mapping[str, int]
    empty_rows: int
    duplicates: int
    shared_prompts: Mapping[str, int]
    kind: str
    kind_reason: str
    labels: Mapping[str, int] | None
    suggested_metric: str
    measured: str
    token_unit: str
    max_length: int | None
    context: int | None


def check(
    dataset: Dataset,
    tokenizer: Any,
    *,
    max_length: int | None,
    architecture: Architecture,
    context: int | None = None,
    kind: str = AUTO,
) -> CheckReport:
    """Check a dataset as training would see it.

    Args:
        tokenizer: A transformers tokenizer. With None, lengths are in words and the mask is not checked.
        architecture: ``decoder-only`` or ``encoder-decoder``.
        context: The base model's context length, for the report.
        kind: The kind of task that the user named, or ``auto``.

    Raises:
        DataError: Nothing would be trained, more than half of the prompts are too long, or the completions
            are no labels although the user says so.
    """
    recognised = task_kind(dataset, kind)
    if tokenizer is not None and recognised.labels is not None:
        encode_labels(recognised.labels.counts, dataset.train, tokenizer, architecture=architecture)
    if tokenizer is None:
        found = _without_tokenizer(dataset)
    else:
        found = _with_tokenizer(dataset, tokenizer, max_length, architecture)
    duplicates = _duplicates(dataset.train)
    warnings = [*dataset.warnings, *found.warnings]
    if is_unrelated(dependence(dataset.train)):
        warnings.append(UNRELATED)
    if duplicates:
        warnings.append(
            f"{len(duplicates)} of {len(dataset.train)} training examples repeat an earlier one "
            f"(rows {listed(duplicates)})."
        )
    warnings.extend(content_warnings(dataset))
    warnings.extend(recognised.warnings)
    return CheckReport(
        name=dataset.name,
        source=dataset.source,
        format=dataset.format,
        fingerprint=dataset.fingerprint,
        examples={name: len(examples) for name, examples in dataset.splits()},
        empty_rows=dataset.empty_rows,
        duplicates=len(duplicates),
        shared_prompts={
            name: len(shared_prompts(dataset.train, getattr(dataset, name)))
            for name in ("validation", "test")
        },
        kind=recognised.kind.value,
        kind_reason=recognised.reason,
        labels=recognised.labels.counts if recognised.labels else None,
        suggested_metric=recognised.metric,
        measured=recognised.measured,
        token_unit="words" if tokenizer is None else "tokens",
        max_length=None if tokenizer is None else max_length,
        context=context,
        **vars(replace(found, warnings=tuple(warnings))),
    )


def _duplicates(examples: Sequence[Example]) -> list[int]:
    """Return the rows of examples that repeat an earlier one, ignoring white space around turns."""
    seen = set()
    rows = []
    for example in examples:
        key = tuple((turn.role, turn.content.strip()) for turn in example.turns)
        if key in seen:
            rows.append(example.row)
        seen.add(key)
    return rows


def _with_tokenizer(
    dataset: Dataset, tokenizer: Any, max_length: int | None, architecture: Architecture
) -> _Encoding:
    whole: list[EncodedExample] = []
    fitted: list[EncodedExample] = []
    warnings: list[str] = []
    for name, examples in dataset.splits():
        split = encode_whole(examples, tokenizer, architecture=architecture)
        kept = split if max_length is None else fit(split, tokenizer, max_length=max_length)
        warnings.extend(f"{name}: {text}" for text in encoding_warnings(examples, kept))
        whole.extend(split)
        fitted.extend(kept)
    labels = sum(item.label_tokens for item in whole)
    end_of_turn, end_warnings = _end_of_turn(whole, tokenizer)
    warnings.extend(end_warnings)
    if all(_prompt_tokens(item) == 0 for item in whole):
        warnings.append(
            "All tokens are trained, which is right for running text and wrong where there are prompts."
        )
    shown = min(fitted[:SHOWN_FROM], key=lambda item: item.tokens)
    return _Encoding(
        lengths={
            "prompt": _percentiles([_prompt_tokens(item) for item in whole]),
            "completion": _percentiles([item.tokens - _prompt_tokens(item) for item in whole]),
            "total": _percentiles([item.tokens for item in whole]),
        },
        too_long=len(whole) - len(fitted),
        truncated=sum(item.truncated for item in fitted),
        trained_share=labels / sum(item.tokens for item in whole),
        end_of_turn=end_of_turn,
        shown_row=shown.row,
        segments=_segments(shown, tokenizer),
        warnings=tuple(warnings),
    )


def _prompt_tokens(item: EncodedExample) -> int:
    """Count untrained tokens. A lone begin-of-sequence token does not count as a prompt."""
    if item.architecture == "encoder-decoder":
        return len(item.input_ids)
    untrained = item.labels.count(IGNORED)
    return 0 if untrained == 1 and item.labels[0] == IGNORED else untrained


def _end_of_turn(whole: Sequence[EncodedExample], tokenizer: Any) -> tuple[str | None, list[str]]:
    """Return the end-of-turn token if every example trains it, else a warning."""
    special = {tokenizer.eos_token_id, *tokenizer.all_special_ids}
    special.update(number for number, token in tokenizer.added_tokens_decoder.items() if token.special)
    last = Counter(item.labels[-1] for item in whole)
    missing = sum(count for token, count in last.items() if token not in special)
    if missing:
        text = (
            f"{missing} of {len(whole)} examples do not train an end-of-turn token: a model may never stop."
        )
        return None, [text]
    return str(tokenizer.decode([last.most_common(1)[0][0]])), []


def _percentiles(values: Sequence[int]) -> Lengths:
    # Take a length that occurs, not an interpolation: users read it as "this many tokens are enough".
    p50, p90, p99 = np.percentile(values, [50, 90, 99], method="higher")
    return Lengths(int(p50), int(p90), int(p99), max(values))


def _segments(item: EncodedExample, tokenizer: Any) -> tuple[tuple[str, bool], ...]:
    if item.architecture == "encoder-decoder":
        return ((tokenizer.decode(item.input_ids), False), (tokenizer.decode(item.labels), True))
    pairs = zip(item.input_ids, item.labels, strict=True)
    runs = groupby(pairs, key=lambda pair: pair[1] != IGNORED)
    return tuple((tokenizer.decode([token for token, _ in run]), trained) for trained, run in runs)


def _without_tokenizer(dataset: Dataset) -> _Encoding:
    examples = [example for _, split in dataset.splits() for example in split]
    prompts = [len(words(prompt_text(example))) for example in examples]
    completions = [len(words(trained_text(example))) for example in examples]
    shown = min(dataset.train[:SHOWN_FROM], key=lambda example: len(trained_text(example)))
    return _Encoding(
        lengths={
            "prompt": _percentiles(prompts),
            "completion": _percentiles(completions),
            "total": _percentiles([p + c for p, c in zip(prompts, completions, strict=True)]),
        },
        too_long=0,
        truncated=0,
        trained_share=None,
        end_of_turn=None,
        shown_row=shown.row,
        segments=tuple((turn.content, turn.trained) for turn in shown.turns),
        warnings=("No model was given: lengths are in words, and the mask was not checked.",),
    )
