"""Measures the speed of describing a dataset, against plain tokenisation of the same text in the same run.

    python benchmarks/describe_dataset.py [--data FILE] [--model M] [--rows 10000]

Rows are repeated (with a number in front, so that they differ) or cut until there are as many as asked for.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle, islice

from tunecast.data import Dataset, Example, Turn, describe, encode, read
from tunecast.models import load_tokenizer

REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="stdlib")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--rows", type=int, default=10_000)
    options = parser.parse_args()
    tokenizer = load_tokenizer(options.model)
    dataset = enlarge(read(options.data), options.rows)
    texts = [turn.content for example in dataset.train for turn in example.turns]
    print(f"{options.rows} rows of {options.data}, {sum(map(len, texts)) / 1e6:.2f} million characters")
    # In turns, so that a change of the machine's speed affects all of them; the first round warms up.
    subjects: dict[str, Callable[[], object]] = {
        "plain tokenisation": lambda: tokenizer(texts, add_special_tokens=False),
        "describe": lambda: describe(dataset, tokenizer),
        "describe without tokenizer": lambda: describe(dataset),
        "encode": lambda: encode(dataset.train, tokenizer, max_length=1024, architecture="decoder-only"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(REPEATS + 1):
        for name, subject in subjects.items():
            started = time.perf_counter()
            subject()
            seconds[name].append(time.perf_counter() - started)
    base = statistics.median(seconds["plain tokenisation"][1:])
    print(f"{'':28}{'seconds':>8}{'rows/s':>10}{'x tokenisation':>16}")
    for name, taken in seconds.items():
        median = statistics.median(taken[1:])
        print(f"{name:28}{median:8.2f}{options.rows / median:10.0f}{median / base:16.2f}")


def enlarge(dataset: Dataset, rows: int) -> Dataset:
    """A dataset of the wanted number of training rows, all different."""
    train = []
    for number, example in enumerate(islice(cycle(dataset.train), rows)):
        first, *others = example.turns
        numbered = Turn(first.role, f"{number}. {first.content}", first.trained)
        train.append(Example((numbered, *others), number + 1))
    return replace(dataset, train=tuple(train))


if __name__ == "__main__":
    main()
