"""Collect within a fixed time on a machine of which nothing is known, without network.

First a calibration plan is run by one process (its runs are exclusive, so that their seconds can be learned
from) and by several, for a few minutes; the number of processes that trains most is kept. Then the plan is
collected in its balanced order until nine tenths of the time are gone, and the store is exported to Parquet.

Run as ``python benchmarks/collect_offline.py --help``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tunecast.collect import CollectionSummary, Limits, Plan, collect, read_plan
from tunecast.errors import OutputError, UserError, mistakes_told
from tunecast.progress import Progress, Silent
from tunecast.store import Store, export_parquet

SHARE_OF_TIME = 0.9
"""Part of the time after which no run is begun; the rest is for runs under way and for the export."""
SEED_STRIDE = 1000
"""Between the seeds of calibration runs with one number of processes and with the next."""
SHARE_WITH_GRACE = 0.95
"""Part of the time after which runs under way are given up."""


@dataclass(frozen=True)
class OfflineSettings:
    """What to collect within which time.

    Args:
        calibration: Plan whose runs tell how fast the machine is.
        plan: Plan to collect.
        output_dir: Where ``runs.sqlite``, ``runs.parquet`` and ``summary.json`` are written.
        seconds: Time for everything.
        calibration_seconds: Part of it for calibration.
        processes: Numbers of worker processes to try; the first is 1.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: Threads of each worker; None shares the cores.
        roots: Folders by the names that stand in braces in the plans' paths.
    """

    calibration: Path
    plan: Path
    output_dir: Path
    seconds: float
    calibration_seconds: float = 180.0
    processes: tuple[int, ...] = (1, 4, 8, 16)
    device: str = "auto"
    threads: int | None = None
    roots: Mapping[str, str] | None = None


@dataclass(frozen=True)
class OfflineSummary:
    """What was collected.

    Args:
        token_parameters_per_second: By number of processes, trained tokens × parameters a second.
        processes: The number that was kept.
        collection: What the plan gave.
        exported: Runs in the Parquet file, calibration included.
    """

    token_parameters_per_second: Mapping[int, float]
    processes: int
    collection: CollectionSummary
    exported: int


def collect_offline(settings: OfflineSettings, progress: Progress | None = None) -> OfflineSummary:
    """Calibrate, collect, export; whatever is in the store is exported even where something before fails.

    Raises:
        UserError: A plan, its datasets or base models, the device or the folder cannot be used.
    """
    started = time.monotonic()
    progress = progress or Silent()
    # Both first: a mistake in either is told before anything is written.
    calibration, plan = (read_plan(file, settings.roots) for file in (settings.calibration, settings.plan))
    try:
        settings.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"--output-dir {settings.output_dir} cannot be made: {error.strerror}.", "Choose another folder."
        ) from error
    exported = 0
    try:
        rates = _rates(calibration, settings, progress)
        if not any(rates.values()):
            progress.log("No run of the calibration came to its end in its time; one process collects.")
        best = max(rates, key=lambda processes: rates[processes])
        limits = Limits(
            seconds=max(0.0, SHARE_OF_TIME * settings.seconds - (time.monotonic() - started)),
            grace_seconds=(SHARE_WITH_GRACE - SHARE_OF_TIME) * settings.seconds,
        )
        collection = collect(
            plan,
            _store(settings),
            workers=best,
            threads=settings.threads,
            device=settings.device,
            limits=limits,
            progress=progress,
        )
    finally:
        if _store(settings).exists():  # not where a failure came before any run could be made
            with Store.open(_store(settings)) as store:
                exported = export_parquet(store, settings.output_dir / "runs.parquet")
    summary = OfflineSummary(rates, best, collection, exported)
    text = json.dumps(asdict(summary), indent=2)
    (settings.output_dir / "summary.json").write_text(text + "\n", encoding="utf-8")
    return summary


def _store(settings: OfflineSettings) -> Path:
    return settings.output_dir / "runs.sqlite"


def _rates(plan: Plan, settings: OfflineSettings, progress: Progress) -> dict[int, float]:
    """By number of processes, their rate; 0 for several that fail, say for want of memory.

    Raises:
        UserError: Not even one process can be calibrated.
    """
    rates: dict[int, float] = {}
    for processes in settings.processes:
        try:
            rates[processes] = _rate(plan, settings, processes, progress)
        except UserError as error:
            if processes == 1:
                raise
            rates[processes] = 0.0
            progress.log(f"{processes} processes cannot be used: {error.what}")
            continue
        progress.log(f"{processes} processes: {rates[processes]:.3g} tokens * parameters a second")
    return rates


def _rate(plan: Plan, settings: OfflineSettings, processes: int, progress: Progress) -> float:
    """Trained tokens × parameters a second of so many processes, on the next runs of the calibration plan."""
    name = f"{plan.name}-{processes}"
    # Each number of processes has runs of its own, lest one finds that another made them all.
    plan = replace(
        plan,
        name=name,
        exclusive=plan.exclusive and processes == 1,
        seeds=tuple(seed + processes * SEED_STRIDE for seed in plan.seeds),
    )
    seconds = settings.calibration_seconds / len(settings.processes)
    collect(
        plan,
        _store(settings),
        workers=processes,
        threads=settings.threads,
        device=settings.device,
        limits=Limits(seconds=0.75 * seconds, grace_seconds=0.25 * seconds),
        progress=progress,
    )
    with Store.open(_store(settings)) as store:
        runs = [run for run in store.runs(session=name) if run.curve]
    # By the runs' own clocks, so that a second call, which makes fewer or none, says the same.
    amount = sum(run.curve[-1].tokens_seen * run.model.parameters for run in runs)
    return processes * amount / max(sum(run.curve[-1].elapsed_seconds for run in runs), 1e-9)


class _Lines(Silent):
    """Progress for a log file: what begins, what ends, what is said."""

    def start(self, stage: str, total: float | None = None, unit: str = "") -> None:
        self.log(stage)

    def finish(self, note: str = "") -> None:
        self.log(note)

    def log(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and collect.

    Raises:
        SystemExit: With code 2, after a message, where a plan or what it names cannot be used.
    """
    with mistakes_told():
        summary = collect_offline(_settings(arguments), _Lines())
    print(json.dumps(asdict(summary), indent=2))


def _settings(arguments: Sequence[str] | None) -> OfflineSettings:
    parser = argparse.ArgumentParser("collect_offline.py", description=__doc__)
    parser.add_argument("--calibration", type=Path, required=True, help="plan to calibrate with")
    parser.add_argument("--plan", type=Path, required=True, help="plan to collect")
    parser.add_argument("--output-dir", type=Path, required=True, help="where everything is written")
    parser.add_argument("--seconds", type=float, required=True, help="time for everything")
    parser.add_argument("--calibration-seconds", type=float, default=OfflineSettings.calibration_seconds)
    parser.add_argument(
        "--processes", type=_numbers, default="1,4,8,16", help="numbers of worker processes to try"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, help="threads of each worker")
    parser.add_argument("--root", type=_pair, action="append", default=[], help="NAME=FOLDER, repeatable")
    given = parser.parse_args(arguments)
    return OfflineSettings(
        calibration=given.calibration,
        plan=given.plan,
        output_dir=given.output_dir,
        seconds=given.seconds,
        calibration_seconds=given.calibration_seconds,
        processes=given.processes,
        device=given.device,
        threads=given.threads,
        roots=dict(given.root),
    )


def _numbers(text: str) -> tuple[int, ...]:
    if not all(part.isdigit() and int(part) for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 1,4,8")
    return tuple(int(part) for part in text.split(","))


def _pair(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=FOLDER")
    return name, folder


if __name__ == "__main__":
    main()
