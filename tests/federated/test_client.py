"""A client answers with numbers only, whatever goes wrong with its data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunecast.federated.client import Client, client_names

from .conftest import Workshop

SECRET = "Patient Zebedee Quartermain"


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"prompt": SECRET}) + "\n",
        f"{SECRET}\n",
        json.dumps({"prompt": SECRET, "completion": ""}) + "\n",
        json.dumps({"prompt": f"{SECRET} " * 200, "completion": "yes"}) + "\n",
    ],
)
def test_errors_about_rows_stay_with_the_client(
    federation: Workshop, settings: Any, tmp_path: Path, content: str
) -> None:
    (tmp_path / "rows.jsonl").write_text(content, encoding="utf-8")
    hello = Client(settings(), "clinic", str(tmp_path / "rows.jsonl"), loaded=federation.site).hello()
    assert hello.problem or not hello.examples
    assert "Zebedee" not in repr(hello)


def test_an_error_while_training_is_told_by_its_kind_alone(
    federation: Workshop, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ValueError(SECRET)

    monkeypatch.setattr("tunecast.federated.lora.train_locally", fails)
    reply = federation.client(settings(), "north").train(1, {})
    assert "ValueError" in reply.problem
    assert "Zebedee" not in repr(reply)
    assert not reply.arrays


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_client_without_rows_has_no_examples(
    federation: Workshop, settings: Any, tmp_path: Path, kind: str
) -> None:
    place = tmp_path / "empty"
    place.mkdir() if kind == "folder" else place.touch()
    hello = Client(settings(), "empty", str(place), loaded=federation.site).hello()
    assert (hello.problem, hello.examples) == ("", 0)


def test_the_same_round_gives_the_same_reply_and_another_client_another(
    federation: Workshop, settings: Any
) -> None:
    chosen = settings(method="fedkseed", seeds=8, steps=2)
    received = {"scalars": np.zeros(8, np.float32)}
    one, again = (federation.client(chosen, "north").train(1, received) for _ in range(2))
    other = federation.client(chosen, "south").train(1, received)
    assert all((one.arrays[name] == again.arrays[name]).all() for name in one.arrays)
    assert any((one.arrays[name] != other.arrays[name]).any() for name in one.arrays)


def test_names_are_those_of_folders_and_files(tmp_path: Path) -> None:
    (tmp_path / "north.v2").mkdir()
    (tmp_path / "south.jsonl").touch()
    assert client_names([str(tmp_path / "north.v2"), str(tmp_path / "south.jsonl")]) == ["north.v2", "south"]
