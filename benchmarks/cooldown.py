"""Asks whether trials should keep their rate, so that the winner can go on, or have a whole cosine schedule.

    python benchmarks/cooldown.py MODEL --tasks FOLDER [--names banking77,...] [--tokens 49152] [--seeds 1]
        [--rates 1,2,4,8]

Both ways try the same pipelines for a third of the final training's tokens and spend the same in all.
*restarted* has short trials with a whole cosine schedule, and trains the best one's pipeline from the start.
*continued* keeps the rate after warm-up, and goes on with the best trial to a third more tokens; the last
fifth lowers the rate to 0. Unlike in sessions, its short trials end before the rate falls. Prints test losses
in nats per label token; *equal length* is the continued schedule without the third that it gains. Set
OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from scipy.stats import spearmanr

from meta_dataset_figures import table
from tunecast.methods.rates import STEADY
from tunecast.progress import Silent
from tunecast.records import ModelFacts, Pipeline
from tunecast.session.prepare import prepare_task
from tunecast.session.settings import SessionSettings
from tunecast.training.runner import Runner
from tunecast.training.training_task import TrialSpec
from tunecast_benchmarks.small_studies import plain_pipeline, usual_rate, validated_alike

NAMES = "banking77,multi30k_de_en,geo_sql,tweet_emotion"
RATES = "1,2,4,8"
"""Learning rates as multiples of the method's usual one."""
SHORT = 3
"""The final training is this many times as long as a trial."""
TESTED = 200


@dataclass(frozen=True)
class Ends:
    """What one pipeline came to.

    Args:
        short: Validation loss of a short trial with a whole cosine schedule.
        constant: Validation loss at the same length of a trial with a constant rate.
        restarted: Test loss of a final training from the start.
        continued: Test loss of the constant trial, continued by as many tokens and cooled down.
        equal: Test loss of the continued schedule over the tokens of the final training alone.
    """

    short: float
    constant: float
    restarted: float
    continued: float
    equal: float


def pipelines(facts: ModelFacts, rates: Sequence[float]) -> list[Pipeline]:
    """Return LoRA and full finetuning at these multiples of their usual rates."""
    return [
        plain_pipeline(method, rate * usual_rate(method, facts))
        for method in ("lora", "full")
        for rate in rates
    ]


def ends(runner: Runner, pipeline: Pipeline, tokens: int, seed: int) -> Ends:
    """Train a pipeline in all four ways."""
    constant = Pipeline(pipeline.method, {**pipeline.hyperparameters, "lr_scheduler_type": STEADY})
    trained = functools.partial(_trained, runner, seed)
    short, _, _ = trained(pipeline, tokens // SHORT)
    _, _, restarted = trained(pipeline, tokens)
    _, first, continued = trained(constant, tokens + tokens // SHORT, points=SHORT + 1)
    _, _, equal = trained(constant, tokens)
    return Ends(short, first, restarted, continued, equal)


def _trained(
    runner: Runner, seed: int, pipeline: Pipeline, tokens: int, points: int = 0
) -> tuple[float, float, float]:
    """Train, and return the validation losses at the end and at the first point, and the test loss."""
    task = runner.training_task
    with TemporaryDirectory() as folder:
        spec = TrialSpec("cooldown", pipeline, seed, tokens, len(task.train), folder)
        spec = replace(spec, halvings=(), even_points=points)
        losses, reached = [], 0
        for step in task.plan(spec).grid:
            point = runner.advance(spec, reached, step).point
            if point is None:
                return np.inf, np.inf, np.inf
            losses.append(point.validation.loss)
            reached = step
        return losses[-1], losses[0], runner.score(spec, reached, "test").score.loss


def row(name: str, seed: int, found: Sequence[Ends]) -> tuple[str, ...]:
    """Compare what is chosen after the short trials, and every pipeline."""
    restarted = min(found, key=lambda one: one.short).restarted
    continued = min(found, key=lambda one: one.constant).continued
    orders = [
        spearmanr([first(one) for one in found], [last(one) for one in found]).statistic
        for first, last in (
            (lambda one: one.short, lambda one: one.restarted),
            (lambda one: one.constant, lambda one: one.continued),
        )
    ]
    best = [min(getattr(one, way) for one in found) for way in ("restarted", "continued", "equal")]
    return (
        *(name, str(seed), f"{restarted:.3f}", f"{continued:.3f}"),
        *(f"{loss:.3f}" for loss in best),
        *(f"{order:.2f}" for order in orders),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--tasks", type=Path, required=True, help="folder of the tasks")
    parser.add_argument("--names", default=NAMES, help="tasks, separated by commas")
    parser.add_argument(
        "--tokens", type=int, default=49_152, help="tokens of a final training from the start"
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rates", default=RATES, help="multiples of each method's usual learning rate")
    chosen = parser.parse_args(arguments)
    rates = [float(rate) for rate in chosen.rates.split(",")]
    torch.set_num_threads(1)
    rows = []
    for name in chosen.names.split(","):
        data = str(chosen.tasks / name)
        settings = SessionSettings(chosen.model, data, objective="loss", test_examples=TESTED, threads=1)
        runner = Runner(validated_alike(prepare_task(settings, Silent()).training_task))
        for seed in range(chosen.seeds):
            found = []
            for pipeline in pipelines(runner.training_task.facts, rates):
                found.append(ends(runner, pipeline, chosen.tokens, seed))
                print(name, seed, pipeline.method, f"{pipeline.learning_rate:.2g}", found[-1], flush=True)
            rows.append(row(name, seed, found))
    chosen_of = ("restarted", "continued")
    best_of = ("best restarted", "best continued", "best of equal length")
    print(table(("task", "seed", *chosen_of, *best_of, "order of short", "order of constant"), rows))


if __name__ == "__main__":
    main()
