"""Measure all figures of docs/comparing.md from the shipped runs and prior: hours.

    python benchmarks/comparison.py FOLDER [PART ...]

FOLDER keeps the result of every part. A part is measured again if its runs, prior or code have changed. If a
part fails, the others go on, and the end of the output names it; its messages are in FOLDER/PART.log. The
page is written in any case; ``--only-page`` writes it without measuring.

After a change that moves or renames code but gives the same results, show that it does, for example by
measuring some parts into another folder and comparing the outputs. Then ``--carry`` keeps the results as
those of the present code; the page names the commit. Other runs or another prior are always measured.

Several calls with the same FOLDER may run side by side: no two measure the same part at once. If a part's
result depends on the machine's speed, it waits until no other part is being measured, and others wait for it.
Keep the machine idle otherwise.

TUNECAST_TASKS is the folder of the datasets, and TUNECAST_MODELS is the folder of the small base models. With
TUNECAST_QUICKTUNE_PYTHON (benchmarks/quicktunetool/install.sh), the comparison includes Quick-Tune-Tool.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from tunecast.atomic import check_writable, write_page
from tunecast.errors import ConfigurationError, report_user_errors
from tunecast_benchmarks.figures_page import page
from tunecast_benchmarks.limits import is_missed
from tunecast_benchmarks.parts import PARTS, Part, Result
from tunecast_benchmarks.provenance import commit, knowledge_hash, machine
from tunecast_benchmarks.whole_sessions import Kept

LAST_LINES = 5
"""Number of a failed part's last lines to repeat."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Told:
    """A message about a part, and whether all is well with it."""

    text: str
    is_well: bool = True


MEASURED = Told("measured")
IS_THERE = Told("already measured")
IS_BUSY = Told("is being measured by another call")
MISSES_LIMIT = Told("measured, but it misses a limit of its own", is_well=False)


def main() -> None:
    """Measure what is missing or out of date, write the page, and say what went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where results are kept")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"default: all of {', '.join(PARTS)}")
    parser.add_argument("--page", type=Path, help="the page; default: FOLDER/page.md")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--only-page", action="store_true", help="write the page without measuring")
    modes.add_argument("--carry", action="store_true", help="keep results for code that gives the same")
    chosen = parser.parse_args()
    folder, names = chosen.folder, chosen.parts or list(PARTS)
    page_file = chosen.page or folder / "page.md"
    problems: dict[str, str] = {}
    with report_user_errors():
        if unknown := [name for name in names if name not in PARTS]:
            raise ConfigurationError(f"There is no part {unknown[0]!r}.", f"Parts: {', '.join(PARTS)}.")
        check_writable(folder / "page.md", "FOLDER")
        check_writable(page_file, "--page")
        try:
            if chosen.carry:
                carry(folder, names)
            elif not chosen.only_page:
                problems = compare(folder, names)
        finally:
            write_page(page_file, "\n\n".join(page(folder)) + "\n", "--page")
    for name, problem in problems.items():
        print(f"{name}: {problem}", file=sys.stderr)
    sys.exit(1 if problems else 0)


def carry(folder: Path, names: list[str]) -> None:
    """Keep the results of parts for the present code, which must give the same results.

    Args:
        folder: Folder of the results.
        names: Names of parts.
    """
    for name in names:
        kept = Result.read(folder, name)
        if kept is None:
            print(f"{name}: no result")
        elif kept.knowledge != knowledge_hash():
            print(f"{name}: rests on other runs or another prior and must be measured again")
        else:
            kept.carried_to(PARTS[name], commit()).write(folder, name)
    if any(PARTS[name].has_sessions for name in names):
        for file in sorted((folder / "sessions").glob("*.json")):
            Kept(file).carry()


def compare(folder: Path, names: list[str]) -> dict[str, str]:
    """Measure parts that are missing or out of date.

    Args:
        folder: Folder of the results.
        names: Names of parts.

    Returns:
        Problems by name of the part; parts without problems are left out.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    problems: dict[str, str] = {}
    for number, name in enumerate(names, 1):
        say = functools.partial(_say, f"{number} of {len(names)}, {name}")
        told = brought_up_to_date(PARTS[name], folder, say)
        say(told.text)
        if not told.is_well:
            problems[name] = told.text
    return problems


def _say(part: str, text: str) -> None:
    print(f"{part}: {text}", flush=True)


def brought_up_to_date(part: Part, folder: Path, say: Say) -> Told:
    """Measure a part, unless it has a current result.

    Args:
        part: The part.
        folder: Where results are kept.
        say: Called with progress messages.
    """
    if lacking := part.lacking():
        return Told(f"left out, since it needs {' and '.join(lacking)}", is_well=part.is_optional)
    with _locked(folder / f"{part.name}.lock") as lock:
        if lock is None:
            return IS_BUSY
        kept = Result.read(folder, part.name)
        if kept and kept.is_current(part):
            return MISSES_LIMIT if kept.is_missed else IS_THERE
        with _undisturbed(folder / "timed.lock", part.is_timed, say) as others:
            return _measure(part, folder, say, (lock, others))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int | None]:
    """The descriptor of a lock, held until every copy is closed; None if another call holds it."""
    with _opened(path) as lock:
        yield lock if _is_ours(lock, fcntl.LOCK_EX) else None


@contextlib.contextmanager
def _undisturbed(path: Path, is_timed: bool, say: Say) -> Iterator[int]:
    """Wait for a lock that a timed part holds alone and other parts share; give its descriptor."""
    kind = fcntl.LOCK_EX if is_timed else fcntl.LOCK_SH
    with _opened(path) as lock:
        if not _is_ours(lock, kind):
            say("waits for another call's measurement, because a timed part needs the machine to itself")
            fcntl.flock(lock, kind)
        yield lock


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield lock
    finally:
        os.close(lock)


def _is_ours(lock: int, kind: int) -> bool:
    """Try to take a lock of this kind without waiting; return whether that worked."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _measure(part: Part, folder: Path, say: Say, locks: tuple[int, ...]) -> Told:
    """Run a part's commands and keep the output of the last one."""
    began, log = time.monotonic(), folder / f"{part.name}.log"
    rests_on, date = (knowledge_hash(), part.code()), datetime.now(UTC).date().isoformat()
    checked_out, computer = commit(), machine()
    say(f"begins; its messages are in {log}")
    last = len(part.steps)
    with log.open("w", encoding="utf-8") as said:
        for number, (step, command) in enumerate(zip(part.steps, part.commands(folder), strict=True), 1):
            say(f"runs {step}")
            status, output = _run(command, said, locks)
            if status and number < last:
                return _failed(status, output, log)
    misses = is_missed(status, output)
    if status and not misses:
        return _failed(status, output, log)
    seconds = round(time.monotonic() - began, 1)
    found = Result(*rests_on, part.shown, checked_out, "", date, computer, seconds, output, misses)
    found.write(folder, part.name)
    return MISSES_LIMIT if misses else MEASURED


def _run(command: list[str], said: IO[str], locks: tuple[int, ...]) -> tuple[int, str]:
    """Exit status and output of a command; messages go to the log as they come."""
    # The command holds the locks too: if only this process is killed, it goes on for a while.
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=said, text=True, pass_fds=locks)
    return done.returncode, done.stdout


def _failed(status: int, output: str, log: Path) -> Told:
    """Report a failed command by its last messages; its output goes to the log."""
    with log.open("a", encoding="utf-8") as said:
        said.write(output)
    last = log.read_text(encoding="utf-8").splitlines()[-LAST_LINES:]
    return Told("\n  ".join([f"failed with exit status {status}", *last]), is_well=False)


if __name__ == "__main__":
    main()
