"""JSON lines keep every text, half surrogates too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunecast.errors import OutputError
from tunecast.json_lines import check_name, json_lines
from tunecast.matching.files import MatchFiles, MatchReport
from tunecast.synth.files import SynthFiles, SynthReport

ROWS = [{"prompt": "half \ud83d of a pair", "completion": "gänzlich 😀"}, {"prompt": "b", "completion": ""}]


def test_lines_are_read_back_as_they_were() -> None:
    lines = json_lines(ROWS).decode("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == ROWS
    assert "gänzlich 😀" in lines[0]


def test_other_names_are_refused() -> None:
    with pytest.raises(OutputError, match=r"--output pairs\.csv does not end in \.jsonl"):
        check_name(Path("pairs.csv"), "--output")


def test_both_makers_of_datasets_write_half_surrogates(tmp_path: Path) -> None:
    matched = MatchFiles(tmp_path / "matched.jsonl")
    matched.write(ROWS, ROWS[:1], MatchReport({}, 0, 0, {}, 0, None, None, 0, 0, {}, ("\ud83d",)))
    made = SynthFiles(tmp_path / "made.jsonl")
    made.write(ROWS, ROWS[:1], SynthReport((), {}, ("\ud83d",), 0, 0, {}, {}, 0, "document", {}))
    for file in (matched.examples, made.pairs):
        assert [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] == ROWS
    assert json.loads(matched.report.read_text(encoding="utf-8"))["notes"] == ["\ud83d"]
