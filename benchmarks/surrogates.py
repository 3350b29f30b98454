"""Measures the accuracy of the prior and of other regressors on what was left out, and the prior's speed.

python benchmarks/surrogates.py [--store URL] [--prior FILE] [--no-scores]

Exits with status 1 if scoring, reading or training takes too long.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tunecast.methods.space import pipeline_space, sample_pipelines
from tunecast.predictor import Prior, TaskDescription, read_prior, shipped_prior
from tunecast.predictor.features import feature_rows
from tunecast.predictor.quality import Trial
from tunecast.predictor.train import learnable, report, table, train
from tunecast.records import Run
from tunecast.store import open_for_reading, published_runs
from tunecast_benchmarks.limits import CANDIDATES, LEARNED_FROM, too_slow, verdict
from tunecast_benchmarks.regressors import FAMILIES
from tunecast_benchmarks.regressors.choice import nested, score_unseen_models
from tunecast_benchmarks.regressors.processes import PROCESSES

REPEATS = 20
STEPS = 200
"""Steps of the schedule of candidates."""
READING = """
import sys, time
started = time.perf_counter()
from tunecast.predictor import read_prior
read_prior(sys.argv[1])
print(time.perf_counter() - started)
"""
"""Code by which a new process reads a prior, including imports."""


def milliseconds(prior: Prior, run: Run, loss: float) -> tuple[float, float, float]:
    """Median milliseconds to score candidates: wall and processor time with features, wall time without."""
    setting = TaskDescription(run.dataset, run.model, run.full_length_tokens, run.unique_examples, loss)
    drawn = sample_pipelines(pipeline_space(run.model), CANDIDATES)
    features = feature_rows(setting, drawn)
    trials = [Trial(setting, pipeline, STEPS) for pipeline in drawn]
    whole, busy, alone = [], [], []
    for _ in range(REPEATS):
        started, working = time.perf_counter(), time.process_time()
        prior.quality.predict(trials)
        between = time.perf_counter()
        busy.append(time.process_time() - working)
        prior.quality.before(trials, features)
        alone.append(time.perf_counter() - between)
        whole.append(between - started)
    wall, processor, predicting = (1e3 * statistics.median(found) for found in (whole, busy, alone))
    return wall, processor, predicting


def loading_seconds(path: Path) -> float:
    """Median seconds to read a prior in a new process, including imports."""
    read = [sys.executable, "-c", READING, str(path)]
    return statistics.median(float(subprocess.check_output(read)) for _ in range(5))


def learning_seconds(runs: Sequence[Run]) -> float:
    """Seconds to train a prior on :data:`LEARNED_FROM` random runs, or on all if there are fewer."""
    drawn = random.Random(0).sample(list(runs), min(LEARNED_FROM, len(runs)))
    started = time.perf_counter()
    train(drawn, published_runs())
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store", help="URL, SQLite file or Parquet export; default: what is shipped")
    parser.add_argument("--prior", type=Path, help="a prior file; default: what is shipped")
    parser.add_argument("--no-scores", action="store_true", help="only measure times")
    chosen = parser.parse_args()
    with open_for_reading(chosen.store) as store:
        runs = list(store.runs())
    path = chosen.prior or shipped_prior()
    prior = read_prior(path) if path else train(runs, published_runs())
    if not chosen.no_scores:
        FAMILIES.update(PROCESSES)
        print(report(runs, published_runs(), prior), "\n")
        examples = learnable(runs)
        scores, taken = nested(examples, 0, tuple(FAMILIES))
        print(table(scores, "one regressor for all points"), "\n")
        print(", ".join(f"{name} {count}" for name, count in taken.items() if count), "\n")
        print(table(score_unseen_models("forest", examples), "forest, left out"), "\n")
    run = next(run for run in runs if run.curve)
    whole, busy, alone = milliseconds(prior, run, prior.provenance.zero_shot_loss)
    print(
        f"{CANDIDATES} candidates scored in {whole:.1f} ms "
        f"({busy:.1f} ms of processor time), {alone:.1f} ms without features"
    )
    loading = loading_seconds(path) if path else 0.0
    if path:
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, read in {1e3 * loading:.0f} ms")
    learning = learning_seconds(runs)
    print(f"trained on {min(LEARNED_FROM, len(runs))} of the runs in {learning:.0f} s")
    sys.exit(verdict(too_slow(whole, loading, learning)))


if __name__ == "__main__":
    main()
