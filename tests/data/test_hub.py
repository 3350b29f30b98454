"""Datasets through the ``datasets`` library: saved folders, and a clear message when there is no hub."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny
from tunecast.data.hub import is_saved_folder, looks_like_id, read_hub, read_saved_folder
from tunecast.errors import DataError


@pytest.mark.parametrize(
    "source",
    ["squad", "owner/name", "owner/na-me_2.0#main", "owner/name:train[:1000]", "n:train[10%:20%]+test"],
)
def test_ids(source: str) -> None:
    assert looks_like_id(source)


@pytest.mark.parametrize("source", ["./data", "/data", "../a/b", "a/b/c", "a b", "", "C:\\data"])
def test_what_is_no_id(source: str) -> None:
    assert not looks_like_id(source)


def test_saved_folder_with_splits_and_class_labels(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    train = Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    test = Dataset.from_dict({"text": ["c"], "label": [-1]}, features=features)
    DatasetDict({"train": train, "test": test}).save_to_disk(tmp_path / "saved")
    assert is_saved_folder(tmp_path / "saved")
    tables = read_saved_folder(tmp_path / "saved")
    assert tables["train"].rows == [(1, {"text": "a", "label": "yes"}), (2, {"text": "b", "label": "no"})]
    assert tables["test"].rows == [(1, {"text": "c", "label": None})]


def test_saved_folder_without_splits(tmp_path: Path) -> None:
    from datasets import Dataset

    rows = tiny.toy_rows(5)
    Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    assert [row for _, row in read_saved_folder(tmp_path / "saved")[""].rows] == rows
    assert not is_saved_folder(tmp_path)


def test_damaged_folder(tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text("{}")
    with pytest.raises(DataError, match="cannot be loaded"):
        read_saved_folder(tmp_path)


def test_offline_is_one_clear_message() -> None:
    with pytest.raises(DataError, match="no file or folder 'owner/name' here") as caught:
        read_hub("owner/name:train[:10]")
    assert "network" in caught.value.hint
    with pytest.raises(DataError, match="neither a file, a folder nor a dataset id"):
        read_hub("what is this?")
