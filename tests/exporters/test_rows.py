"""The examples of an export, as conversations or as texts."""

from __future__ import annotations

import json
from pathlib import Path

from exported import write_pipeline
from tunecast.api import export
from tunecast.methods import BASELINE


def test_data_are_conversations(tiny_llama: Path, toy_data: Path, tmp_path: Path) -> None:
    source = write_pipeline(tmp_path, BASELINE)
    folder = tmp_path / "out"
    export(source, "llamafactory", model=str(tiny_llama), data=str(toy_data), output_dir=folder)
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 128
    assert [turn["role"] for turn in rows[0]["messages"]] == ["user", "assistant"]
    info = json.loads((folder / "dataset_info.json").read_text())
    assert {entry["file_name"] for entry in info.values()} == {"train.jsonl", "validation.jsonl"}
    assert all((folder / entry["file_name"]).is_file() for entry in info.values())


def test_without_a_chat_template_prompts_are_text(tiny_gpt2: Path, toy_data: Path, tmp_path: Path) -> None:
    source = write_pipeline(tmp_path, BASELINE)
    folder = tmp_path / "out"
    export(source, "trl", model=str(tiny_gpt2), data=str(toy_data), output_dir=folder)
    row = json.loads((folder / "train.jsonl").read_text().splitlines()[0])
    (trained,) = row["trained"]
    assert trained.startswith("The ")
    assert trained.endswith(".<|endoftext|>")
    assert row["text"].endswith(f"?\n{trained}")
    assert len(row["input_ids"]) == len(row["labels"])
