"""Every kind of file gives the same rows, and every fault names its place."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tunecast.data.files import read_file
from tunecast.errors import DataError
from tunecast.scaling import read_table

ROWS = [
    {"prompt": "Grüße, 世界?", "completion": 'He said "no",\nthen left.'},
    {"prompt": "line\u2028separator", "completion": "tab\there"},
    {"prompt": "", "completion": "x" * 200_000},
]


def write_json(path: Path) -> None:
    path.write_text(json.dumps(ROWS, ensure_ascii=False), encoding="utf-8")


def write_jsonl(path: Path) -> None:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS), encoding="utf-8")


def write_csv(path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, ["prompt", "completion"], delimiter="\t" if path.suffix == ".tsv" else ","
        )
        writer.writeheader()
        writer.writerows(ROWS)


def write_parquet(path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


WRITERS = {
    "a.json": write_json,
    "a.jsonl": write_jsonl,
    "a.JSONL": write_jsonl,
    "a.csv": write_csv,
    "a.tsv": write_csv,
    "a.parquet": write_parquet,
    "lines-by-another-name.json": write_jsonl,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    tables = read_file(path)
    assert list(tables) == [""]
    assert [row for _, row in tables[""].rows] == ROWS


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv"])
def test_a_byte_order_mark_is_no_text(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [row for _, row in read_file(path)[""].rows] == ROWS


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16be", "utf-32", "utf-32be"])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.tsv"])
def test_a_byte_order_mark_names_the_encoding(tmp_path: Path, name: str, encoding: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    text = path.read_bytes().decode()
    path.write_bytes((text if encoding in ("utf-16", "utf-32") else f"\ufeff{text}").encode(encoding))
    assert [row for _, row in read_file(path)[""].rows] == ROWS


@pytest.mark.skipif(not shutil.which("iconv"), reason="needs iconv")
def test_the_command_that_converts_an_encoding(tmp_path: Path) -> None:
    for encoding in ("utf-16le", "utf-16be", "cp1252"):
        path = tmp_path / "a.csv"
        path.write_bytes("prompt,completion\n„Grüße“,für\n".encode(encoding))
        with pytest.raises(DataError) as caught:
            read_file(path)
        command = str(caught.value.hint).partition(": ")[2]
        assert command.startswith(f"iconv -f {encoding} ")
        subprocess.run(command, shell=True, check=True, cwd=tmp_path)
        ((_, row),) = read_file(tmp_path / "utf8-a.csv")[""].rows
        assert row == {"prompt": "„Grüße“", "completion": "für"}


@pytest.mark.parametrize("delimiter", [";", "\t", ","])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_the_header_shows_the_delimiter(tmp_path: Path, name: str, delimiter: str) -> None:
    path = tmp_path / name
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["prompt", "completion"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows := [*ROWS, {"prompt": "one, two; three", "completion": "a\tb"}])
    assert [row for _, row in read_file(path)[""].rows] == rows


def test_one_column_needs_no_delimiter(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text\n"one, two"\nthree; four\n')
    rows = read_file(tmp_path / "a.csv")[""].rows
    assert rows == [(2, {"text": "one, two"}), (3, {"text": "three; four"})]


def test_blank_lines_before_the_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\n\nprompt;completion\na;b\n")
    assert read_file(tmp_path / "a.csv")[""].rows == [(4, {"prompt": "a", "completion": "b"})]


@pytest.mark.parametrize("delimiter", [";", ",", "\t"])
def test_a_spreadsheets_own_line_on_the_delimiter(tmp_path: Path, delimiter: str) -> None:
    lines = f"sep={delimiter}", f"prompt{delimiter}completion", f"a{delimiter}b", ""
    (tmp_path / "a.csv").write_bytes("\r\n".join(lines).encode())
    assert read_file(tmp_path / "a.csv")[""].rows == [(3, {"prompt": "a", "completion": "b"})]


def test_numbers_are_those_an_editor_shows(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    write_csv(table)
    # The first record has a line break inside, so the second starts on line 4.
    assert [number for number, _ in read_file(table)[""].rows] == [2, 4, 5]
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"a": 1}\r\n\r\n{"a": 2}\r\n')
    assert [number for number, _ in read_file(lines)[""].rows] == [1, 3]


def test_the_limit_of_csv_fields_is_left_as_it_was(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    write_csv(tmp_path / "a.csv")
    read_file(tmp_path / "a.csv")
    assert csv.field_size_limit() == before


def test_an_object_of_splits(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"train": ROWS, "test": ROWS[:1]}))
    tables = read_file(path)
    assert {name: len(table.rows) for name, table in tables.items()} == {"train": 3, "test": 1}
    assert tables["test"].place == f"{path} (test)"


FAULTS: dict[str, tuple[str, Any, str]] = {
    "empty": ("a.jsonl", b"", "is empty"),
    "only white space": ("a.csv", b" \n\n", "is empty"),
    "only a header": ("a.csv", b"prompt,completion\n", "has no rows"),
    "an empty list": ("a.json", b"[]", "has no rows"),
    "unknown kind": ("a.docx", b"x", "not a file type"),
    "json number": ("a.json", b"3", "a number at the top"),
    "json object": ("a.json", b'{"prompt": "a"}', "an object at the top"),
    "broken json": ("a.json", b'[{"a": 1},\n {"a" 2}]', r"line 2, column 7: not valid JSON \(Expecting ':'"),
    "json list of lists": ("a.json", b'[{"a": 1}, [2]]', "row 2: found a list, expected an object"),
    "deep json": ("a.json", b"[" * 100_000, "nested too deeply|not valid JSON"),
    "broken line": (
        "a.jsonl",
        b'{"a": 1}\n\n{"a": }\n',
        r"line 3: not valid JSON \(Expecting value, column 7",
    ),
    "line is a list": ("a.jsonl", b'{"a": 1}\n["b"]\n', "line 2: found a list"),
    "latin-1": (
        "a.jsonl",
        '{"a": "x"}\n{"a": "für"}\n'.encode("latin1"),
        r"line 2, byte 9 of the line \(byte 20 of",
    ),
    "half of utf-16": ("a.json", "[1]".encode("utf-16")[:-1], r"line 1, byte 7 .*: not UTF-16LE"),
    "utf-16 without a mark": ("a.csv", "a,b\n1,ü\n".encode("utf-16le"), "looks like UTF-16LE"),
    "ascii in big-endian utf-16": ("a.csv", "a,b\n1,2\n".encode("utf-16be"), "looks like UTF-16BE"),
    "header twice": ("a.csv", b"a,b,a\n1,2,3\n", "line 1: the header names 'a' more than once"),
    "fields": ("a.csv", b"a,b\n1,2\n1,2,3\n\n1\n", "line 3: 3 fields, but the header names 2"),
    "open quote": ("a.csv", b'a,b\n1,2\n"1,2\n', "not valid CSV"),
    "no parquet": ("a.parquet", b"nonsense", "not a readable parquet file"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_name_the_file_and_the_place(tmp_path: Path, fault: str) -> None:
    name, data, message = FAULTS[fault]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read_file(path)
    assert str(path) in caught.value.what
    assert caught.value.hint


def test_missing_file_and_folder_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.jsonl does not exist"):
        read_file(tmp_path / "nothing.jsonl")
    (tmp_path / "tickets.jsonl").touch()
    with pytest.raises(DataError) as caught:
        read_file(tmp_path / "ticket.jsonl")
    assert caught.value.hint.startswith("Did you mean tickets.jsonl? ")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        read_file(tmp_path / "folder.jsonl")


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("a.jsonl", lambda lines: [*lines[:4321], "{", *lines[4322:]]),
        ("a.jsonl", lambda lines: [*lines[:4321], '"text"', *lines[4322:]]),
        ("a.csv", lambda lines: [*lines[:4321], "one field", *lines[4322:]]),
    ],
)
def test_one_bad_row_in_ten_thousand(
    tmp_path: Path, name: str, spoil: Callable[[list[str]], list[str]]
) -> None:
    good = '{"prompt": "a", "completion": "b"}' if name.endswith("jsonl") else "a,b"
    path = tmp_path / name
    path.write_text("\n".join(spoil([good] * 10_000)))
    with pytest.raises(DataError, match="line 4322: ") as caught:
        read_file(path)
    assert "bad lines" not in caught.value.what


@pytest.mark.parametrize("name", ["bom.csv", "bom.tsv", "bom.jsonl", "bom.json"])
def test_a_byte_order_mark_alone_is_an_empty_file(name: str, tmp_path: Path) -> None:
    for content in (b"\xef\xbb\xbf", b"\xef\xbb\xbf\n\n", b"\xff\xfe", b"\xfe\xff\0\n"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{name} is empty"):
            read_file(tmp_path / name)


def damaged_pages(data: bytearray) -> None:
    data[20:120] = b"\xff" * 100


def invalid_text(data: bytearray) -> None:
    place = data.find(b"prompt-7")
    data[place : place + 2] = b"\xff\xfe"


def cut_off(data: bytearray) -> None:
    data[4:-4] = b"\0" * 50


@pytest.mark.parametrize("damage", [damaged_pages, invalid_text, cut_off])
def test_a_damaged_parquet_file(damage: Callable[[bytearray], None], tmp_path: Path) -> None:
    rows = pa.table({"prompt": [f"prompt-{n}" for n in range(50)], "completion": ["a"] * 50})
    pq.write_table(rows, tmp_path / "rows.parquet", compression="none", use_dictionary=False)
    data = bytearray((tmp_path / "rows.parquet").read_bytes())
    damage(data)
    (tmp_path / "rows.parquet").write_bytes(data)
    with pytest.raises(DataError, match=r"rows\.parquet is not a readable parquet file: ."):
        read_file(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows\.parquet is not a readable Parquet file: ."):
        read_table(tmp_path / "rows.parquet")


@pytest.mark.parametrize("kind", [pa.duration("s"), pa.timestamp("us")])
def test_times_out_of_range(kind: pa.DataType, tmp_path: Path) -> None:
    table = pa.table({"loss": [1.0], "data_size": [2], "when": pa.array([2**62], kind)})
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="not a readable parquet file"):
        read_file(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_table(tmp_path / "rows.parquet")


def test_integers_of_thousands_of_digits(tmp_path: Path) -> None:
    row = f'{{"prompt": "a", "completion": {"9" * 6000}}}'
    (tmp_path / "a.jsonl").write_text(f'{{"prompt": "a", "completion": "b"}}\n{row}\n')
    (tmp_path / "a.json").write_text(f"[{row}]")
    for name in ("a.jsonl", "a.json"):
        with pytest.raises(DataError, match="an integer of 6,000 digits"):
            read_file(tmp_path / name)
