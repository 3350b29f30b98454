"""Measures the seconds to score a base model on a processor, by padded tokens of a batch.

It also prints each as a ratio to the batches for an accelerator. Rounds are interleaved, so a change of the
machine's speed affects all of them.

    python benchmarks/evaluation_batches.py [--model smollm2] [--data stdlib] [--examples 96] [--threads 2]
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch

from tunecast.data import EncodedExample
from tunecast.models import load_model
from tunecast.progress import Silent
from tunecast.session.prepare import prepare_task
from tunecast.session.settings import SessionSettings
from tunecast.training.compute import Compute
from tunecast.training.evaluate import BATCH_TOKENS, PROCESSOR_BATCH_TOKENS, Evaluator
from tunecast.training.losses.completion import CompletionLoss
from tunecast.training.training_task import TrainingTask

SIZES = (BATCH_TOKENS, 2048, PROCESSOR_BATCH_TOKENS, 512, 256)
ROUNDS = 3


def seconds(
    model: Any, training_task: TrainingTask, examples: list[EncodedExample], batch_tokens: int
) -> float:
    """Seconds to score the examples once, in batches of some number of padded tokens."""
    evaluator = Evaluator(
        Compute("cpu", training_task.dtype, training_task.facts.architecture, 0),
        CompletionLoss(),
        batch_tokens,
    )
    started = time.perf_counter()
    evaluator.measure(model, examples)
    return time.perf_counter() - started


def main() -> None:
    """Score in batches of every size and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--data", default="stdlib")
    parser.add_argument("--examples", type=int, default=96)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    training_task = prepare_task(
        SessionSettings(chosen.model, chosen.data, device="cpu"), Silent()
    ).training_task
    examples = list(training_task.test[: chosen.examples])
    model = load_model(training_task.model, dtype=getattr(torch, training_task.dtype), device="cpu")
    seconds(model, training_task, examples[:8], BATCH_TOKENS)  # the first products of a process are slow
    rounds = [[seconds(model, training_task, examples, size) for size in SIZES] for _ in range(ROUNDS)]
    tokens = sum(example.tokens for example in examples)
    print(f"{len(examples)} examples of {tokens:,} tokens, {training_task.dtype}, {chosen.threads} threads\n")
    print("| batch, tokens | seconds | ratio |\n|---|---|---|")
    for index, size in enumerate(SIZES):
        taken = statistics.median(row[index] for row in rounds)
        ratio = statistics.median(row[index] / row[0] for row in rounds)
        print(f"| {size} | {taken:.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
