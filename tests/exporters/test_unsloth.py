"""The script for Unsloth."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from exported import QLORA, write_pipeline
from tunecast.api import export
from tunecast.exporters.job import attention_projections, prepare_job
from tunecast.records import Pipeline


@pytest.mark.parametrize(
    ("model", "names"),
    [("tiny_llama", ["q_proj", "k_proj", "v_proj", "o_proj"]), ("tiny_gpt2", ["c_attn"])],
)
def test_attention_is_adapted_by_the_names_of_the_model(
    model: str, names: list[str], request: pytest.FixtureRequest, toy_data: Path, tmp_path: Path
) -> None:
    source = write_pipeline(tmp_path, Pipeline("lora", QLORA))
    job = prepare_job(source, model=str(request.getfixturevalue(model)), data_source=str(toy_data))
    assert attention_projections(job) == names


@pytest.mark.parametrize(
    ("pipeline", "loading", "adapter"),
    [
        (
            Pipeline("qlora", QLORA),
            {"max_seq_length": 64, "load_in_4bit": True, "random_state": 0},
            {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]},
        ),
        (Pipeline("full", {"learning_rate": 2e-5}), {"load_in_4bit": False, "full_finetuning": True}, None),
    ],
)
def test_unsloth_is_told_the_method(
    pipeline: Pipeline,
    loading: dict[str, Any],
    adapter: dict[str, Any] | None,
    tiny_llama: Path,
    toy_data: Path,
    tmp_path: Path,
) -> None:
    source = write_pipeline(tmp_path, pipeline)
    written = export(
        source, "unsloth", model=str(tiny_llama), data=str(toy_data), output_dir=tmp_path / "out"
    )
    text = written[0].read_text()
    compile(text, "train.py", "exec")
    assigned = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and node.targets[0].id in ("LOADING", "ADAPTER")
    }
    assert loading.items() <= assigned["LOADING"].items()
    if adapter is None:
        assert assigned["ADAPTER"] is None
    else:
        assert {key: assigned["ADAPTER"][key] for key in adapter} == adapter
    assert "has never been run with Unsloth" in (tmp_path / "out" / "README.md").read_text()
