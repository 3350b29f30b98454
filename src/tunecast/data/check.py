"""What would be trained, looked at before anything is: lengths, mask, duplicates, what is cut or left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from tunecast.data.dependence import UNRELATED, dependence, is_unrelated
from tunecast.data.encode import IGNORED, EncodedExample, encode_whole, encoding_warnings, fit
from tunecast.data.examples import Dataset, Example, prompt_text, trained_text
from tunecast.data.facts import words
from tunecast.data.problems import listed
from tunecast.data.splitting import shared_prompts
from tunecast.records import Architecture

LOOKED_AT = 20
"""Examples among which the shortest is shown."""


@dataclass(frozen=True)
class Lengths:
    """Percentiles of a length in tokens, and the largest."""

    p50: int
    p90: int
    p99: int
    largest: int


@dataclass(frozen=True)
class CheckReport:
    """What ``tunecast data check`` says.

    Args:
        name: The dataset's name.
        source: What the user named.
        format: The format found.
        fingerprint: Hash over all examples of all splits.
        examples: Number of examples by split.
        empty_rows: Rows left out because they had nothing to train.
        duplicates: Training examples that repeat an earlier one, prompt and completion.
        shared_prompts: Held-out examples whose prompt is also trained on, by split.
        token_unit: ``tokens``, or ``words`` where there was no tokenizer.
        max_length: Longest sequence, None where there is none.
        context: Positions of the base model, None where it has no fixed limit.
        lengths: Percentiles of ``prompt``, ``completion`` and ``total`` over all splits, before anything is
            cut.
        too_long: Examples left out because their prompt alone fills the longest sequence.
        truncated: Examples whose completion is cut.
        trained_share: Share of all tokens that are labels, None without a tokenizer.
        end_of_turn: Text of the end-of-turn token, where all completions end with one and it is trained.
        shown_row: Row of the example in ``segments``.
        segments: One example as a model sees it: stretches of text, and whether each is trained.
        warnings: What the user should know, one sentence each.
    """

    name: str
    source: str
    format: str
    fingerprint: str
    examples: Mapping[str, int]
    empty_rows: int
    duplicates: int
    shared_prompts: Mapping[str, int]
    token_unit: str
    max_length: int | None
    context: int | None
    lengths: Mapping[str, Lengths]
    too_long: int
    truncated: int
    trained_share: float | None
    end_of_turn: str | None
    shown_row: int
    segments: tuple[tuple[str, bool], ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Encoding:
    """What the check of the tokens found; the fields are those of :class:`CheckReport`."""

    lengths: Mapping[str, Lengths]
    too_long: int
    truncated: int
    trained_share: float | None
    end_of_turn: str | None
    shown_row: int
    segments: tuple[tuple[str, bool], ...]
    warnings: tuple[str, ...]


def check(
    dataset: Dataset,
    tokenizer: Any,
    *,
    max_length: int | None,
    architecture: Architecture,
    context: int | None = None,
) -> CheckReport:
    """Look at a dataset as a training would see it.

    Args:
        dataset: The dataset.
        tokenizer: A transformers tokenizer; with None lengths are counted in words and no mask is checked.
        max_length: Longest sequence in tokens; None for none.
        architecture: ``decoder-only`` or ``encoder-decoder``.
        context: Positions of the base model, which the report names.

    Raises:
        DataError: Nothing would be trained, or more than half of the prompts are too long.
    """
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
        token_unit="words" if tokenizer is None else "tokens",
        max_length=None if tokenizer is None else max_length,
        context=context,
        lengths=found.lengths,
        too_long=found.too_long,
        truncated=found.truncated,
        trained_share=found.trained_share,
        end_of_turn=found.end_of_turn,
        shown_row=found.shown_row,
        segments=found.segments,
        warnings=tuple(warnings),
    )


def _duplicates(examples: Sequence[Example]) -> list[int]:
    """Rows of the examples that stood before, white space at the ends of turns apart."""
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
    shown = min(fitted[:LOOKED_AT], key=lambda item: item.tokens)
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
    """Tokens that are not trained; a begin-of-sequence token that nothing precedes is none of the prompt."""
    if item.architecture == "encoder-decoder":
        return len(item.input_ids)
    untrained = item.labels.count(IGNORED)
    return 0 if untrained == 1 and item.labels[0] == IGNORED else untrained


def _end_of_turn(whole: Sequence[EncodedExample], tokenizer: Any) -> tuple[str | None, list[str]]:
    """The end-of-turn token if it is trained everywhere, and a warning where it is not."""
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
    # A length that occurs, not one between two: it is read as "so many tokens suffice".
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
    shown = min(dataset.train[:LOOKED_AT], key=lambda example: len(trained_text(example)))
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
