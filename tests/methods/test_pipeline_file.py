"""Pipelines in files: both shapes that Tunecast writes, and what is no pipeline."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tunecast.errors import ConfigurationError
from tunecast.methods.pipeline_file import read_pipeline
from tunecast.records import Pipeline

PIPELINE = Pipeline("lora", {"learning_rate": 0.002, "lora_r": 8, "use_dora": False, "optim": "adamw"})


@pytest.mark.parametrize(
    "content", [asdict(PIPELINE), {"method": PIPELINE.method, **PIPELINE.hyperparameters}]
)
def test_both_shapes_are_read(tmp_path: Path, content: object) -> None:
    (tmp_path / "p.json").write_text(json.dumps(content))
    assert read_pipeline(tmp_path / "p.json") == PIPELINE


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "holds a list"),
        ('{"hyperparameters": {}}', "names no method"),
        ('{"method": "lora", "hyperparameters": [1]}', "names and values"),
        ('{"method": "lora", "lora_r": [8, 16]}', "lora_r must be one value, not a list"),
    ],
)
def test_what_is_no_pipeline(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ConfigurationError, match=complaint):
        read_pipeline(tmp_path / "p.json")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_pipeline(tmp_path / "missing.json")
