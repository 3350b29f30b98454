"""Compares bytes and seconds with published finetunings on GPUs, by models and methods left out.

    python benchmarks/gpu_published.py FOLDER [--coefficients src/tunecast/estimate/speed.json]

``FOLDER`` holds ``runs.csv``, one row per measured run, and ``configs/NAME/config.json``, the architectures
by its column ``config``. Bytes are predicted at the longest sequence, with nothing fitted. Seconds are
predicted at the mean one; what they are fitted to leaves out the model, or the method, that is predicted.
Rows without a length have no bytes; rows that ran out of memory have no seconds. The interval of a row is as
wide as the errors of the other groups, each predicted without itself. ``--coefficients`` writes the file that
the package reads.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import least_squares

from tunecast.arrays import Floats
from tunecast.estimate import Workload, estimate_memory
from tunecast.estimate.constants import MAX_SHARE, MIN_SHARE
from tunecast.estimate.seconds import StepWork, step_work
from tunecast.estimate.speed import Speed
from tunecast.estimate.workload import roomy_bytes
from tunecast.hardware.accelerators import as_machine, find_accelerator
from tunecast.models.load import load_config, resolve

KERNELS = {"liger": "liger", "foak": "fused"}
"""Our names of kernels by theirs."""
QUANTILE, NORMAL_90 = 0.90, 1.645
"""Share of measured seconds that an interval is meant to hold, and its half width in standard deviations."""
NOISE = 0.15
"""Standard deviation of log seconds that the fit expects around the formula."""
BETWEEN_DEVICES = 0.2
"""The same between kinds of devices: PEFT's runs on an L40S take between 0.8 times and as long as with the
coefficients of an A100."""
EXPECTED: Mapping[str, tuple[float, float]] = {
    "start_up": (0.1, 0.5),
    "arithmetic": (0.7, 0.15),
    "traffic": (0.6, 0.3),
    "unpacking": (0.3, 0.6),
    "start": (1.2e-5, 0.4),
    "link": (1e11, 0.7),
    "wrapped": (5e-3, 0.7),
    "reduced": (2e-3, 0.7),
}
"""Expected coefficients, and how far off they may be in logarithms: matrix products reach 0.6 to 0.8 of an
A100's stated rate, copies most of its bandwidth, and eager kernels take some ten microseconds to start. One
table includes start-up, which is no part of a step."""
FITTED_TO = (
    "{} steps on one to eight A100 of 80 GB: fms-acceleration at 876e2ed6fc4e and Qwen's README at "
    "2df8e8ac450f, both Apache-2.0"
)
MADE_BY = "python benchmarks/gpu_published.py FOLDER --coefficients src/tunecast/estimate/speed.json"


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
    def is_deepspeed(self) -> bool:
        """Whether DeepSpeed trained all weights, which takes ZeRO's float32 copies on one device too."""
        return self.fields["trainer"] == "deepspeed" and self.method == "full"

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


@dataclass(frozen=True)
class Timed:
    """A run's work at its machine's stated rates, and the measured seconds of a step."""

    row: Row
    work: StepWork
    measured: float


class Fitted(NamedTuple):
    """Coefficients, and the seconds of start-up that a table spreads over its steps."""

    start_up: float
    speed: Speed

    def seconds(self, one: Timed) -> float:
        """Return the seconds of a step as its table counts them."""
        counts_start = one.row.fields["source"] == "fms_acceleration"
        return one.work.seconds(self.speed) + counts_start * self.start_up


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
    batch, devices = int(row.fields["batch"]), int(row.fields["devices"])
    given: dict[str, Any] = {
        "precision": "4-bit" if row.method == "qlora" else row.fields["weights_dtype"],
        "adapter_dtype": row.fields["adapter_dtype"] or None,
        "attention": row.fields["attention"],
        "sharding": "zero2" if row.is_deepspeed and devices == 1 else row.fields["sharding"],
        "kernels": next((name for word, name in KERNELS.items() if word in row.fields["kernels"]), "torch"),
    }
    return Workload(
        adapter=adapter,
        batch_size=batch,
        step_examples=batch * int(row.fields["accumulation"]),
        max_length=round(length),
        evaluates=False,
        gradient_checkpointing=row.fields["gradient_checkpointing"] == "1",
        convention="hf-trainer",
        mixed_precision=row.fields["mixed_precision"] != "no",
        # DeepSpeed makes all weights 16 bits wide again.
        upcast_frozen=row.fields["kbit_upcast"] == "1" and row.fields["trainer"] != "deepspeed",
        double_quantised=row.quantizer != "bnb-nf4",
        devices=devices,
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


def timed(rows: Sequence[Row]) -> list[Timed]:
    """Return the rows with measured seconds, and their work at the mean length."""
    found = []
    for row in rows:
        seconds, length = row.number("seconds_per_step"), row.number("mean_length")
        if seconds is not None and length is not None:
            machine = as_machine(find_accelerator(row.fields["gpu"]))
            work = step_work(configuration(row.folder), workload_of(row, length), machine)
            found.append(Timed(row, work, seconds))
    return found


def fit(found: Sequence[Timed]) -> Fitted:
    """Fit the coefficients of CUDA devices, near what is expected of them; models count alike."""
    counts = Counter(one.row.model for one in found)
    weights = np.array([min(1.0, math.sqrt(20 / counts[one.row.model])) / NOISE for one in found])
    start = np.log([value for value, _ in EXPECTED.values()])
    spreads = np.array([spread for _, spread in EXPECTED.values()])

    def residuals(logs: Floats) -> Floats:
        fitted = _unpacked(logs)
        errors = np.array([math.log(fitted.seconds(one) / one.measured) for one in found])
        return np.concatenate([weights * errors, (logs - start) / spreads])

    return _unpacked(least_squares(residuals, start, loss="soft_l1").x)


def _unpacked(logs: Floats) -> Fitted:
    values = dict(zip(EXPECTED, map(float, np.exp(logs)), strict=True))
    return Fitted(values.pop("start_up"), Speed(**values))


def print_bytes(rows: Sequence[Row]) -> None:
    """Print errors of bytes, and how many rows are rightly said to fit with headroom."""
    found: list[Measured] = []
    verdicts: list[tuple[Row, bool]] = []
    for row in rows:
        predicted, measured = predicted_bytes(row), row.number("peak_bytes")
        if predicted is None:
            continue
        if measured is not None:
            found.append(Measured(row, predicted, measured))
        memory = find_accelerator(row.fields["gpu"]).memory_bytes
        verdicts.append((row, (predicted > roomy_bytes(memory)) == row.is_out_of_memory))
    print(f"{'bytes':<36}{'rows':>5}{'median':>8}{'worst':>8}{'<-10%':>7}{'in 90%':>8}")
    for name, group in groups(found, lambda one: one.row):
        errors = [one.predicted / one.measured - 1 for one in group]
        print(
            f"{name:<36}{len(group):>5}{median(map(abs, errors)):>8.1%}"
            f"{max(errors, key=abs):>+8.0%}{np.mean([error < -0.1 for error in errors]):>7.0%}"
            f"{np.mean([MIN_SHARE <= 1 / (1 + error) <= MAX_SHARE for error in errors]):>8.0%}"
        )
    for outcome, failed in (("ran out of memory", True), ("fitted", False)):
        right = [is_right for row, is_right in verdicts if row.is_out_of_memory == failed]
        print(f"rows that {outcome}: {sum(right)} of {len(right)} predicted")


def print_seconds(found: Sequence[Timed]) -> None:
    """Print errors of seconds, with each model and each method left out of what they are fitted to."""
    for title, key in (("models", lambda row: row.model), ("methods", lambda row: row.way)):
        left_out = with_widths(held_out(found, key), key)
        print(f"\n{f'seconds, {title} left out':<36}{'rows':>5}{'median':>8}{'bias':>8}{'in 90%':>8}")
        for name, group in groups(left_out, lambda pair: pair[0].row):
            errors = [one.log_error for one, _ in group]
            inside = np.mean([abs(one.log_error) <= width for one, width in group])
            print(
                f"{name:<36}{len(group):>5}{median(map(abs, errors)):>8.2f}{median(errors):>+8.2f}"
                f"{inside:>8.0%}"
            )


def held_out(found: Sequence[Timed], key: Callable[[Row], str]) -> list[Measured]:
    """Predict each group with coefficients fitted to the others."""
    predicted = []
    for left in dict.fromkeys(key(one.row) for one in found):
        fitted = fit([one for one in found if key(one.row) != left])
        predicted += [
            Measured(one.row, fitted.seconds(one), one.measured) for one in found if key(one.row) == left
        ]
    return predicted


def with_widths(found: Sequence[Measured], key: Callable[[Row], str]) -> list[tuple[Measured, float]]:
    """Pair predictions with half the width of their log interval, from the errors of the other groups."""
    widths = {
        left: float(np.quantile([abs(one.log_error) for one in found if key(one.row) != left], QUANTILE))
        for left in {key(one.row) for one in found}
    }
    return [(one, widths[key(one.row)]) for one in found]


def write_coefficients(found: Sequence[Timed], file: Path) -> None:
    """Fit the coefficients to all rows and write the file that the package reads."""
    errors = [abs(one.log_error) for one in held_out(found, lambda row: row.model)]
    between_models = float(np.quantile(errors, QUANTILE)) / NORMAL_90
    fitted = fit(found)
    content = {
        "fitted_to": FITTED_TO.format(len(found)),
        "made_by": MADE_BY,
        "cuda": {name: float(f"{value:.3g}") for name, value in asdict(fitted.speed).items()},
        "deviation": round(math.hypot(between_models, BETWEEN_DEVICES), 2),
    }
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"\nwrote {file}; start-up: {fitted.start_up:.2f} s in each step")


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
    parser.add_argument("--coefficients", type=Path, help="file for coefficients fitted to all rows")
    given = parser.parse_args()
    folder: Path = given.folder
    if not (folder / "runs.csv").is_file():
        parser.exit(
            0, f"skipped: {folder} has no runs.csv; the published runs are not part of this project\n"
        )
    rows = read_rows(folder)
    print_bytes(rows)
    found = timed(rows)
    print_seconds(found)
    if given.coefficients:
        write_coefficients(found, given.coefficients)


if __name__ == "__main__":
    main()
