"""Compares bytes and seconds with published finetunings on GPUs, by models and methods left out.

    python benchmarks/gpu_published.py FOLDER

``FOLDER`` holds ``runs.csv``, one row per measured run, and ``configs/NAME/config.json``, the architectures
by its column ``config``. Bytes are predicted at the longest sequence, with nothing fitted. Seconds are
predicted at the mean one; what they are fitted to leaves out the model, or the method, that is predicted.
Rows without a length have no bytes; rows that ran out of memory have no seconds.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from tunecast.estimate import Workload, estimate_memory
from tunecast.estimate.seconds import dry_run_seconds
from tunecast.hardware.accelerators import as_machine, find_accelerator
from tunecast.models.load import load_config, resolve

QUANTILE = 0.90
"""Share of measured seconds that an interval is meant to hold."""


@dataclass(frozen=True)
class Row:
    """One measured run; numbers are None where the source does not state them."""

    name: str
    model: str
    folder: Path
    method: str
    quantizer: str
    fields: Mapping[str, str]

    @property
    def way(self) -> str:
        """The method with its quantiser, which is left out together."""
        return f"{self.method} {self.quantizer}".strip()

    def number(self, column: str) -> float | None:
        """Return a column's number, None if it is empty."""
        text = self.fields[column]
        return float(text) if text else None

    @property
    def is_out_of_memory(self) -> bool:
        """Whether the run failed for want of memory."""
        return self.fields["outcome"] == "oom"


@dataclass(frozen=True)
class Measured:
    """A prediction beside its measurement."""

    row: Row
    predicted: float
    measured: float

    @property
    def log_error(self) -> float:
        """The logarithm of the prediction over the measurement."""
        return math.log(self.predicted / self.measured)


def read_rows(folder: Path) -> list[Row]:
    """Read the table of a folder."""
    with (folder / "runs.csv").open(encoding="utf-8", newline="") as lines:
        return [
            Row(
                fields["id"],
                fields["config"],
                folder / "configs" / fields["config"],
                fields["method"],
                fields["quantizer"],
                fields,
            )
            for fields in csv.DictReader(lines)
        ]


def workload_of(row: Row, length: float) -> Workload:
    """Describe a run as the estimates see it."""
    adapter: dict[str, Any] | None = None
    if row.method != "full":
        adapter = {"peft_type": "LORA", "r": int(row.fields["rank"])}
        adapter["target_modules"] = row.fields["target_modules"].split()
        if row.fields["modules_to_save"]:
            adapter["modules_to_save"] = row.fields["modules_to_save"].split()
    batch = int(row.fields["batch"])
    given: dict[str, Any] = {
        "precision": "4-bit" if row.method == "qlora" else row.fields["weights_dtype"],
        "adapter_dtype": row.fields["adapter_dtype"] or None,
        "attention": row.fields["attention"],
        "sharding": row.fields["sharding"],
    }
    return Workload(
        adapter=adapter,
        batch_size=batch,
        step_examples=batch * int(row.fields["accumulation"]),
        max_length=round(length),
        evaluates=False,
        gradient_checkpointing=row.fields["gradient_checkpointing"] == "1",
        convention="hf-trainer",
        devices=int(row.fields["devices"]),
        **given,
    )


@cache
def configuration(folder: Path) -> Any:
    return load_config(resolve(str(folder)))


def predicted_bytes(row: Row) -> int | None:
    """Return the predicted peak as the source counts it: of tensors alone if torch's allocator was asked."""
    length = row.number("length")
    if length is None:
        return None
    estimate = estimate_memory(configuration(row.folder), workload_of(row, length))
    if row.fields["peak_kind"] == "torch_peak_allocated":
        return estimate.training_peak_bytes
    return estimate.total_bytes


def ideal_seconds(row: Row) -> float:
    """Return the ideal seconds of a step at the mean length."""
    machine = as_machine(find_accelerator(row.fields["gpu"]))
    workload = workload_of(row, row.number("mean_length") or 0)
    return dry_run_seconds(configuration(row.folder), workload, machine, efficiency=1.0).step


def print_bytes(rows: Sequence[Row]) -> None:
    """Print errors of bytes by model and by method, and how many rows are rightly said to fit or not."""
    found: list[Measured] = []
    verdicts: list[tuple[Row, bool]] = []
    for row in rows:
        predicted, measured = predicted_bytes(row), row.number("peak_bytes")
        if predicted is None:
            continue
        if measured is not None:
            found.append(Measured(row, predicted, measured))
        memory = find_accelerator(row.fields["gpu"]).memory_bytes
        verdicts.append((row, (predicted > memory) == row.is_out_of_memory))
    print(f"{'bytes':<36}{'rows':>5}{'median':>8}{'worst':>8}{'<-10%':>7}")
    for name, group in groups(found, lambda one: one.row):
        errors = [one.predicted / one.measured - 1 for one in group]
        print(
            f"{name:<36}{len(group):>5}{median(map(abs, errors)):>8.1%}"
            f"{max(errors, key=abs):>+8.0%}{np.mean([error < -0.1 for error in errors]):>7.0%}"
        )
    for outcome, failed in (("ran out of memory", True), ("fitted", False)):
        right = [is_right for row, is_right in verdicts if row.is_out_of_memory == failed]
        print(f"rows that {outcome}: {sum(right)} of {len(right)} predicted")


def print_seconds(rows: Sequence[Row]) -> None:
    """Print errors of seconds, with each model and each method left out of what they are fitted to."""
    measured = [(row, row.number("seconds_per_step")) for row in rows]
    found = [Measured(row, ideal_seconds(row), seconds) for row, seconds in measured if seconds is not None]
    for title, key in (("models", lambda row: row.model), ("methods", lambda row: row.way)):
        left_out = held_out(found, key)
        print(f"\n{f'seconds, {title} left out':<36}{'rows':>5}{'median':>8}{'bias':>8}{'in 90%':>8}")
        for name, group in groups(left_out, lambda pair: pair[0].row):
            errors = [one.log_error for one, _ in group]
            inside = np.mean([abs(one.log_error) <= width for one, width in group])
            print(
                f"{name:<36}{len(group):>5}{median(map(abs, errors)):>8.2f}{median(errors):>+8.2f}"
                f"{inside:>8.0%}"
            )


def held_out(found: Sequence[Measured], key: Callable[[Row], str]) -> list[tuple[Measured, float]]:
    """Scale each group's seconds by what the others reach; pair them with a half width in logarithms."""
    scaled = []
    for left in dict.fromkeys(key(one.row) for one in found):
        errors = [one.log_error for one in found if key(one.row) != left]
        bias = median(errors)
        width = float(np.quantile(np.abs(np.asarray(errors) - bias), QUANTILE))
        scaled += [
            (Measured(one.row, one.predicted / math.exp(bias), one.measured), width)
            for one in found
            if key(one.row) == left
        ]
    return scaled


def groups(found: Sequence[Any], row_of: Callable[[Any], Row]) -> list[tuple[str, list[Any]]]:
    """Return all, then by model, then by method; with names."""
    named: dict[str, list[Any]] = {"all": list(found)}
    for key in (lambda row: row.model, lambda row: row.way):
        for one in sorted(found, key=lambda one: key(row_of(one))):
            named.setdefault(key(row_of(one)), []).append(one)
    return list(named.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="folder with runs.csv and configs/")
    folder: Path = parser.parse_args().folder
    if not (folder / "runs.csv").is_file():
        parser.exit(
            0, f"skipped: {folder} has no runs.csv; the published runs are not part of this project\n"
        )
    rows = read_rows(folder)
    print_bytes(rows)
    print_seconds(rows)


if __name__ == "__main__":
    main()
