"""Shared parts of the YAML configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunecast.errors import ConfigurationError
from tunecast.exporters.job import ExportJob, value_of


def as_yaml(settings: Mapping[str, Any], command: str) -> str:
    """Return settings as YAML in their order, below a comment with the command.

    Floats are written as 0.0002, never as 2e-4, which YAML 1.1 reads as a string.
    """
    import yaml

    class Plain(yaml.SafeDumper):
        """Writes floats without an exponent."""

    def write(dumper: Any, value: float) -> Any:
        text = f"{value:.12f}".rstrip("0")
        return dumper.represent_scalar("tag:yaml.org,2002:float", text + "0" * text.endswith("."))

    Plain.add_representer(float, write)
    body = yaml.dump(dict(settings), Dumper=Plain, sort_keys=False, allow_unicode=True)
    return f"# {command}\n{body}"


def refuse_unknown(job: ExportJob, trainer: str, methods: Sequence[str]) -> None:
    """Refuse a method that the trainer does not support.

    Raises:
        ConfigurationError: The trainer does not support it.
    """
    if job.pipeline.method not in methods:
        raise ConfigurationError(
            f"{trainer} does not support {job.pipeline.method}.",
            f"Export one of {', '.join(methods)}, or use --to trl for other peft adapters.",
        )
    if value_of(job, "optim") == "sgd":
        raise ConfigurationError(
            f"The SGD of {trainer} has no momentum, so this learning rate would hardly train.",
            "Export a pipeline with another optimiser, or use --to trl.",
        )


def trainer_differences(job: ExportJob, *, shuffles: bool = True) -> list[str]:
    """Return what a configuration of transformers' Trainer does not reproduce, one sentence each."""
    found = [
        *(
            ["The adapter's weights start from other random numbers."]
            if job.pipeline.method != "full"
            else []
        ),
        "Validation losses average the batches' means; Tunecast's is the mean over all label tokens.",
    ]
    if shuffles:
        found.append(
            "The trainer shuffles the examples itself: batches hold other examples, in another order, so "
            "losses agree only on average."
        )
    if float(value_of(job, "weight_decay")):
        found.append("The trainer exempts biases and norms from weight decay; Tunecast decays all weights.")
    return found
