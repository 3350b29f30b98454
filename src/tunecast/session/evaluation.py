"""Scoring a finished model, with or without an adapter, on a dataset, without training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunecast.errors import ConfigurationError, ModelError
from tunecast.executors import start_executor
from tunecast.executors.base import Broken, Crash
from tunecast.executors.requests import ScoreModel, TrainingPlace
from tunecast.hardware.processor import worker_threads
from tunecast.progress import Progress
from tunecast.results import Evaluation
from tunecast.session.final_evaluation import TEST_METRIC_EXAMPLES
from tunecast.session.prepare import prepare_task
from tunecast.session.provenance import Origin
from tunecast.session.settings import SessionSettings
from tunecast.training.runner import Scored

SPLITS = ("test", "validation")
ADAPTER_FILE = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def evaluate(
    settings: SessionSettings, adapter: str, split: str, progress: Progress, *, seed: int | None = None
) -> Evaluation:
    """Score a model on a split.

    Args:
        settings: Model, data, objective, seed and device; other settings are ignored.
        adapter: Folder of an adapter in PEFT's format; empty for none, or if ``settings.model`` is one.
        split: One of :data:`SPLITS`.
        progress: Shows the stages.
        seed: Seed of the split and of the intervals. None takes the seed of the session that delivered the
            model, if its folder names one, else ``settings.seed``.

    Raises:
        ConfigurationError: There is no such split, or the folder holds no adapter.
        DataError: The dataset cannot be used.
        ModelError: The model, or the adapter on it, cannot be loaded.
    """
    if split not in SPLITS:
        raise ConfigurationError(f"--split: there is no {split!r}.", f"Use {' or '.join(SPLITS)}.")
    origin = Origin.read(Path(adapter or settings.model))
    if seed is None and origin is not None:
        seed = origin.seed
    if seed is not None:
        settings = replace(settings, seed=seed)
    if adapter:
        _read_adapter("--adapter", Path(adapter))
    elif (Path(settings.model) / ADAPTER_FILE).is_file():
        adapter, settings = settings.model, replace(settings, model=_base_of(Path(settings.model)))
    metric = settings.objective if settings.objective != "loss" else ""
    request = ScoreModel(
        None,
        0,
        split,
        metric=metric,
        generate_limit=TEST_METRIC_EXAMPLES if metric else 0,
        interval_seed=settings.seed,
    )
    with start_executor(settings.executor, 1, worker_threads(settings.threads, settings.workers)) as executor:
        prepared = prepare_task(settings, progress)
        progress.start(f"Scoring the {split} examples")
        executor.open(TrainingPlace(replace(prepared.training_task, adapter=adapter)))
        scored = _scored(executor.call(request))
    progress.finish(f"loss {scored.score.loss:.4f}")
    diagnostics = origin.warnings(prepared.dataset, settings.seed) if origin else []
    return Evaluation(
        model=settings.model,
        adapter=adapter,
        dataset=prepared.task.dataset,
        split=split,
        score=scored.score,
        warnings=(*prepared.warnings, *diagnostics),
    )


def _read_adapter(flag: str, folder: Path) -> dict[str, Any]:
    """Read an adapter's configuration; without weights beside it, peft would look for them on the hub."""
    file = folder / ADAPTER_FILE
    hint = "Give a folder that peft wrote."
    if not file.is_file():
        raise ConfigurationError(f"{flag}: the folder {folder} has no {ADAPTER_FILE}.", hint)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{flag}: {file} cannot be read: {error}.", hint) from None
    if not isinstance(content, dict) or not isinstance(content.get("peft_type"), str):
        raise ConfigurationError(f"{flag}: {file} is not an adapter's configuration: no peft_type.", hint)
    if not any((folder / name).is_file() for name in ADAPTER_WEIGHTS):
        raise ConfigurationError(f"{flag}: the folder {folder} has no {ADAPTER_WEIGHTS[0]}.", hint)
    return content


def _base_of(adapter: Path) -> str:
    """Return the base model in an adapter's folder, else the one that the adapter names."""
    named = _read_adapter("--model", adapter).get("base_model_name_or_path")
    if (adapter / "base").is_dir():
        return str(adapter / "base")
    if not isinstance(named, str) or not named:
        raise ModelError(
            f"--model: {adapter} is an adapter that names no base model.",
            f"Give --model BASE --adapter {adapter}.",
        )
    return named


def _scored(answer: Scored | Broken | Crash) -> Scored:
    if isinstance(answer, Scored):
        return answer
    if isinstance(answer, Broken):
        raise answer.error()
    raise ModelError(
        f"The model cannot be scored: {answer.text}", "Free some memory, or give a smaller --max-length."
    )
