"""Tests the seconds of steps that ``tunecast recommend`` expects, on base models left out.

    python benchmarks/efficiency_held_out.py [--store URL]

Prints a Markdown table: the share of runs whose seconds lie in the 90% interval of the learned efficiency,
and the error of the log seconds, beside that of a constant efficiency.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

import numpy as np

from tunecast.estimate.constants import EFFICIENCY
from tunecast.predictor.efficiency import Efficiency, credible_ratios
from tunecast.predictor.prediction import NORMAL_90
from tunecast.records import Run
from tunecast.store import open_for_reading

COLUMNS = ("held out", "runs", "in their 90% intervals", "error of the log seconds (of a constant)")


def size(run: Run) -> str:
    """The base model's size, by the first word of its name."""
    return run.model.name.partition("-")[0]


def timed(runs: Sequence[Run], is_held: Callable[[Run], bool]) -> list[str]:
    """The cells of a row on seconds; machines whose rates were measured under load are left out."""
    known = Efficiency.of(run for run in runs if not is_held(run))
    held = credible_ratios(run for run in runs if is_held(run))
    asked = [(known.share(device, *key), ratio) for _, ((device, key), ratio) in held]
    errors = np.array([math.log(share.value / ratio) for share, ratio in asked])
    spread = np.array([NORMAL_90 * share.deviation for share, _ in asked])
    constant = np.array([math.log(EFFICIENCY / ratio) for _, ratio in asked])
    return [
        f"{len(asked)}",
        f"{np.mean(np.abs(errors) <= spread):.0%}",
        f"{np.sqrt(np.mean(errors**2)):.2f} ({np.sqrt(np.mean(constant**2)):.2f})",
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", help="recorded runs (default: what is shipped)")
    with open_for_reading(parser.parse_args().store) as store:
        runs = [run for run in store.runs() if run.is_described]
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name in sorted({size(run) for run in runs}):
        print(f"| {' | '.join([name, *timed(runs, lambda run, n=name: size(run) == n)])} |")  # type: ignore[misc]


if __name__ == "__main__":
    main()
