from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sample_runs import sample_dataset
from tunecast.data import Turn
from tunecast.session.provenance import Origin

DATASET = sample_dataset()
ORIGIN = Origin(
    3,
    DATASET.name,
    DATASET.fingerprint,
    (" yes", " no"),
    ((5, 2), (6, 2)),
    "{prompt}?",
    "text",
    (Turn("system", "Be brief.", trained=False),),
    explained=True,
)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert Origin.read(tmp_path) is None
    ORIGIN.write(tmp_path)
    assert Origin.read(tmp_path) == ORIGIN


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1]",
        "{}",
        '{"seed": "x", "dataset": "", "dataset_fingerprint": ""}',
        '{"seed": 1, "dataset": "", "dataset_fingerprint": "", "opening": [{}]}',
        '{"seed": 1, "dataset": "", "dataset_fingerprint": "", "opening": [{"role": "tool", "content": ""}]}',
    ],
)
def test_another_programs_file_is_passed_over(content: str, tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text(content)
    assert Origin.read(tmp_path) is None


def test_it_warns_of_another_split_and_of_other_data() -> None:
    assert ORIGIN.warnings(DATASET, 3) == []
    (seeds,) = ORIGIN.warnings(replace(DATASET, fingerprint="split in another way"), 0)
    assert "--seed 0" in seeds
    assert "--seed 3" in seeds
    (data,) = ORIGIN.warnings(replace(DATASET, name="shapes", fingerprint="other"), 3)
    assert "shapes" in data
    assert DATASET.name in data
