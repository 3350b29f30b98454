"""Tests whether semantic freezing cuts a model at the same layers if it looks at fewer examples.

    python benchmarks/semantic_cuts.py --model MODEL --data FOLDER --data FOLDER

For every dataset, and for every largest number of trained layers in the search space, the cut from the
method's number of examples is compared with the cut from four times as many.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunecast.methods.layers import layer_stack
from tunecast.methods.semantic_freezing import CALIBRATION_EXAMPLES, SHARES, best_cut, deviations
from tunecast.models import load_model
from tunecast.progress import Silent
from tunecast.session.prepare import prepare_task
from tunecast.session.settings import SessionSettings

MORE = 4


def cuts(base: Any, examples: Sequence[Any], count: int) -> tuple[list[int], float]:
    """Frozen layers by largest number of trained layers, from evenly spread examples, and the seconds."""
    layers = len(layer_stack(base))
    started = time.perf_counter()
    measured = deviations(base, examples[:: max(1, len(examples) // count)][:count])
    seconds = time.perf_counter() - started
    most = sorted({max(1, round(share * layers)) for share in SHARES})
    return [best_cut(measured, number) for number in most], seconds


def main() -> None:
    """Print the cuts of every dataset, and the number of equal ones."""
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", action="append", required=True)
    chosen = parser.parse_args()
    apart: list[int] = []
    for data in chosen.data:
        training_task = prepare_task(SessionSettings(model=chosen.model, data=data), Silent()).training_task
        base = load_model(training_task.model, dtype=torch.float32, device="cpu")
        few, quick = cuts(base, training_task.train, CALIBRATION_EXAMPLES)
        many, slow = cuts(base, training_task.train, MORE * CALIBRATION_EXAMPLES)
        apart += [abs(one - other) for one, other in zip(few, many, strict=True)]
        print(f"{Path(data).name}: {few} in {quick:.1f} s, {many} in {slow:.1f} s", flush=True)
    print(f"the same in {apart.count(0)} of {len(apart)} cases, at most {max(apart)} layers apart")


if __name__ == "__main__":
    main()
