"""What is handed over: a pipeline, a model, and the data in canonical form."""

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
from tunecast.records import ModelFacts, Pipeline, Scalar
from tunecast.training.plan import nested_subset

SOURCES = "Give the output folder of tunecast tune, or the JSON file of a pipeline."
OPTIMIZERS = {
    "adamw": "adamw_torch",
    "adamw_8bit": "adamw_bnb_8bit",
    "adafactor": "adafactor",
    "lion": "lion_32bit",
    "sgd": "sgd",
}
"""Names of transformers' Trainer, which all three stand on."""


@dataclass(frozen=True)
class Work:
    """A pipeline with its model and its data.

    Args:
        pipeline: Method and hyperparameters.
        model: What ``from_pretrained`` takes: an absolute folder or a hub id.
        dataset: The data, split.
        epochs: Passes over the training examples.
        max_length: Longest sequence in tokens.
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
        """Examples as JSON objects.

        Args:
            examples: The examples.
            style: ``messages`` for whole conversations, ``prompt-completion`` for what precedes the last turn
                and the last turn.
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


def prepare_work(
    source: str,
    *,
    model: str | None = None,
    data_source: str | None = None,
    epochs: float | None = None,
    max_length: int | None = None,
) -> Work:
    """Find out what to hand over.

    Args:
        source: The output folder of a session, or the JSON file of a pipeline.
        model: Base model; None takes the session's.
        data_source: Data; None takes the session's, with as many training examples as it used.
        epochs: Passes over the training examples; None takes the session's, else 3.
        max_length: Longest sequence in tokens; None derives it as a session does.

    Raises:
        ConfigurationError: There is no such folder or file, model or data are missing, a number is none that
            can be trained with, or the model is an encoder-decoder.
        DataError: The data cannot be read.
        ModelError: The model cannot be found.
    """
    if epochs is not None and not 0 < epochs < math.inf:
        raise ConfigurationError(f"--epochs must be a positive number, not {epochs:g}.")
    if max_length is not None and max_length < 1:
        raise ConfigurationError(f"--max-length must be at least 1, not {max_length}.")
    pipeline, settings = _found(Path(source))
    model = model or settings.get("model")
    # Another dataset is handed over whole, however much of its own the session used.
    unique_examples = None if data_source else settings.get("unique_examples")
    data_source = data_source or settings.get("data")
    if not model or not data_source:
        raise ConfigurationError(
            f"{source} says neither model nor data.", "Add --model and --data for which it was meant."
        )
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
    return Work(
        pipeline=_completed(pipeline, facts or USUAL_MODEL),
        model=str(folder.resolve()) if folder else resolved.location,
        dataset=_drawn(dataset, unique_examples, seed),
        epochs=epochs or settings.get("epochs", 3.0),
        max_length=max_length or settings.get("max_length") or _max_length(dataset, folder),
        seed=seed,
        has_chat_template=folder is None or _has_chat_template(folder),
    )


def value_of(work: Work, name: str) -> Scalar:
    """A hyperparameter; the baseline's where the pipeline leaves it out."""
    return work.pipeline.hyperparameters.get(name, BASELINE.hyperparameters.get(name, 0))


def optimizer_of(work: Work) -> str:
    """The optimiser by the Trainer's name.

    Raises:
        ConfigurationError: The Trainer has none like it.
    """
    name = str(value_of(work, "optim"))
    if name not in OPTIMIZERS:
        raise ConfigurationError(
            f"optim {name} is Tunecast's own: no other trainer has it.",
            f"Hand over a pipeline with one of {', '.join(OPTIMIZERS)}, or train it with tunecast train.",
        )
    return OPTIMIZERS[name]


def _found(source: Path) -> tuple[Pipeline, dict[str, Any]]:
    """The pipeline, and the settings of the session that it comes from."""
    if not source.exists():
        raise ConfigurationError(f"There is no {source}.", SOURCES)
    if not source.is_dir():
        return read_pipeline(source, called="The pipeline"), {}
    file = source / "session.json"
    delivered = source / "best" / "pipeline.json"
    if not file.is_file() or not delivered.is_file():
        missing = file.name if not file.is_file() else "best/pipeline.json"
        raise ConfigurationError(f"{source} holds no finished session: there is no {missing}.", SOURCES)
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
    """Facts of a model that is at hand; one that cannot be handed over is refused."""
    facts = describe(model)
    if facts.architecture == "encoder-decoder":
        raise ConfigurationError(
            f"--model {model.name} is an encoder-decoder: what is written here trains decoders only.",
            "Train it with tunecast train.",
        )
    check_length(max_length, facts)
    return facts


def _completed(pipeline: Pipeline, model: ModelFacts) -> Pipeline:
    """The pipeline, with its method's defaults for all that it leaves out, as ``tunecast train`` has it."""
    given = pipeline.hyperparameters
    # Here may be no CUDA, without which QLoRA has no space; its hyperparameters are LoRA's.
    method = "lora" if pipeline.method == "qlora" else pipeline.method
    usual = baseline_pipeline(model, Restrictions((method,), given))
    return Pipeline(pipeline.method, {**usual.hyperparameters, **given})


def _drawn(dataset: data.Dataset, unique_examples: int | None, seed: int) -> data.Dataset:
    """The dataset with the training examples that a session drew: the very same where no prompt was too long
    for it, else as many."""
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
