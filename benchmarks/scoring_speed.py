"""Times scoring of 1,000 candidates by Tunecast's prior and by Quick-Tune-Tool's surrogate.

Both score the same candidates in turns. Quick-Tune-Tool is meta-trained on the store's runs first. It is
timed within its own process, so communication between the processes does not count. It gets the features that
Tunecast computes from pipelines; Tunecast is timed with and without computing them.

TUNECAST_QUICKTUNE_PYTHON=FOLDER/bin/python python benchmarks/scoring_speed.py [--store URL] [--most-runs N]

Exits with status 1 if scoring takes Tunecast longer than the limit.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

from tunecast.methods.space import pipeline_space, sample_pipelines
from tunecast.predictor import TaskDescription, load_prior
from tunecast.predictor.features import feature_rows
from tunecast.predictor.quality import Trial
from tunecast.search import Context
from tunecast.store import open_for_reading
from tunecast_benchmarks.limits import CANDIDATES, too_slow, verdict
from tunecast_benchmarks.rivals.quicktune import QuickTune, meta_trained

STEPS = 200
"""Steps of the schedule of candidates."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store", help="URL, SQLite file or Parquet export; default: what is shipped")
    parser.add_argument("--most-runs", type=int, help="meta-train on the first N runs only")
    parser.add_argument("--repeats", type=int, default=20)
    chosen = parser.parse_args()
    with open_for_reading(chosen.store) as store:
        runs = tuple(store.runs())[: chosen.most_runs]
    prior = load_prior()
    run = next(run for run in runs if run.curve)
    start = prior.provenance.zero_shot_loss
    pipelines = sample_pipelines(pipeline_space(run.model), CANDIDATES)
    setting = TaskDescription(run.dataset, run.model, run.full_length_tokens, run.unique_examples, start)
    context = Context(run.dataset, run.model, run.full_length_tokens, run.unique_examples, start, runs=runs)
    started = time.perf_counter()
    process = meta_trained(context)
    print(f"{process.version}: meta-trained on {len(runs)} runs in {time.perf_counter() - started:.0f} s")
    rival = QuickTune(process, context, pipelines, 0, cost_aware=False)

    features = feature_rows(setting, pipelines)
    trials = [Trial(setting, pipeline, STEPS) for pipeline in pipelines]
    times: dict[str, list[tuple[float, float]]] = {"whole": [], "rows": [], "theirs": []}
    for turn in range(chosen.repeats + 1):
        measured = {
            "whole": _timed(lambda: prior.quality.predict(trials)),
            "rows": _timed(lambda: prior.quality.before(trials, features)),
            "theirs": rival.milliseconds(),
        }
        for name, pair in measured.items() if turn else ():  # the first turn includes one-time work
            times[name].append(pair)
    for place, clock in enumerate(("wall", "processor")):
        whole, rows, theirs = (statistics.median(pair[place] for pair in times[name]) for name in times)
        print(
            f"{clock}: Tunecast {whole:.1f} ms ({rows:.1f} ms of it without features), "
            f"Quick-Tune-Tool {theirs:.1f} ms without features; "
            f"Quick-Tune-Tool takes {theirs / whole:.2f} times as long, {theirs / rows:.2f} without features"
        )
    whole = statistics.median(wall for wall, _ in times["whole"])
    sys.exit(verdict(too_slow(whole)))


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor milliseconds of a call."""
    started, working = time.perf_counter(), time.process_time()
    call()
    wall, busy = time.perf_counter() - started, time.process_time() - working
    return 1e3 * wall, 1e3 * busy


if __name__ == "__main__":
    main()
