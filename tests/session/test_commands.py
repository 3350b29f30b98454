"""The commands that users are shown give the settings they were written from."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tunecast.api
from sessions import call_main
from tunecast.records import Pipeline
from tunecast.session.commands import another_session_command, longer_training_command, resume_command
from tunecast.session.settings import SessionSettings

USUAL = SessionSettings("smollm2", "d.jsonl", output_dir="out")
EVERYTHING = replace(
    SessionSettings("my model", "my rows.jsonl", "20m", "my out", "transfer", "metrics:score"),
    methods=("lora", "ia3"),
    fixed={"lora_r": 16, "use_rslora": True, "target_modules": "all-linear", "lora_dropout": 1e-5},
    ranges={"learning_rate": (1e-5, 0.001)},
    epochs=1.5,
    max_length=200,
    unique_examples=50,
    test_examples="all",
    seed=3,
    device="cpu",
    dtype="float32",
    workers=2,
    executor="local",
    gpus_per_trial=2,
    threads=1,
    keep_gb=1.0,
    max_memory_gb=6.5,
    store="postgresql://me@host/runs",
    prompt_column="a b",
    completion_column="c",
    deterministic=True,
    trust_remote_code=True,
    forecast=False,
    final_training="epochs=3",
    value=2.0,
    prior="my.safetensors",
)

OF_THE_SEARCH = (
    *("budget", "strategy", "methods", "fixed", "ranges", "workers", "keep_gb", "max_memory_gb", "store"),
    *("forecast", "final_training", "value", "prior"),
)


class Taken(Exception):
    """Ends a command when it has called the function that does its work."""


def taken_by(command: str, function: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    """Run a command up to the function of :mod:`tunecast.api` that it calls, and return the arguments."""
    taken: list[tuple[Any, ...]] = []

    def take(*arguments: Any, **_: Any) -> None:
        taken.append(arguments)
        raise Taken

    monkeypatch.setattr(tunecast.api, function, take)
    with pytest.raises(Taken):
        call_main(*shlex.split(command)[1:])
    return taken[0]


@pytest.mark.parametrize("settings", [USUAL, EVERYTHING])
def test_another_session_has_the_same_settings(
    settings: SessionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = another_session_command(settings.as_json(), "2h")
    (found,) = taken_by(command, "tune", monkeypatch)
    assert found == replace(settings, budget="2h", output_dir=f"{settings.output_dir}-2h")


@pytest.mark.parametrize("settings", [USUAL, EVERYTHING])
def test_a_longer_training_has_what_decides_its_scores(
    settings: SessionSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / settings.output_dir).mkdir()
    (tmp_path / settings.output_dir / "longer-pipeline.json").write_text('{"method": "lora", "lora_r": 4}')
    command = longer_training_command(settings.as_json(), 4.5)
    found, pipeline = taken_by(command, "train", monkeypatch)
    assert pipeline == Pipeline("lora", {"lora_r": 4})
    of_the_search: dict[str, Any] = {name: getattr(USUAL, name) for name in OF_THE_SEARCH}
    folder = f"{settings.output_dir}-longer"
    assert found == replace(settings, epochs=4.5, output_dir=folder, **of_the_search)


def test_resuming_takes_everything_from_the_folder_but_what_needs_consent() -> None:
    assert resume_command(USUAL.as_json()) == "tunecast tune --resume --output-dir out"
    assert resume_command(EVERYTHING.as_json(), "2h") == (
        "tunecast tune --resume --budget 2h --output-dir 'my out' --trust-remote-code "
        "--objective metrics:score --store postgresql://me@host/runs"
    )


def test_resuming_has_the_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(EVERYTHING, output_dir=str(tmp_path))
    content = {"id": "0", "configuration": settings.as_json(), "dataset_fingerprint": ""}
    (tmp_path / "session.json").write_text(json.dumps(content))
    (found,) = taken_by(resume_command(settings.as_json(), "2h"), "tune", monkeypatch)
    assert found == replace(settings, budget="2h")
