"""Conversion of records to table rows and back, without a database.

Rows are the form in which runs enter SQL and Parquet; they stay inside this package.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from tunecast.records import (
    DatasetFacts,
    Machine,
    ModelFacts,
    Outcome,
    Pipeline,
    Point,
    Published,
    Run,
    RunError,
    Score,
    Seconds,
    Task,
    Versions,
    stable_hash,
)
from tunecast.store.codec import dumps

Row = dict[str, Any]
T = TypeVar("T")

# Records inside a point; their fields become columns `<part>_<field>`.
_PARTS: dict[str, type[Score] | type[Seconds]] = {
    "validation": Score,
    "training": Seconds,
    "evaluation": Seconds,
}


FACT_KINDS: dict[str, type[DatasetFacts] | type[ModelFacts] | type[Machine]] = {
    "dataset_hash": DatasetFacts,
    "model_hash": ModelFacts,
    "machine_hash": Machine,
}
"""Records of facts, by the column of ``runs`` that refers to them."""

# Fields of a run that are columns unchanged.
_PLAIN = (
    *("id", "session", "seed", "full_length_tokens", "total_steps", "unique_examples", "max_length"),
    *("validation_hash", "dtype", "trainable_parameters", "exclusive", "created_at", "extra"),
)


@dataclass(frozen=True)
class RunRows:
    """A run as rows: its own row, the rows of its facts by column of ``runs``, and its points by step."""

    run: Row
    facts: Mapping[str, Row]
    points: tuple[Row, ...]


def record(kind: type[T], values: Mapping[str, Any]) -> T:
    """Build a flat record from a mapping; unknown fields are dropped.

    Raises:
        TypeError: A field without default is missing.
    """
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in known})


def facts_of(value: Any) -> Row:
    """Return the fields of a flat record by name; values are not copied."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


def clean(text: str) -> str:
    """Replace NUL and lone surrogates (from undecodable output), which some databases refuse."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _cleaned(row: Row) -> Row:
    """Clean every text column, because names may come from undecodable paths; JSON escapes its own text."""
    return {name: clean(value) if isinstance(value, str) else value for name, value in row.items()}


def point_row(run_id: str, point: Point) -> Row:
    """Return the row of one point."""
    row: Row = {"run_id": run_id}
    for name, value in facts_of(point).items():
        if name in _PARTS:
            row |= {f"{name}_{inner}": number for inner, number in facts_of(value).items()}
        else:
            row[name] = value
    return _cleaned(row)


def _point(row: Mapping[str, Any]) -> Point:
    parts: Row = {}
    for name, kind in _PARTS.items():
        names = [field.name for field in fields(kind)]
        parts[name] = kind(**{inner: row[f"{name}_{inner}"] for inner in names})
    flat = {field.name: row[field.name] for field in fields(Point) if field.name not in _PARTS}
    return Point(**flat, **parts)


def facts_row(value: DatasetFacts | ModelFacts | Machine) -> Row:
    """Return the row of facts, keyed by the hash of their content."""
    facts = facts_of(value)
    # Hashed as the strict JSON that is stored, so that NaN hashes the same on every machine.
    row: Row = {"hash": stable_hash(dumps(facts, sort_keys=True)), "facts": facts}
    if isinstance(value, Machine):
        return row | {"device": clean(value.device)}
    row["name"] = clean(value.name)
    return row | {"parameters": value.parameters} if isinstance(value, ModelFacts) else row


def run_rows(run: Run) -> RunRows:
    """Return a run as rows."""
    facts = {column: facts_row(getattr(run, column.removesuffix("_hash"))) for column in FACT_KINDS}
    row: Row = {name: getattr(run, name) for name in _PLAIN}
    row |= {"dataset": run.task.dataset, "model": run.task.model, "metric": run.task.metric}
    row |= {"method": run.pipeline.method, "hyperparameters": run.pipeline.hyperparameters}
    row |= {name: inner["hash"] for name, inner in facts.items()}
    row |= {"versions": facts_of(run.versions), "outcome": Outcome(run.outcome).value}
    row["error_kind"], row["error_text"] = (run.error.kind, run.error.text) if run.error else (None, None)
    for name, score in (("validation", run.validation), ("test", run.test)):
        row[name] = None if score is None else facts_of(score)
    row["published"] = None if run.published is None else facts_of(run.published)
    return RunRows(_cleaned(row), facts, tuple(point_row(run.id, point) for point in run.curve))


def run_from_rows(
    row: Mapping[str, Any], dataset: DatasetFacts, model: ModelFacts, machine: Machine, points: Iterable[Row]
) -> Run:
    """Rebuild a run from its row, its facts and its points in order of step."""
    flat = {field.name: row[field.name] for field in fields(Run) if field.name in row}
    built: Row = {
        "task": Task(row["dataset"], row["model"], row["metric"]),
        "pipeline": Pipeline(row["method"], row["hyperparameters"]),
        "dataset": dataset,
        "model": model,
        "machine": machine,
        "versions": record(Versions, row["versions"]),
        "curve": tuple(_point(point) for point in points),
        "outcome": Outcome(row["outcome"]),
        "error": None if row["error_kind"] is None else RunError(row["error_kind"], row["error_text"] or ""),
        "validation": None if row["validation"] is None else record(Score, row["validation"]),
        "test": None if row["test"] is None else record(Score, row["test"]),
        "published": None if row["published"] is None else record(Published, row["published"]),
    }
    return Run(**(flat | built))
