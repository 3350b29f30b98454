"""What transformers found out about a folder is found once, and again when anything changes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import workshop
from tunecast import models
from tunecast.models.model_cache import recall, remember

LIGHT = """
import json, sys
from tunecast import data, models
from tunecast.data.examples import Example, Turn
model = models.resolve(sys.argv[1])
facts, tokenizer = models.describe(model), models.load_tokenizer(model)
example = Example((Turn("user", "a house", False), Turn("assistant", "is red", True)), 1)
(encoded,) = data.encode([example], tokenizer, max_length=64, architecture=facts.architecture)
print(json.dumps([facts.parameters, encoded.input_ids, encoded.labels, "torch" in sys.modules]))
"""


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNECAST_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tiny_llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


def test_the_second_process_finds_the_same_without_torch(folder: Path) -> None:
    *first, _ = workshop.run_in_fork(LIGHT.replace("sys.argv[1]", "arguments[0]"), str(folder))
    *second, uses_torch = json.loads(subprocess.check_output([sys.executable, "-c", LIGHT, str(folder)]))
    assert first == second
    assert not uses_torch


def test_facts_are_those_of_the_folder_that_is_asked_about(folder: Path, tmp_path: Path) -> None:
    first = models.describe(models.resolve(str(folder)))
    assert models.describe(models.resolve(str(folder))) == first
    renamed = folder.rename(tmp_path / "other")
    again = models.describe(models.resolve(str(renamed)))
    assert (again.name, again.weights_hash, again.config) == ("other", first.weights_hash, first.config)
    config = json.loads((renamed / "config.json").read_text())
    (renamed / "config.json").write_text(json.dumps(config | {"vocab_size": 1000}))
    assert models.describe(models.resolve(str(renamed))).vocabulary == 1000


def test_code_of_the_model_is_always_asked(folder: Path) -> None:
    remember(folder, "facts", {"found": 1})
    assert recall(folder, "facts") == {"found": 1}
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoConfig": "code.Config"}}))
    assert recall(folder, "facts") is None
    remember(folder, "facts", {"found": 2})
    assert recall(folder, "facts") is None


def test_a_cache_that_cannot_be_used_is_done_without(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TUNECAST_CACHE", str(tmp_path / "file"))
    remember(folder, "facts", {"found": 1})
    assert recall(folder, "facts") is None


def test_a_folder_with_a_file_that_is_no_text_is_not_remembered(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_bytes(b'{"a": "\xe9"}')
    remember(folder, "facts", {"a": 1})
    assert recall(folder, "facts") is None
