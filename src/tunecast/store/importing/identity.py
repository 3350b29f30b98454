"""Identity of imported runs: duplicates among them, and runs that a store already has.

A Trainer records no name of a run, so its log identifies it. The log grows while the run goes on: if two
records are of one run, one log is a prefix of the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tunecast.records import Run, stable_hash
from tunecast.store.codec import dumps
from tunecast.store.importing.arguments import same_number
from tunecast.store.importing.foreign import Problem
from tunecast.store.redaction import shared_session
from tunecast.store.store import Store

_TABLES = "import-csv"  # the session of runs from tables
# Keys in the extra of a run. The values are numbers, because an export removes most words.
_LOG = "log_digests"
_ARGUMENTS = "arguments_digest"
_ENTRIES = 50  # enough to outlast a warm-up, during which runs of different schedules log the same


def log_identity(
    settled: Sequence[Any], entries: Sequence[Mapping[str, Any]], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Digest a log to identify its run; the digest goes into ``extra``, and its hash is the run's key.

    It contains values that are constant from the first entry on (``settled``), the first entries of the log,
    and the arguments of the training, if known.
    """
    digests = [_digest(settled), *(_digest(entry) for entry in entries[:_ENTRIES])]
    return {_LOG: digests, _ARGUMENTS: _digest(arguments) if arguments else 0}


def _digest(value: Any) -> int:
    return int(stable_hash(dumps(value, sort_keys=True), 8), 16)


def distinct(found: Sequence[tuple[str, Run]]) -> tuple[list[Run], list[Problem]]:
    """Drop and report duplicates among runs, which come with the places from which they were read."""
    kept: dict[int, Run] = {}
    alike: dict[str, list[tuple[str, Run]]] = {}
    problems: list[Problem] = []
    for index in sorted(range(len(found)), key=lambda index: _length(found[index][1]), reverse=True):
        where, run = found[index]
        others = alike.setdefault(_beginning(run), [])
        twin = next((place for place, other in others if _same(run, other)), None)
        if twin is None:
            kept[index] = run
            others.append((where, run))
        else:
            reason = f"is the same run as {twin} according to the records and is left out"
            problems.append(Problem(where, f"{reason}; if it is another run, import it into another store"))
    return [kept[index] for index in sorted(kept)], problems


def _beginning(run: Run) -> str:
    """Return a key that all records of the same run share."""
    log = run.extra.get(_LOG, ())
    return str(list(log[:2])) if len(log) > 1 else run.id


def _length(run: Run) -> tuple[int, int, bool]:
    return (
        max((point.step for point in run.curve), default=-1),
        len(run.extra.get(_LOG, ())),
        bool(run.extra.get(_ARGUMENTS)),
    )


def _same(one: Run, other: Run) -> bool:
    """Whether two records may be of one run; True if the logs so far do not tell them apart."""
    if one.id == other.id:
        return True
    first, second = one.extra.get(_LOG, ()), other.extra.get(_LOG, ())
    length = min(len(first), len(second))
    if length < 2 or list(first[:length]) != list(second[:length]):  # length 1: nothing was logged
        return False
    arguments = {value for run in (one, other) if (value := run.extra.get(_ARGUMENTS))}
    return len(arguments) <= 1


def as_known(many: Sequence[Run], store: Store) -> Iterator[Run]:
    """Give each run the id under which the store has it, even if its log had another length then.

    Raises:
        StoreError: The store cannot be read.
    """
    alike: dict[str, list[Run]] = {}
    for run in _stored({run.session for run in many if _LOG in run.extra}, store):
        alike.setdefault(_beginning(run), []).append(run)
    taken = {run.id for run in many}  # a run never takes the id of another run in this import
    for run in many:
        same = [other for other in alike.get(_beginning(run), []) if _same(run, other)]
        free = [other.id for other in same if other.id not in taken]
        if len(free) == 1 and run.id not in {other.id for other in same}:
            taken.add(free[0])
            yield replace(run, id=free[0])
        else:
            yield run


def without_contradictions(many: Sequence[Run], store: Store) -> tuple[list[Run], list[Problem]]:
    """Drop runs of tables that contradict the store, and report them.

    A table names its runs by a label such as a number, which may mean another run in the next table.

    Raises:
        StoreError: The store cannot be read.
    """
    stored = {run.id: run for run in _stored({run.session for run in many} & {_TABLES}, store)}
    fitting: list[Run] = []
    problems: list[Problem] = []
    for run in many:
        reason = _contradiction(run, stored[run.id]) if run.id in stored else ""
        if not reason:
            fitting.append(run)
        else:
            name = run.extra.get("run", "without a name")
            left_out = "so it is left out; give different runs different names"
            problems.append(Problem(f"run {name}", f"has {reason} in the store, {left_out}"))
    return fitting, problems


def _contradiction(run: Run, other: Run) -> str:
    """Return the contradiction between two records of a run, empty if there is none."""
    there = {point.step: point.validation.loss for point in other.curve}
    for point in run.curve:
        if point.step in there and not same_number(point.validation.loss, there[point.step]):
            return f"another loss at step {point.step}"
    lengths = {r.total_steps for r in (run, other) if "total_steps" not in _unknown_fields(r)}
    return "another number of steps" if len(lengths) > 1 else ""


def _unknown_fields(run: Run) -> list[str]:
    return [*run.extra.get("inferred", ()), *run.extra.get("unknown", ())]


def _stored(sessions: Iterable[str], store: Store) -> Iterator[Run]:
    for session in sorted(sessions):
        yield from store.runs(session=session)
        yield from store.runs(session=shared_session(session))  # its name in a redacted export
