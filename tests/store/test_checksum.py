"""A checksum of content: the same for the same content however it is encoded, another for any other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tunecast.store.checksum import content_checksum

ROWS: list[dict[str, Any]] = [
    {"name": "a", "x": 1.5, "n": None, "flag": True, "list": [{"s": 1, "v": None}, {"s": 2, "v": math.nan}]},
    {"name": "ab", "x": math.nan, "n": 3, "flag": False, "list": []},
]


def test_encoding_does_not_matter(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    checksum = content_checksum(table)
    encoded = table.set_column(0, "name", table["name"].dictionary_encode())
    assert content_checksum(encoded) == checksum
    assert content_checksum(pa.concat_tables([table.slice(0, 1), table.slice(1)])) == checksum
    pq.write_table(
        table.select(["x", "list", "flag", "n", "name"]), tmp_path / "t.parquet", compression="zstd"
    )
    assert content_checksum(pq.read_table(tmp_path / "t.parquet")) == checksum


@pytest.mark.parametrize(
    "change",
    [
        {"name": "b"},
        {"x": None},
        {"x": 0.0},
        {"n": 0},
        {"flag": False},
        {"list": []},
        {"list": [{"s": 1, "v": None}, {"s": 2, "v": None}]},
        {"list": [{"s": 1, "v": 0.0}, {"s": 2, "v": math.nan}]},
    ],
)
def test_every_value_matters(change: dict[str, Any]) -> None:
    schema = pa.Table.from_pylist(ROWS).schema
    changed = pa.Table.from_pylist([ROWS[0] | change, ROWS[1]], schema=schema)
    assert content_checksum(changed) != content_checksum(pa.Table.from_pylist(ROWS))


def test_where_text_ends_matters() -> None:
    one = pa.table({"a": ["ab", "c"]})
    other = pa.table({"a": ["a", "bc"]})
    assert content_checksum(one) != content_checksum(other)
