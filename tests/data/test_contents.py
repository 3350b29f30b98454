"""Suspicious contents are told with their counts and rows, and sound ones are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tiny
from tunecast.data import check, read
from tunecast.data.contents import content_warnings


def warnings_of(folder: Path, train: list[dict[str, Any]], held_out: list[dict[str, Any]]) -> list[str]:
    tiny.write_jsonl(folder / "train.jsonl", train)
    tiny.write_jsonl(folder / "validation.jsonl", held_out)
    tiny.write_jsonl(folder / "test.jsonl", held_out)
    return content_warnings(read(str(folder)))


def labelled(*labels: str) -> list[dict[str, Any]]:
    return [{"prompt": f"Is number {n} even?", "completion": label} for n, label in enumerate(labels)]


def held_out(*labels: str) -> list[dict[str, Any]]:
    return [{"prompt": f"Is {n} held out?", "completion": label} for n, label in enumerate(labels)]


def test_sound_contents_give_no_warning(toy_data: Path, tmp_path: Path) -> None:
    assert content_warnings(read(str(toy_data))) == []
    even = labelled(*["yes"] * 14, *["no"] * 6)
    assert warnings_of(tmp_path, even, held_out("yes", "no")) == []


def test_skewed_labels(tmp_path: Path) -> None:
    (warning,) = warnings_of(tmp_path, labelled(*["yes"] * 17, *["no"] * 3), held_out("yes", "no"))
    assert (
        "85% of 20 training examples have the same one ('yes' 17, 'no' 3; the others are in rows" in warning
    )


def test_one_label_alone(tmp_path: Path) -> None:
    (warning,) = warnings_of(tmp_path, labelled(*["yes"] * 20), held_out("yes"))
    assert warning.startswith(
        "All 20 training examples have the same answer, 'yes'. There is nothing to learn"
    )


@pytest.mark.parametrize(
    ("labels", "skewed"),
    [(["a"] * 10 + ["b"] * 5 + ["c"] * 5, True), (["a"] * 9 + ["b"] * 6 + ["c"] * 5, False)],
)
def test_with_more_labels_half_of_all_answers_is_much(
    tmp_path: Path, labels: list[str], skewed: bool
) -> None:
    found = warnings_of(tmp_path, labelled(*labels), held_out("a", "b"))
    assert [text for text in found if "skewed" in text] == found
    assert bool(found) == skewed


def test_conflicting_answers(tmp_path: Path) -> None:
    rows = [*tiny.toy_rows(20), *({**row, "completion": "something else"} for row in tiny.toy_rows(20)[3:5])]
    rows.append({**rows[0], "completion": f" {rows[0]['completion']}\n"})  # the same but for white space
    (warning,) = warnings_of(tmp_path, rows, tiny.toy_rows(30)[20:])
    assert "2 training prompts have different answers, in 4 of 23 examples (such as rows 4 and 21)" in warning
    assert "unless the prompt has several good answers" in warning


def test_conflicting_labels(tmp_path: Path) -> None:
    rows = [*labelled(*["yes", "no"] * 10), {"prompt": "Is number 4 even?", "completion": "no"}]
    (warning,) = warnings_of(tmp_path, rows, held_out("yes", "no"))
    assert "A training prompt has different answers, in 2 of 21 examples (such as rows 5 and 21)" in warning
    assert "a prompt has one label" in warning


def test_running_text_has_no_prompts(tmp_path: Path) -> None:
    texts = [{"text": f"Story number {n}."} for n in range(30)]
    assert warnings_of(tmp_path, texts[:20], texts[20:]) == []


def test_null_prompts_and_missing_values(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = list(tiny.toy_rows(20))
    rows[2] = {**rows[2], "prompt": None}
    rows[5] = {**rows[5], "prompt": "  "}
    rows[7] = {**rows[7], "prompt": "NULL"}
    rows[8] = {**rows[8], "completion": "NA"}
    rows[9] = {**rows[9], "completion": "nan"}
    rows[10] = {**rows[10], "completion": "no"}
    assert warnings_of(tmp_path, rows, tiny.toy_rows(30)[20:]) == [
        "train: 2 of 20 prompts are empty or null (rows 3, 6). Remove these rows, or fill them in.",
        "train: 'NULL' is the prompt of 1 of 20 examples (rows 8), and is used as such. "
        "If it stands for a missing value, remove these rows.",
        "train: 'NA' or 'nan' is the answer in 2 of 20 examples (rows 9, 10), and is used as such. "
        "If it stands for a missing value, remove these rows.",
    ]


def test_the_report_holds_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = ["prompt,completion", *(f"question {n},answer {n % 7}{n}" for n in range(40)), "question x,NA"]
    path.write_text("\n".join(rows), encoding="utf-8")
    report = check(read(str(path)), None, max_length=None, architecture="decoder-only")
    assert any(
        "'NA' is the answer in 1 of" in warning and "(rows 42)" in warning for warning in report.warnings
    )
