"""Reads a collection plan from YAML, checks all of it, and resolves its paths."""

from __future__ import annotations

import csv
import os
import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tunecast.errors import ConfigurationError
from tunecast.ranges import MAX_SEED
from tunecast.records import Scalar
from tunecast.untrusted import read_object

ROOT_VARIABLE = "TUNECAST_"
"""``{tasks}`` in a plan is the folder of ``--root tasks=FOLDER``, else of the variable ``TUNECAST_TASKS``."""
Always = Literal["zero-shot", "baseline", "baseline-3e-4"]

Positive = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10**12)]
Runs = Annotated[int, Field(ge=1, le=100_000)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
MAX_RUNS = 1_000_000
"""Maximum number of runs of a factorial plan on one dataset."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelChoice(_Part):
    """A base model of a plan: the value of ``--model``, and the number of runs on each dataset."""

    path: str
    runs_per_dataset: Runs


class DatasetChoice(_Part):
    """A dataset of a plan: the value of ``--data``, and the metric of its task (``loss`` for none)."""

    path: str
    metric: str = "loss"


class Scoring(_Part):
    """The scoring of runs on the test split.

    Args:
        test_tokens: Tokens of the fixed, seeded choice of test examples that every run is scored on.
        metric_share: Share of the runs whose metric is also measured; always for zero-shot and baseline.
        metric_examples: Largest number of examples to answer. A metric of classification chooses among the
            labels, every other one generates.
        generated_tokens: Largest number of tokens to generate for one metric. With long completions fewer
            examples fit; below 16 the metric is not measured.
    """

    test_tokens: Count = 16_384
    metric_share: Annotated[float, Field(ge=0, le=1)] = 0.3
    metric_examples: Annotated[int, Field(ge=1, le=100)] = 100
    generated_tokens: Count = 3000


class GridPipeline(_Part):
    """A pipeline of a factorial plan: its method's defaults, with the given values.

    Args:
        method: Its method.
        rate: Learning rate as a multiple of the usual adapter rate at the model's width.
        hyperparameters: Values that differ from the method's defaults.
    """

    method: str
    rate: Positive
    hyperparameters: Mapping[str, Scalar] = {}


class _Folder(_Part):
    """Every subfolder as a dataset, except those that match ``exclude``.

    Metrics come from ``metrics``, by subfolder, else from the CSV table ``index``, with the columns ``task``
    and ``metric``.
    """

    folder: str
    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    index: str = ""
    metrics: Mapping[str, str] = {}


class _Pipelines(_Part):
    methods: Mapping[str, Positive] = {}
    shared: Annotated[float, Field(ge=0, le=1)] = 0.6
    always: tuple[Always, ...] = ("zero-shot", "baseline", "baseline-3e-4")
    learning_rates: Mapping[str, tuple[Positive, Positive]] = {}
    grid: tuple[GridPipeline, ...] = ()

    @model_validator(mode="after")
    def _either(self) -> _Pipelines:
        if bool(self.methods) == bool(self.grid):
            raise ValueError("give either methods to sample from or a grid")
        if unknown := sorted(self.learning_rates.keys() - self.methods.keys()):
            raise ValueError(f"learning_rates has {', '.join(unknown)}, which is not in methods")
        return self


class _Settings(_Part):
    """The settings that a file and the plan made of it have in common."""

    name: Annotated[str, Field(pattern=r"^[\w-]+$", max_length=100)]
    seed: Seed = 0
    models: Annotated[tuple[ModelChoice, ...], Field(min_length=1)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    scoring: Scoring = Scoring()
    least_steps: Count = 16
    chunk: Count = 4
    exclusive: bool = False


class _File(_Settings):
    datasets: _Folder | tuple[DatasetChoice, ...]
    pipelines: _Pipelines
    full_length_tokens: Annotated[Mapping[Count, Positive], Field(min_length=1)]
    unique_examples: Annotated[tuple[Count | Literal["all"], ...], Field(min_length=1)] = ("all",)

    @model_validator(mode="after")
    def _bounded(self) -> _File:
        lengths = len(self.full_length_tokens) * len(self.unique_examples) * len(self.seeds)
        if (count := len(self.pipelines.grid) * lengths * len(self.models)) > MAX_RUNS:
            raise ValueError(f"the grid has {count:,} runs on each dataset; the most are {MAX_RUNS:,}")
        return self


class Plan(_Settings, _Pipelines):
    """A checked plan.

    Args:
        name: Name of the collection, which its runs have as their session.
        seed: Seed of every choice.
        methods: Weight by method among the sampled pipelines.
        shared: Share of the sampled pipelines that all datasets of a model have in common.
        always: Further pipelines that every dataset of a model gets.
        learning_rates: By method, the lowest and highest learning rate as multiples of the usual adapter rate
            at the model's width. A method that is not listed keeps its own range.
        full_lengths: Weight by full length in tokens.
        unique_examples: Sizes of nested subsets of the training examples; None is all of them.
        least_steps: Minimum of optimiser steps. If a dataset's examples are long, a sampled batch is made
            smaller, and a full length that is too short even for the smallest batch is made longer.
        chunk: Consecutive runs of the same model and dataset, so that both are loaded less often.
        exclusive: Whether runs are made one at a time on an idle machine, so that seconds can be learned
            from.
        grid: If given, nothing is sampled: each of these pipelines is run with every full length, every
            number of unique examples and every seed.
    """

    datasets: tuple[DatasetChoice, ...]
    full_lengths: Mapping[int, float]
    unique_examples: tuple[int | None, ...]


def read_plan(
    path: str | Path, roots: Mapping[str, str] | None = None, *, allowed_metrics: Collection[str] = ()
) -> Plan:
    """Read a plan.

    Args:
        roots: Folders by the names in braces in the plan's paths; environment variables give the rest.
        allowed_metrics: Metrics of the form ``module:function`` that may run; a plan alone cannot run code.

    Raises:
        ConfigurationError: The file is missing or not a plan (every problem is named), a folder or a metric
            is unknown, or a metric is not allowed.
    """
    content = _parsed(Path(path))
    places = _Places(dict(roots or {}), str(path))
    listed = content.datasets
    datasets = _in_folder(listed, places) if isinstance(listed, _Folder) else _each(listed, places)
    if not datasets:
        raise ConfigurationError(f"--plan {path}: no dataset is left.", "Check datasets.folder and exclude.")
    _check_metrics(datasets, str(path), allowed_metrics)
    settings = {name: getattr(content, name) for name in _Settings.model_fields}
    settings["models"] = [m.model_copy(update={"path": places.resolve(m.path)}) for m in content.models]
    return Plan(
        **settings,
        **dict(content.pipelines),
        datasets=datasets,
        full_lengths=content.full_length_tokens,
        unique_examples=tuple(None if n == "all" else int(n) for n in content.unique_examples),
    )


def _parsed(path: Path) -> _File:
    content = read_object(path, f"--plan {path}", language="YAML")
    try:
        return _File.model_validate(content)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, p['loc'])) or 'the file'}: {p['msg']}" for p in error.errors()]
        raise ConfigurationError(
            f"--plan {path} is not a plan: {'; '.join(problems)}.", "See the plans that come with Tunecast."
        ) from None


@dataclass(frozen=True)
class _Places:
    roots: dict[str, str]
    plan: str

    def resolve(self, text: str) -> str:
        if not text.startswith("{"):
            return text
        name, closed, rest = text[1:].partition("}")
        folder = self.roots.get(name) or os.environ.get(ROOT_VARIABLE + name.upper(), "")
        if not closed or not folder:
            raise ConfigurationError(
                f"--plan {self.plan}: the folder of {text!r} is unknown.",
                f"Give --root {name}=FOLDER, or set {ROOT_VARIABLE}{name.upper()}.",
            )
        return folder.rstrip("/") + rest


def _each(listed: tuple[DatasetChoice, ...], places: _Places) -> tuple[DatasetChoice, ...]:
    return tuple(d.model_copy(update={"path": places.resolve(d.path)}) for d in listed)


def _in_folder(listed: _Folder, places: _Places) -> tuple[DatasetChoice, ...]:
    folder = Path(places.resolve(listed.folder))
    if not folder.is_dir():
        raise ConfigurationError(f"--plan {places.plan}: there is no folder {folder}.")
    metrics = {**(_metrics(Path(places.resolve(listed.index))) if listed.index else {}), **listed.metrics}
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    kept = [name for name in names if not any(fnmatch(name, pattern) for pattern in listed.exclude)]
    for field, named in (("only", listed.only), ("metrics", listed.metrics)):
        if missing := sorted({*named} - {*names}):
            reason = f"datasets.{field} names {', '.join(missing)}, and {folder} has no such folder"
            raise ConfigurationError(f"--plan {places.plan}: {reason}.")
    if listed.only:
        kept = [name for name in kept if name in listed.only]
    return tuple(DatasetChoice(path=str(folder / name), metric=metrics.get(name, "loss")) for name in kept)


def _check_metrics(datasets: Iterable[DatasetChoice], plan: str, allowed: Collection[str]) -> None:
    """Check metrics before any run is made: a run with an unknown metric would be kept without one."""
    from tunecast.training.metrics import get_metric

    by_metric = {dataset.metric: dataset.path for dataset in datasets}
    if foreign := sorted(metric for metric in by_metric if ":" in metric and metric not in allowed):
        flags = " ".join(f"--allow-metric {shlex.quote(metric)}" for metric in foreign)
        raise ConfigurationError(
            f"--plan {plan}: {by_metric[foreign[0]]} is scored by {foreign[0]}, which is third-party code.",
            f"If you trust it, add: {flags}",
        )
    for metric, dataset in by_metric.items():
        if metric == "loss":
            continue
        try:
            get_metric(metric)
        except ConfigurationError as error:
            reason = f"metric {metric!r} of {dataset} cannot be used"
            raise ConfigurationError(f"--plan {plan}: {reason}.", error.hint) from error


def _metrics(index: Path) -> dict[str, str]:
    """Read metrics by dataset from a table with the columns ``task`` and ``metric``."""
    try:
        with index.open(encoding="utf-8", newline="") as stream:
            return {row["task"]: row["metric"] or "" for row in csv.DictReader(stream)}
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"datasets.index: {index} is not a table with the columns task and metric: {error}."
        ) from None
