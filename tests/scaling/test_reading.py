from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scaling.planted import models_table, write_long
from tunecast.errors import DataError
from tunecast.scaling import LossRow, build_table, read_table


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_long_table(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.csv",
        "model,model_size,data_size,loss\na,1e8,400,2\na,1e8,200,3\na,1e8,0,5\nb,2e8,200,2.5\nb,2e8,400,2.1\n",
    )
    table = read_table(path, by=["model"])
    first = table.curves[0]
    assert first.group == {"model": "a"}
    assert first.factors == {"model_parameters": 1e8}
    assert first.data_sizes.tolist() == [200, 400]
    assert first.losses.tolist() == [3, 2]
    assert first.zero_shot == 5
    assert table.curves[1].zero_shot is None


def test_wide_table(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "config name,0,100,200,size,family\nx,9,3,2,1000,F\ny,8,4,,2000,G\n")
    table = read_table(path, by=["model"])
    assert [curve.data_sizes.tolist() for curve in table.curves] == [[100, 200], [100]]
    assert table.curves[1].zero_shot == 8
    assert table.curves[1].factors == {"model_parameters": 2000}


def test_parquet_equals_csv(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"method": ["full", "full"], "data_size": [10, 20], "loss": [2.0, 1.5]}),
        tmp_path / "t.parquet",
    )
    (curve,) = read_table(tmp_path / "t.parquet", by=["method"]).curves
    assert curve.group == {"method": "full"}
    assert curve.losses.tolist() == [2.0, 1.5]


def test_parquet_is_known_by_any_spelling_of_its_ending(tmp_path: Path) -> None:
    pq.write_table(pa.table({"data_size": [10, 20], "loss": [2.0, 1.5]}), tmp_path / "T.PARQUET")
    (curve,) = read_table(tmp_path / "T.PARQUET").curves
    assert curve.losses.tolist() == [2.0, 1.5]


def test_cells_may_hold_line_breaks_of_all_kinds(tmp_path: Path) -> None:
    rows = "".join(f'"a\nb\u2028c\x85d",{size},{loss}\n' for size, loss in ((10, 2.0), (20, 1.5)))
    path = write(tmp_path / "t.csv", "model,data_size,loss\n" + rows)
    (curve,) = read_table(path, by=["model"]).curves
    assert curve.group == {"model": "a\nb\u2028c\x85d"}
    assert curve.losses.tolist() == [2.0, 1.5]


def test_a_table_that_is_not_csv_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "data_size,loss\n10," + "2" * (csv.field_size_limit() + 1) + "\n")
    with pytest.raises(DataError, match="is not CSV"):
        read_table(path)


def test_nothing_above_max_observed_is_even_parsed(tmp_path: Path) -> None:
    path = write_long(tmp_path / "clean.csv", models_table(3))
    lines = path.read_text().splitlines()
    poisoned = [
        ",".join([*line.split(",")[:-1], "nan"]) if index and float(line.split(",")[4]) > 3200 else line
        for index, line in enumerate(lines)
    ]
    other = write(tmp_path / "poisoned.csv", "\n".join(poisoned))
    clean = read_table(path, ["model"], max_observed=3200)
    tainted = read_table(other, ["model"], max_observed=3200)
    for one, two in zip(clean.curves, tainted.curves, strict=True):
        np.testing.assert_array_equal(one.losses, two.losses)
        assert two.data_sizes.max() <= 3200
    with pytest.raises(DataError, match=r"poisoned.csv, row \d+, column 'loss': 'nan'"):
        read_table(other, ["model"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loss,data_size\n2,100\nx,200\n", r"t.csv, row 3, column 'loss': 'x' is not a finite number"),
        ("loss,data_size\n2,100\n-1,200\n", r"row 3, column 'loss': a loss of -1"),
        ("loss,data_size\n2,-5\n", r"row 2, column 'data_size': -5 is negative"),
        ("loss,data_size,model_parameters\n2,5,0\n", r"row 2, column 'model_parameters'"),
        ("loss,size_of_data\n2,5\n", r"no column 'data_size'"),
        ("data_size,model\n2,5\n", r"no column 'loss'"),
        ("loss,data_size\n2,0\n", r"no row with data_size above 0"),
    ],
)
def test_bad_tables_name_file_row_and_column(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_table(write(tmp_path / "t.csv", text))


def test_missing_file_and_missing_group_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no table at"):
        read_table(tmp_path / "none.csv")
    path = write(tmp_path / "t.csv", "loss,data_size\n2,100\n")
    with pytest.raises(DataError, match="no column 'method'"):
        read_table(path, by=["method"])


def test_groups_show_the_descriptors_that_distinguish_curves() -> None:
    rows = [
        LossRow(2.0, 100, {"model": model, "method": method}, {"model_parameters": 1e8})
        for model in ("a", "b")
        for method in ("full", "lora")
    ]
    groups = [curve.group for curve in build_table(rows, ["method"]).curves]
    assert groups[0] == {"method": "full", "model": "a"}
    assert all("model_parameters" not in group for group in groups)
