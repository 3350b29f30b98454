"""Reads a pipeline from a JSON file, such as ``best/pipeline.json``, for ``--pipeline``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tunecast.errors import ConfigurationError
from tunecast.methods.restrictions import unflagged
from tunecast.methods.space import check_pipeline
from tunecast.records import ZERO_SHOT, Pipeline
from tunecast.untrusted import read_object

SHAPE = 'Write it as {"method": "lora", "hyperparameters": {"learning_rate": 2e-4}}.'


def read_pipeline(path: str | Path, *, called: str = "--pipeline") -> Pipeline:
    """Read a pipeline. Hyperparameters may also stand beside ``method``, as ``tune --json`` prints them.

    Args:
        path: The file.
        called: The option that names the file, for messages.

    Raises:
        ConfigurationError: The file is missing, or does not hold a pipeline that can be trained.
    """
    named = f"{called} {path}"
    content = read_object(Path(path), named, hint=SHAPE)
    if not isinstance(content.get("method"), str):
        raise ConfigurationError(f"{named} names no method.", SHAPE)
    if content["method"] == ZERO_SHOT.method:
        raise ConfigurationError(
            f"{named} is the base model, which won its session: there is nothing to train.",
            "Give the pipeline of a trial, such as the incumbent's.",
        )
    values = {name: value for name, value in content.items() if name != "method"}
    nested = values.pop("hyperparameters", {})
    if not isinstance(nested, Mapping):
        raise ConfigurationError(f"{named}: hyperparameters must be an object of names and values.", SHAPE)
    values.update(nested)
    for name, value in values.items():
        if not isinstance(value, str | int | float | bool):
            kind = type(value).__name__
            raise ConfigurationError(f"{named}: {name} must be one value, not a {kind}.", SHAPE)
    pipeline = Pipeline(content["method"], values)
    try:
        check_pipeline(pipeline)
    except ConfigurationError as error:
        raise ConfigurationError(f"{named}: {unflagged(error).what}", error.hint) from None
    return pipeline
