"""The score of a finished model, with or without an adapter, on a dataset: nothing is trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from tunecast.errors import ConfigurationError, ModelError
from tunecast.progress import Progress
from tunecast.records import Evaluation
from tunecast.session.executor import Crash, LocalExecutor
from tunecast.session.origin import Origin
from tunecast.session.prepare import prepare_task
from tunecast.session.requests import Broken, ScoreModel
from tunecast.session.settings import SessionSettings
from tunecast.training.runner import Scored

__all__ = ["SPLITS", "evaluate"]

SPLITS = ("test", "validation")
METRIC_EXAMPLES = 500
ADAPTER_FILE = "adapter_config.json"


def evaluate(
    settings: SessionSettings, adapter: str, split: str, progress: Progress, *, seed: int | None = None
) -> Evaluation:
    """Score a model on a split.

    Args:
        settings: Model, data, objective, seed and device; the rest is not looked at.
        adapter: Folder of an adapter in PEFT's format; empty for none, or where ``settings.model`` is one.
        split: One of :data:`SPLITS`.
        progress: Told how far it is.
        seed: Of the split and of the intervals; None for that of the session that delivered the model, where
            its folder names one, else for that of ``settings``.

    Raises:
        ConfigurationError: There is no such split, or the adapter is not one.
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
    if not adapter and (Path(settings.model) / ADAPTER_FILE).is_file():
        adapter, settings = settings.model, replace(settings, model=_base_of(Path(settings.model)))
    if adapter and not (Path(adapter) / ADAPTER_FILE).is_file():
        raise ConfigurationError(
            f"--adapter: the folder {adapter} has no {ADAPTER_FILE}.", "Give a folder that peft wrote."
        )
    prepared = prepare_task(settings, progress)
    doubts = origin.warnings(prepared.dataset, settings.seed) if origin else []
    metric = settings.objective if settings.objective != "loss" else ""
    request = ScoreModel(
        None,
        0,
        split,
        metric=metric,
        generate_limit=METRIC_EXAMPLES if metric else 0,
        interval_seed=settings.seed,
    )
    progress.start(f"Scoring the {split} examples")
    with LocalExecutor(replace(prepared.bench, adapter=adapter), 1) as executor:
        executor.ready()
        scored = _scored(executor.call(request))
    progress.finish(f"loss {scored.score.loss:.4f}")
    return Evaluation(
        model=settings.model,
        adapter=adapter,
        dataset=prepared.task.dataset,
        split=split,
        score=scored.score,
        warnings=(*prepared.warnings, *doubts),
    )


def _base_of(adapter: Path) -> str:
    """The base model that an adapter names; one that lies in its own folder goes before."""
    if (adapter / "base").is_dir():
        return str(adapter / "base")
    named = json.loads((adapter / ADAPTER_FILE).read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not named:
        raise ModelError(
            f"--model: {adapter} is an adapter that names no base model.",
            f"Say --model BASE --adapter {adapter}.",
        )
    return str(named)


def _scored(answer: Scored | Broken | Crash) -> Scored:
    if isinstance(answer, Scored):
        return answer
    if isinstance(answer, Broken):
        raise answer.error()
    raise ModelError(
        f"The model cannot be scored: {answer.text}", "Free some memory, or give a smaller --max-length."
    )
