"""Raw facts of a dataset: counts and histograms, from which meta-features are derived.

The facts contain no text of the dataset, so they can be kept and shared where the data cannot.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunecast.data.characters import count_characters
from tunecast.data.dependence import dependence
from tunecast.data.examples import Dataset, Example, prompt_key, prompt_text, trained_text
from tunecast.data.splitting import shared_prompts
from tunecast.data.tokens import token_ids

FACTS_VERSION = 2

EDGES = (0, 1, 2, 3, *(step << power for power in range(1, 20) for step in (2, 3)))
"""Lower edges of the histograms' bins: 0, 1, 2, 3, 4, 6, 8, 12, 16, ... The last bin is open."""

SAMPLE_CHARACTERS = 4_000_000
"""Characters analysed word by word. Of a larger dataset, an evenly spaced part of the examples is used."""

COMPRESSED_BYTES = 1 << 18
"""Bytes that are compressed. The amount is fixed, because more text compresses better."""

TOP_COMPLETIONS = 100
PERCENTILES = (10, 25, 50, 75, 90, 99)

# In a script without spaces, each character counts as a word.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def words(text: str) -> list[str]:
    """Return the words of ``text`` in lower case. Digits are words, punctuation is not."""
    return _WORD.findall(text.lower())


def collect(dataset: Dataset, tokenizer: Any = None) -> dict[str, Any]:
    """Count everything the meta-features need in the training split, as JSON values.

    Held-out splits are only searched for prompts that they share with training. Without a tokenizer, tokens
    are words. ``prompt`` is everything before the last trained turn, ``completion`` everything that is
    trained.
    """
    examples = dataset.train
    prompts = [prompt_text(example) for example in examples]
    completions = [trained_text(example) for example in examples]
    chosen = _evenly_spaced([len(p) + len(c) for p, c in zip(prompts, completions, strict=True)])
    sides = {
        "prompt": _side([prompts[i] for i in chosen], tokenizer),
        "completion": _side([completions[i] for i in chosen], tokenizer),
    }
    related = dependence(examples)
    return {
        "version": FACTS_VERSION,
        "histogram_edges": list(EDGES),
        "examples": len(examples),
        "sampled_examples": len(chosen),
        "empty_rows": dataset.empty_rows,
        "token_unit": "words" if tokenizer is None else "tokens",
        "tokenizer_vocabulary": 0 if tokenizer is None else len(tokenizer),
        "sizes": {"prompt": _sizes(prompts), "completion": _sizes(completions)},
        "prompt": sides["prompt"].facts,
        "completion": sides["completion"].facts,
        "copied": _copied(sides["prompt"].words, sides["completion"].words),
        "completions": _repetition(completions),
        "prompts": {**_repetition(prompts), **_frame(prompts)},
        "conversation": _conversation(examples),
        "shared_prompts": {
            name: len(shared_prompts(examples, held_out))
            for name, held_out in dataset.splits()
            if name != "train"
        },
        **({} if related is None else {"dependence": related}),
    }


def histogram(values: Sequence[int] | NDArray[np.int64]) -> dict[str, Any]:
    """Count values by the bins of :data:`EDGES`, and add the statistics that bins cannot give exactly."""
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        array = np.zeros(1)
    bins = np.searchsorted(EDGES, array, side="right") - 1
    counts = np.bincount(bins, minlength=len(EDGES))
    logs = np.log1p(array)
    return {
        "counts": [int(count) for count in counts[: int(np.max(np.nonzero(counts))) + 1]],
        "total": int(array.sum()),
        "largest": int(array.max()),
        "mean_log1p": float(logs.mean()),
        "deviation_log1p": float(logs.std()),
        "percentiles": {
            str(p): float(v) for p, v in zip(PERCENTILES, np.percentile(array, PERCENTILES), strict=True)
        },
    }


@dataclass(frozen=True)
class _Side:
    """The facts of all prompts or all completions, and their words."""

    facts: dict[str, Any]
    words: list[list[str]]


def _side(texts: list[str], tokenizer: Any) -> _Side:
    split = [words(text) for text in texts]
    tokens: list[list[int]] | list[list[str]] = split if tokenizer is None else token_ids(tokenizer, texts)
    counts = Counter(word for row in split for word in row)
    token_types = set().union(*tokens) if tokens else set()
    frequencies = np.fromiter(counts.values(), dtype=np.float64) if counts else np.ones(1)
    shares = frequencies / frequencies.sum()
    joined = "\n".join(texts)
    raw = joined[:COMPRESSED_BYTES].encode()[:COMPRESSED_BYTES]
    facts = {
        "tokens": histogram([len(row) for row in tokens]),
        "words": histogram([len(row) for row in split]),
        "distinct_tokens": len(token_types),
        "distinct_words": len(counts),
        "words_seen_once": sum(count == 1 for count in counts.values()),
        "word_characters": sum(len(word) * count for word, count in counts.items()),
        "word_entropy_nats": float(-(shares * np.log(shares)).sum()),
        "window": _window(split),
        "characters": count_characters("".join(texts)),
        "compressed": {"bytes": len(raw), "compressed_bytes": len(zlib.compress(raw, 6))},
    }
    return _Side(facts, split)


def _window(split: Iterable[list[str]]) -> dict[str, int]:
    """Count distinct words among the first 10,000, so that the ratio does not depend on the data size."""
    head = list(islice(chain.from_iterable(split), 10_000))
    return {"words": len(head), "distinct_words": len(set(head))}


def _sizes(texts: list[str]) -> dict[str, Any]:
    return {
        "characters": histogram([len(text) for text in texts]),
        "bytes": histogram([len(text.encode()) for text in texts]),
    }


def _evenly_spaced(sizes: list[int]) -> list[int]:
    """Return indices of evenly spaced examples with about :data:`SAMPLE_CHARACTERS` in total."""
    stride = max(1, math.ceil(sum(sizes) / SAMPLE_CHARACTERS))
    return list(range(0, len(sizes), stride))


def _copied(prompts: list[list[str]], completions: list[list[str]]) -> dict[str, float]:
    """Measure how much of each completion occurs in its own prompt."""
    shares = []
    for prompt, completion in zip(prompts, completions, strict=True):
        known = set(prompt)
        if completion:
            shares.append(sum(word in known for word in completion) / len(completion))
    return {
        "mean_share": float(np.mean(shares)) if shares else 0.0,
        "whole": sum(share == 1.0 for share in shares),
    }


def _repetition(texts: list[str]) -> dict[str, Any]:
    """Count how often the same text recurs, ignoring white space around it."""
    counts = Counter(text.strip() for text in texts)
    shares = np.fromiter(counts.values(), dtype=np.float64) / len(texts)
    return {
        "distinct": len(counts),
        "seen_once": sum(count == 1 for count in counts.values()),
        "entropy_nats": float(-(shares * np.log(shares)).sum()),
        "top_counts": [count for _, count in counts.most_common(TOP_COMPLETIONS)],
    }


def _frame(prompts: list[str]) -> dict[str, float]:
    """Measure the share of a mean prompt taken up by the beginning and end common to nine of ten prompts."""
    total = sum(map(len, prompts))
    beginning = _common_prefix(prompts)
    end = _common_prefix([prompt[::-1] for prompt in prompts])
    covered = len(prompts) / total if total else 0.0
    return {
        "common_beginning_share": min(1.0, beginning * covered),
        "common_end_share": min(1.0, end * covered),
    }


def _common_prefix(texts: list[str]) -> int:
    ordered = sorted(texts)
    # Sorted texts between two texts share their common prefix. Outliers at both ends are dropped.
    low, high = ordered[len(ordered) // 20], ordered[-1 - len(ordered) // 20]
    return next(
        (i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high))
    )


def _conversation(examples: Sequence[Example]) -> dict[str, Any]:
    turns = Counter(len(example.turns) for example in examples)
    return {
        "turns": {str(count): number for count, number in sorted(turns.items())},
        "several_trained_turns": sum(sum(turn.trained for turn in example.turns) > 1 for example in examples),
        "with_system_turn": sum(example.turns[0].role == "system" for example in examples),
        "without_prompt": sum(not prompt_text(example).strip() for example in examples),
        "distinct_prompt_keys": len({prompt_key(example) for example in examples}),
    }
