"""Importer of runs from a table with one row per evaluation (with a step) or one row per run.

Columns have our names, a Trainer's names, or names that the user maps (``loss=val_nll``). Other columns are
hyperparameters if they are mapped or known as such; the rest is reported.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunecast.errors import ConfigurationError, StoreError
from tunecast.records import Outcome, Scalar, stable_hash
from tunecast.store.importing.arguments import (
    LORA_NAMES,
    TRAINING_NAMES,
    number,
    same_number,
    scalar,
    training_hyperparameters,
    whole,
)
from tunecast.store.importing.foreign import ForeignRun, LoggedEvaluation, Problem, Recorded
from tunecast.store.importing.log_history import LOSS_NAMES

_TEXTS = ("run", "task", "model", "method")
_INTEGERS = (
    *("step", "total_steps", "tokens_seen", "full_length_tokens", "unique_examples", "max_length", "seed"),
    *("parameters", "trainable_parameters"),
)
_FLOATS = ("loss", "train_loss", "test_loss", "gradient_norm", "evaluation_seconds")
_OURS = (*_TEXTS, *_INTEGERS, *_FLOATS)
_KNOWN_HYPERPARAMETERS = (*TRAINING_NAMES, *LORA_NAMES, "num_virtual_tokens")
_ALIASES = {
    **dict.fromkeys(LOSS_NAMES, "loss"),
    "dataset": "task",
    "base_model": "model",
    "grad_norm": "gradient_norm",
    "eval_runtime": "evaluation_seconds",
    "num_input_tokens_seen": "tokens_seen",
    "max_steps": "total_steps",
}
_REPEATED = "has the run, seed and hyperparameters of an earlier line with another loss"


@dataclass(frozen=True)
class _Columns:
    """The table's columns by field and hyperparameter; ``unused`` lists the unknown ones."""

    fields: Mapping[str, str]
    hyperparameters: Mapping[str, str]
    unused: tuple[str, ...]


def read_csv(path: Path, mapping: Mapping[str, str]) -> Recorded:
    """Read all runs of a table; rows with an invalid loss or step are left out and reported.

    The file is comma-separated UTF-8 with a header. ``mapping`` gives columns by our names, such as
    ``{"loss": "val_nll"}``; any other name is a hyperparameter.

    Raises:
        StoreError: The file cannot be read or has no column of losses.
        ConfigurationError: A mapped column is missing.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = [(reader.line_num, row) for row in reader]
            header = list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StoreError(f"{path} cannot be read as CSV: {error}") from error
    columns = _columns(path, header, mapping)
    problems = [Problem(f"{path}, column {name}", "is unknown; map it with --map") for name in columns.unused]
    groups, faults = _grouped(rows, columns)
    problems += [Problem(f"{path}, line {line}", reason) for line, reason in faults]
    return Recorded(
        tuple(_foreign_run(key, group, columns) for key, group in groups.items()), tuple(problems)
    )


def _grouped(
    rows: Iterable[tuple[int, dict[str, str]]], columns: _Columns
) -> tuple[dict[str, list[dict[str, str]]], list[tuple[int, str]]]:
    """Group rows by the key of their run, and list faults by line."""
    groups: dict[str, list[dict[str, str]]] = {}
    faults: list[tuple[int, str]] = []
    losses: dict[tuple[str, int], float] = {}
    for line, row in rows:
        if reason := _fault(row, columns):
            faults.append((line, reason))
            continue
        key, found = _key(row, columns), _evaluation(row, columns)
        groups.setdefault(key, []).append(row)
        before = losses.get((key, found.step), found.loss)
        losses[key, found.step] = found.loss
        if not same_number(before, found.loss):
            faults.append((line, f"{_REPEATED} at step {found.step}; the later one counts"))
    return groups, faults


def _columns(path: Path, header: list[str], mapping: Mapping[str, str]) -> _Columns:
    for ours, theirs in mapping.items():
        if theirs not in header:
            raise ConfigurationError(
                f"--map {ours}={theirs}: {path.name} has no column {theirs!r}.",
                f"It has: {', '.join(header)}",
            )
    fields = {ours: theirs for ours, theirs in mapping.items() if ours in _OURS}
    hyperparameters = {ours: theirs for ours, theirs in mapping.items() if ours not in _OURS}
    taken = set(mapping.values())
    unused: list[str] = []
    for name in header:
        ours = _ALIASES.get(name, name)
        if name in taken:
            continue
        if ours in _OURS and ours not in fields:
            fields[ours] = name
        elif name in _KNOWN_HYPERPARAMETERS and name not in hyperparameters:
            hyperparameters[name] = name
        else:
            unused.append(name)
    if "loss" not in fields:
        raise StoreError(
            f"{path.name} has no column of validation losses (it has: {', '.join(header)}).",
            "Name it with --map loss=COLUMN.",
        )
    return _Columns(fields, hyperparameters, tuple(unused))


def _fault(row: Mapping[str, Any], columns: _Columns) -> str:
    """Return the fault of a row, empty if it is valid."""
    if None in row:  # csv puts surplus cells under this key
        return "has more cells than the header"
    for name in (*_INTEGERS, *_FLOATS):
        value = _cell(row, columns, name)
        read = number(value)
        if value and read is None:
            return f"{columns.fields[name]} is {value!r}, not a number"
        if read is None or name not in _INTEGERS or whole(value) is not None:
            continue
        if not read.is_integer():
            return f"{columns.fields[name]} is {value!r}, not an integer"
        if read > 0 or name == "step":  # programs write -1 for unset values
            return f"{columns.fields[name]} is {value!r}, which is out of range"
    return "" if _cell(row, columns, "loss") else "has no validation loss"


def _cell(row: Mapping[str, Any], columns: _Columns, name: str) -> str:
    column = columns.fields.get(name)  # a column may have an empty name
    return "" if column is None else str(row.get(column) or "").strip()


def _key(row: Mapping[str, Any], columns: _Columns) -> str:
    """Return the key of a row's run: its name if it has one, and everything constant along a curve."""
    constant = ("run", "task", "model", "method", "seed", "full_length_tokens", "unique_examples")
    texts = [_cell(row, columns, name) for name in constant]
    return stable_hash(
        [texts, {ours: row.get(theirs) or "" for ours, theirs in columns.hyperparameters.items()}], 32
    )


def _foreign_run(key: str, rows: list[dict[str, str]], columns: _Columns) -> ForeignRun:
    last = rows[-1]
    integers: dict[str, Any] = {
        name: _integer(last, columns, name) for name in _INTEGERS if name not in ("step", "tokens_seen")
    }
    evaluations = tuple(_evaluation(row, columns) for row in rows)
    last_step = max(evaluation.step for evaluation in evaluations)
    extra: dict[str, Any] = {"run": name} if (name := _cell(last, columns, "run")) else {}
    if integers["total_steps"] is None and last_step > 0:
        # Assume a table of finished runs, whose last row is the end of the schedule.
        integers["total_steps"] = last_step
        extra["inferred"] = ["total_steps"]
    return ForeignRun(
        source="csv",
        key=key,
        task=_cell(last, columns, "task"),
        model=_cell(last, columns, "model"),
        method=_cell(last, columns, "method"),
        hyperparameters=_hyperparameters(last, columns),
        evaluations=evaluations,
        test_loss=number(_cell(last, columns, "test_loss")),
        outcome=Outcome.PAUSED if last_step < (integers["total_steps"] or 0) else Outcome.COMPLETED,
        extra=extra,
        **integers,
    )


def _hyperparameters(row: Mapping[str, str], columns: _Columns) -> dict[str, Scalar]:
    given = {ours: row.get(theirs) or "" for ours, theirs in columns.hyperparameters.items()}
    found = training_hyperparameters(given)
    for name, text in given.items():
        if name not in TRAINING_NAMES and text:
            found[name] = scalar(text)
    return found


def _integer(row: Mapping[str, Any], columns: _Columns, name: str) -> int | None:
    return whole(_cell(row, columns, name))


def _evaluation(row: Mapping[str, Any], columns: _Columns) -> LoggedEvaluation:
    floats = {name: number(_cell(row, columns, name)) for name in _FLOATS}
    loss, step = floats["loss"], _integer(row, columns, "step")
    return LoggedEvaluation(
        step=(_integer(row, columns, "total_steps") or 0) if step is None else step,
        loss=float("nan") if loss is None else loss,
        tokens_seen=_integer(row, columns, "tokens_seen"),
        train_loss=floats["train_loss"],
        gradient_norm=floats["gradient_norm"],
        evaluation_seconds=floats["evaluation_seconds"],
    )
