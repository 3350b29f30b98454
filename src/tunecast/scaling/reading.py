"""Reading a table of end points from CSV or Parquet, long or wide.

A *long* table has the columns ``loss`` and ``data_size`` and any descriptors. A *wide* table has one row per
curve and one column per data size, named by the number; many published tables have this form.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tunecast.errors import DataError, first_line
from tunecast.scaling.table import FACTORS, LABELS, LossRow, LossTable, build_table

ALIASES = {"model_size": "model_parameters", "size": "model_parameters", "config name": "model"}

Record = Mapping[str, object]


def read_table(
    path: str | Path, by: Sequence[str] = (), max_observed: float | None = None, metric: str = ""
) -> LossTable:
    """Read a table.

    Args:
        max_observed: Drop rows with a larger ``data_size`` before parsing the rest of them, so that a
            back-test cannot leak.
        metric: Name of a column with a metric to read beside the loss; empty cells are not measured.

    Raises:
        DataError: There is no such column, the file cannot be read, or a cell has the wrong type; the message
            names row and column.
    """
    path = Path(path)
    header, records = _records(path)
    columns = {name: ALIASES.get(name, name) for name in header}
    sizes = {name: float(name) for name in header if _is_size(name)}
    if metric and metric not in header:
        hint = f"Its columns are {', '.join(header) or 'none'}."
        raise DataError(f"{path} has no column {metric!r} to read a metric from.", hint)
    if sizes and "loss" not in columns.values():
        pairs: Iterable[tuple[int, str, float, Record]] = _wide(records, sizes)
    else:
        pairs = _long(path, columns, records)
    wanted = {**{name: name for name in by}, **{name: name for name in LABELS}}
    rows = [
        _row(path, line, cell, size, record, columns, wanted, metric)
        for line, cell, size, record in pairs
        if max_observed is None or size <= max_observed
    ]
    table = build_table(rows, tuple(ALIASES.get(name, name) for name in by), str(path))
    return replace(table, metric=metric)


def _records(path: Path) -> tuple[list[str], Iterator[tuple[int, Record]]]:
    """Return the header, and each record with its line number (a Parquet file's first record is number 1)."""
    if not path.is_file():
        raise DataError(
            f"There is no table at {path}.", "Give a .csv or .parquet file with columns loss and data_size."
        )
    if path.suffix.lower() in (".json", ".jsonl"):
        raise DataError(
            f"{path} is JSON, not a table of losses.",
            "Give a .csv or .parquet file with columns loss and data_size.",
        )
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet  # only Parquet needs it, and it is slow to import

        try:
            table = pyarrow.parquet.read_table(path)
            rows = table.to_pylist()
        except (pyarrow.ArrowException, OSError, ValueError, ArithmeticError) as error:
            raise DataError(f"{path} is not a readable Parquet file: {first_line(error)}.") from error
        return list(table.column_names), iter(list(enumerate(rows, start=1)))
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            records = [(reader.line_num, record) for record in reader]
            return list(reader.fieldnames or ()), iter(records)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}", "Save it as UTF-8 CSV.") from error
    except csv.Error as error:
        raise DataError(f"{path} is not CSV: {error}.", "Save it as UTF-8 CSV.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error


def _long(
    path: Path, columns: Mapping[str, str], records: Iterator[tuple[int, Record]]
) -> Iterator[tuple[int, str, float, Record]]:
    names = {canonical: name for name, canonical in columns.items()}
    for column in ("loss", "data_size"):
        if column not in names:
            raise DataError(
                f"{path} has no column {column!r}; its columns are {', '.join(columns) or 'none'}.",
                "A table needs loss and data_size, and any of " + ", ".join((*LABELS, *FACTORS)) + ".",
            )
    for line, record in records:
        size = _number(path, line, names["data_size"], record.get(names["data_size"]))
        if size < 0:
            raise DataError(f"{path}, row {line}, column 'data_size': {size:g} is negative.")
        yield line, names["loss"], size, record


def _wide(
    records: Iterator[tuple[int, Record]], sizes: Mapping[str, float]
) -> Iterator[tuple[int, str, float, Record]]:
    """Yield one item per filled cell; an empty cell was not measured."""
    for line, record in records:
        for cell, size in sizes.items():
            if record.get(cell) not in (None, ""):
                yield line, cell, size, record


def _row(
    path: Path,
    line: int,
    cell: str,
    size: float,
    record: Record,
    columns: Mapping[str, str],
    labels: Mapping[str, str],
    metric: str,
) -> LossRow:
    loss = _number(path, line, cell, record.get(cell))
    if loss <= 0:
        raise DataError(f"{path}, row {line}, column {cell!r}: a loss of {loss:g} is not above 0.")
    names: dict[str, str] = {}
    factors: dict[str, float] = {}
    seconds: float | None = None
    for column, canonical in columns.items():
        value = record.get(column)
        if value is None or value == "" or column == cell:
            continue
        if canonical in FACTORS:
            factors[canonical] = _number(path, line, column, value)
            if factors[canonical] <= 0:
                raise DataError(f"{path}, row {line}, column {column!r}: {value} is not above 0.")
        elif canonical in labels:
            names[canonical] = str(value)
        elif canonical == "seconds":
            seconds = _number(path, line, column, value)
            if seconds < 0:
                raise DataError(f"{path}, row {line}, column {column!r}: {value} is negative.")
    score = None if record.get(metric) in (None, "") else _number(path, line, metric, record[metric])
    return LossRow(loss, size, names, factors, seconds, score)


def _number(path: Path, line: int, column: str, value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(
            f"{path}, row {line}, column {column!r}: {value!r} is not a finite number.",
            "Correct the cell, or leave the row out.",
        )
    return number


def _is_size(name: str) -> bool:
    try:
        return float(name) >= 0
    except ValueError:
        return False
