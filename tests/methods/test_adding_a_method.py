"""The page on adding a method is true: its blocks make a package whose method Tunecast trains with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plugins import installed_from, tunecast_with
from sessions import FLAGS, IN_PROCESS

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-method.md"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    return installed_from(PAGE, "tunecast_values.py", tmp_path)


def test_the_method_is_searched_and_trained(
    installed: Path, tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    flags = ("--model", str(tiny_llama), "--data", str(toy_data), "--output-dir", str(folder))
    flags += ("--methods", "values", "--budget", "2-trials", *FLAGS, *IN_PROCESS, "--no-forecast")
    code, out, err = tunecast_with(installed, "tune", *flags, "--json")
    assert code == 0, err[-2000:]
    result = json.loads(out)
    assert result["incumbent"]["pipeline"]["method"] == "values"
    assert result["test"]["incumbent"]["loss"] < result["test"]["zero_shot"]["loss"]
    assert (folder / "best" / "model.safetensors").is_file()


def test_the_method_says_where_it_does_not_apply(
    installed: Path, tiny_gpt2: Path, toy_data: Path, tmp_path: Path
) -> None:
    flags = ("--model", str(tiny_gpt2), "--data", str(toy_data), "--output-dir", str(tmp_path / "out"))
    code, _, err = tunecast_with(
        installed, "tune", *flags, "--methods", "values", "--budget", "2-trials", *IN_PROCESS
    )
    assert code == 2
    assert "only models of Llama's layout have a v_proj" in err
