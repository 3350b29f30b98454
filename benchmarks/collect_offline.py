"""Collect within a fixed time on an unknown machine without network.

A calibration plan runs first, for a few minutes, in one process and in several. With one process, runs have
the machine to themselves, so their seconds can be learned from. The number of processes that trains most is
kept. Then the plan is collected in its balanced order until nine tenths of the time have passed, and the
store is exported to Parquet.

Run as ``python benchmarks/collect_offline.py --help``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tunecast.collect import CollectionSummary, Limits, Plan, collect, read_plan
from tunecast.errors import OutputError, UserError, report_user_errors
from tunecast.progress import Progress, Silent
from tunecast.store import Store, export_parquet

SHARE_OF_TIME = 0.9
"""Share of the time after which no run is begun; the rest is for runs under way and for the export."""
SEED_STRIDE = 1000
"""Distance of the seeds of calibration runs between one number of processes and the next."""
SHARE_WITH_GRACE = 0.95
"""Share of the time after which runs under way are stopped."""


@dataclass(frozen=True)
class OfflineSettings:
    """Settings of a collection within a fixed time.

    Args:
        calibration: Plan whose runs measure the machine's speed.
        plan: Plan to collect.
        output_dir: Where ``runs.sqlite``, ``runs.parquet`` and ``summary.json`` are written.
        seconds: Time for everything.
        calibration_seconds: Time for calibration, part of ``seconds``.
        processes: Numbers of worker processes to try; the first is 1.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: Threads of each worker; None shares the cores.
        roots: Folders by their names in braces in the plans' paths.
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
    """The outcome of a collection.

    Args:
        token_parameters_per_second: Trained tokens × parameters per second, by number of processes.
        processes: The chosen number.
        collection: The plan's outcome.
        exported: Runs in the Parquet file, calibration included.
    """

    token_parameters_per_second: Mapping[int, float]
    processes: int
    collection: CollectionSummary
    exported: int


def collect_offline(settings: OfflineSettings, progress: Progress | None = None) -> OfflineSummary:
    """Calibrate, collect, export; the store is exported even if an earlier stage fails.

    Raises:
        UserError: A plan, its datasets or base models, the device or the folder cannot be used.
    """
    started = time.monotonic()
    progress = progress or Silent()
    # Both first, so that a mistake in either is reported before anything is written.
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
            progress.log("No calibration run finished in time; one process collects.")
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
        if _store(settings).exists():  # missing if a failure came before the first run
            with Store.open(_store(settings)) as store:
                exported = export_parquet(store, settings.output_dir / "runs.parquet")
    summary = OfflineSummary(rates, best, collection, exported)
    text = json.dumps(asdict(summary), indent=2)
    (settings.output_dir / "summary.json").write_text(text + "\n", encoding="utf-8")
    return summary


def _store(settings: OfflineSettings) -> Path:
    return settings.output_dir / "runs.sqlite"


def _rates(plan: Plan, settings: OfflineSettings, progress: Progress) -> dict[int, float]:
    """Measure rates by number of processes; 0 if several processes fail, say for lack of memory.

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
    """Trained tokens × parameters per second of some processes, on the calibration plan's next runs."""
    name = f"{plan.name}-{processes}"
    # Each number of processes has its own runs, so that none finds them all made already.
    seeds = tuple(seed + processes * SEED_STRIDE for seed in plan.seeds)
    own = {"name": name, "exclusive": plan.exclusive and processes == 1, "seeds": seeds}
    plan = plan.model_copy(update=own)
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
    # By the runs' own clocks, so that a second call with fewer or no new runs gives the same rate.
    amount = sum(run.curve[-1].tokens_seen * run.model.parameters for run in runs)
    return processes * amount / max(sum(run.curve[-1].elapsed_seconds for run in runs), 1e-9)


class _Lines(Silent):
    """Progress for a log file: starts, ends and messages."""

    def start(self, stage: str, total: float | None = None, unit: str = "") -> None:
        self.log(stage)

    def finish(self, note: str = "") -> None:
        self.log(note)

    def log(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and collect.

    Raises:
        SystemExit: With code 2, after a message, if a plan or a file that it names cannot be used.
    """
    with report_user_errors():
        summary = collect_offline(_settings(arguments), _Lines())
    print(json.dumps(asdict(summary), indent=2))


def _settings(arguments: Sequence[str] | None) -> OfflineSettings:
    parser = argparse.ArgumentParser("collect_offline.py", description=__doc__)
    parser.add_argument("--calibration", type=Path, required=True, help="plan to calibrate with")
    parser.add_argument("--plan", type=Path, required=True, help="plan to collect")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder for all output")
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
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 1,4,8")
    return tuple(int(part) for part in text.split(","))


def _pair(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=FOLDER")
    return name, folder


if __name__ == "__main__":
    main()
