"""Prepares an export: a pipeline, a model, and the data in canonical form."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunecast import data
from tunecast.data.examples import prompt_text
from tunecast.errors import ConfigurationError
from tunecast.methods import BASELINE, Restrictions, baseline_pipeline
from tunecast.methods.pipeline_file import read_pipeline
from tunecast.methods.space import USUAL_MODEL
from tunecast.models import ResolvedModel, check_length, describe, resolve
from tunecast.optimizers import OPTIMIZERS
from tunecast.records import ModelFacts, Pipeline, Scalar
from tunecast.training.plan import nested_subset

SOURCES = "Give the output folder of tunecast tune, or the JSON file of a pipeline."
OPTIMIZER_NAMES = {name: facts.trainer for name, facts in OPTIMIZERS.items() if facts.trainer}
"""Names of the optimisers in transformers' Trainer, on which all three trainers are built."""


@dataclass(frozen=True)
class ExportJob:
    """A pipeline with its model and data.

    Args:
        model: The argument of ``from_pretrained``: an absolute folder or a hub id.
        dataset: The data, split.
        seed: Seed of data order and initialisation.
        has_chat_template: Whether the model's tokenizer renders conversations.
    """

    pipeline: Pipeline
    model: str
    dataset: data.Dataset
    epochs: float
    max_length: int
    seed: int
    has_chat_template: bool

    def rows(self, examples: Sequence[data.Example], style: str) -> list[dict[str, Any]]:
        """Return examples as JSON objects.

        ``style`` is ``messages`` for whole conversations, or ``prompt-completion`` for the last turn and
        everything before it.
        """
        make = _messages if style == "messages" else self._pair
        return [make(example) for example in examples]

    def _pair(self, example: data.Example) -> dict[str, Any]:
        last = example.turns[-1]
        if last.role == "text":
            return {"text": last.content}
        if self.has_chat_template:
            turns = _messages(example)["messages"]
            return {"prompt": turns[:-1], "completion": turns[-1:]}
        prompt = prompt_text(example)
        joined = prompt if not prompt or prompt[-1].isspace() else prompt + "\n"
        return {"prompt": joined, "completion": last.content}


def prepare_job(
    source: str,
    *,
    model: str | None = None,
    data_source: str | None = None,
    epochs: float | None = None,
    max_length: int | None = None,
) -> ExportJob:
    """Collect everything an export needs.

    Args:
        source: The output folder of a session, or the JSON file of a pipeline.
        model: Base model; None for the session's.
        data_source: Data; None for the session's, with as many training examples as it used.
        epochs: Passes over the training examples; None for the session's, else 3.
        max_length: Maximum sequence length in tokens; None to derive it as a session does.

    Raises:
        ConfigurationError: The source is missing or damaged, model or data are not given, a number is out of
            range, or the model is an encoder-decoder.
        DataError: The data cannot be read.
        ModelError: The model cannot be found.
    """
    if epochs is not None and not 0 < epochs < math.inf:
        raise ConfigurationError(f"--epochs must be a positive number, not {epochs:g}.")
    if max_length is not None and max_length < 1:
        raise ConfigurationError(f"--max-length must be at least 1, not {max_length}.")
    pipeline, settings = _found(Path(source))
    model = model or settings.get("model")
    # Another dataset is exported whole, however much of its own the session used.
    unique_examples = None if data_source else settings.get("unique_examples")
    data_source = data_source or settings.get("data")
    if not model or not data_source:
        raise ConfigurationError(f"{source} names neither model nor data.", "Add --model and --data.")
    resolved = resolve(model)
    folder = Path(resolved.location) if resolved.is_local else None
    facts = _checked_facts(resolved, max_length) if folder else None
    seed = settings.get("seed", 0)
    dataset = data.read(
        data_source,
        prompt_column=settings.get("prompt_column"),
        completion_column=settings.get("completion_column"),
        seed=seed,
    )
    return ExportJob(
        pipeline=_completed(pipeline, facts or USUAL_MODEL),
        model=str(folder.resolve()) if folder else resolved.location,
        dataset=_drawn(dataset, unique_examples, seed),
        epochs=epochs or settings.get("epochs", 3.0),
        max_length=max_length or settings.get("max_length") or _max_length(dataset, folder),
        seed=seed,
        has_chat_template=folder is None or _has_chat_template(folder),
    )


def value_of(job: ExportJob, name: str) -> Scalar:
    """Return a hyperparameter, or the baseline's value if the pipeline does not set it."""
    return job.pipeline.hyperparameters.get(name, BASELINE.hyperparameters.get(name, 0))


def optimizer_of(job: ExportJob) -> str:
    """Return the Trainer's name of the optimiser.

    Raises:
        ConfigurationError: The Trainer does not have the optimiser.
    """
    name = str(value_of(job, "optim"))
    if name not in OPTIMIZER_NAMES:
        raise ConfigurationError(
            f"Only Tunecast has the optimiser {name}; other trainers do not.",
            f"Export a pipeline with one of {', '.join(OPTIMIZER_NAMES)}, or train it with tunecast train.",
        )
    return OPTIMIZER_NAMES[name]


def _found(source: Path) -> tuple[Pipeline, dict[str, Any]]:
    """Return the pipeline, and the settings of the session it comes from."""
    if not source.exists():
        raise ConfigurationError(f"{source} does not exist.", SOURCES)
    if not source.is_dir():
        return read_pipeline(source, called="The pipeline"), {}
    file = source / "session.json"
    delivered = source / "best" / "pipeline.json"
    if not file.is_file() or not delivered.is_file():
        missing = file.name if not file.is_file() else "best/pipeline.json"
        raise ConfigurationError(f"{source} is not a finished session: it has no {missing}.", SOURCES)
    try:
        settings: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["configuration"]
        numbers = {"seed": int(settings.get("seed", 0)), "epochs": float(settings.get("epochs", 3.0))}
        if settings.get("unique_examples") is not None:
            numbers["unique_examples"] = int(settings["unique_examples"])
        whole = {**settings, **numbers}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(f"{file} is damaged.", "Give the JSON file of a pipeline.") from None
    return read_pipeline(delivered, called="The pipeline"), whole


def _checked_facts(model: ResolvedModel, max_length: int | None) -> ModelFacts:
    """Describe a local model and check that it can be exported."""
    facts = describe(model)
    if facts.architecture == "encoder-decoder":
        raise ConfigurationError(
            f"--model {model.name} is an encoder-decoder: exports train decoders only.",
            "Train it with tunecast train.",
        )
    check_length(max_length, facts)
    return facts


def _completed(pipeline: Pipeline, model: ModelFacts) -> Pipeline:
    """Fill in the method's defaults, as ``tunecast train`` does."""
    given = pipeline.hyperparameters
    # QLoRA has no space without CUDA; its hyperparameters are LoRA's.
    method = "lora" if pipeline.method == "qlora" else pipeline.method
    usual = baseline_pipeline(model, Restrictions((method,), given))
    return Pipeline(pipeline.method, {**usual.hyperparameters, **given})


def _drawn(dataset: data.Dataset, unique_examples: int | None, seed: int) -> data.Dataset:
    """Draw the training examples that a session used, or as many if some of its prompts were too long."""
    if unique_examples is None or unique_examples >= len(dataset.train):
        return dataset
    chosen = nested_subset(len(dataset.train), unique_examples, seed)
    return replace(dataset, train=tuple(dataset.train[int(index)] for index in chosen))


def _messages(example: data.Example) -> dict[str, Any]:
    if example.turns[-1].role == "text":
        return {"text": example.turns[-1].content}
    return {"messages": [{"role": turn.role, "content": turn.content} for turn in example.turns]}


def _max_length(dataset: data.Dataset, folder: Path | None) -> int:
    from tunecast.data.token_lengths import measure_lengths
    from tunecast.models.config_facts import facts_from_config, read_config

    facts = facts_from_config(read_config(folder), "model") if folder else None
    return measure_lengths(dataset, folder, context=facts.context if facts else None).max_length


def _has_chat_template(folder: Path) -> bool:
    from tunecast.models.describe import has_chat_template

    return has_chat_template(folder)
