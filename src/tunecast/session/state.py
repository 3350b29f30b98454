"""What ``session.json`` holds, and whether a session may go on from it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tunecast.errors import ConfigurationError, OutputError
from tunecast.predictor import Prediction
from tunecast.records import Pipeline, SessionRecord, stable_hash
from tunecast.session.folder import OutputFolder
from tunecast.session.settings import SessionSettings

FLAGS = {"fixed": "fix", "ranges": "range", "forecast": "no-forecast"}
"""Flags of settings that are not called like them."""


@dataclass(frozen=True)
class Part:
    """A part of the data: its unique examples, and the horizon of as many passes as there are over all."""

    unique_examples: int
    full_length_tokens: int


@dataclass(frozen=True)
class SurveyPlan:
    """What a forecast is measured on.

    Args:
        leading: Id of the run whose pipeline is measured, empty where no trial reached its end.
        parts: Parts of its data, smallest first.
        reason: Why there are no parts, empty where there are.
    """

    leading: str
    parts: tuple[Part, ...]
    reason: str


@dataclass
class SessionState:
    """What a session has decided so far; one that goes on after a kill decides nothing of it anew.

    None and nothing stand for what is not decided yet, or what an earlier version did not keep.

    Args:
        id: Identifier of the session.
        configuration: Its settings, as JSON.
        dataset_fingerprint: Hash of its data.
        dtype: Type of the base model's weights.
        started_at: Seconds since 1970.
        used_seconds: Of the budget.
        worker_bytes: What one worker may hold.
        advised: Candidates that advice begins with, best first.
        predicted: How advice expects pipelines to end, by their ids; only where a gain is weighed by seconds.
        full_length_tokens: Horizon of every trial.
        seconds_per_token: Of training the baseline, measured before the first trial.
        validation_seconds: Of scoring all validation examples.
        candidates: What may be tried; the first is the baseline.
        prior: Identity of the prior that the strategy rests on.
        listed: Ids of candidates in the order in which a strategy that looks recorded runs up tries them.
        held_back: What of the budget, in its unit, is left to the forecast.
        survey: What the forecast is measured on.
        diagnostics: What the strategy was found to doubt, one sentence each.
        record: What came out, once the session is complete.
    """

    id: str
    configuration: Mapping[str, Any]
    dataset_fingerprint: str
    dtype: str = ""
    started_at: float = 0.0
    used_seconds: float = 0.0
    worker_bytes: int | None = None
    advised: list[Pipeline] = field(default_factory=list)
    predicted: dict[str, Prediction] = field(default_factory=dict)
    full_length_tokens: int | None = None
    seconds_per_token: float | None = None
    validation_seconds: float | None = None
    candidates: list[Pipeline] = field(default_factory=list)
    prior: str | None = None
    listed: list[str] | None = None
    held_back: float | None = None
    survey: SurveyPlan | None = None
    diagnostics: list[str] = field(default_factory=list)
    record: SessionRecord | None = None

    def as_json(self) -> dict[str, Any]:
        """The content of ``session.json``: what is decided."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def read_state(content: Mapping[str, Any]) -> SessionState:
    """A session's state from what its ``session.json`` holds.

    Raises:
        OutputError: It is of another version.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(SessionState).validate_python(dict(content))
    except ValidationError as error:
        raise OutputError(
            f"session.json holds what this version cannot read ({error.error_count()} fields).",
            "Choose another --output-dir.",
        ) from error


def earlier_state(folder: OutputFolder, settings: SessionSettings, resume: bool) -> SessionState | None:
    """What ``session.json`` of a session in the folder holds; None where there is none.

    Args:
        folder: The locked output folder.
        settings: What is asked for now.
        resume: Whether a session that is there goes on.

    Raises:
        OutputError: There is one, and nobody wants to go on with it, or it is of another version.
        ConfigurationError: It began with other settings.
    """
    content = folder.read_session()
    if content is None:
        return None
    if not resume:
        raise OutputError(
            f"--output-dir {folder.path} already holds a session.",
            "Go on with it by --resume, or choose another folder.",
        )
    _check_same(content["configuration"], settings)
    return read_state(content)


def state_of(
    settings: SessionSettings, dataset_fingerprint: str, dtype: str, earlier: SessionState | None
) -> SessionState:
    """The state of a session that begins, or goes on with the data that it began with.

    Args:
        settings: The session's settings.
        dataset_fingerprint: Hash of the data at hand.
        dtype: Type of the base model's weights.
        earlier: What :func:`earlier_state` found.

    Raises:
        ConfigurationError: The data have changed.
    """
    if earlier is None:
        started = time.time()
        identifier = stable_hash([settings.as_json(), dataset_fingerprint, started])
        return SessionState(identifier, settings.as_json(), dataset_fingerprint, dtype, started)
    if earlier.dataset_fingerprint != dataset_fingerprint:
        raise ConfigurationError(
            f"--resume: {settings.data} is not what the session began with.",
            "Restore the data, or choose another --output-dir.",
        )
    earlier.dtype = earlier.dtype or dtype
    return earlier


def _check_same(before: Mapping[str, Any], settings: SessionSettings) -> None:
    """A session goes on only with the configuration it began with."""
    now = settings.as_json()
    # What is computed may not change, nor the store, without which the points that are in it would be lost.
    free = {"output_dir", "keep_gb", "executor"}
    # The threads decide the last bits of every result, and follow from the workers unless they are given.
    if settings.threads is not None:
        free.add("workers")
    # A session of an earlier version began with what are now the defaults of the settings it did not know.
    began = SessionSettings(model="", data="").as_json() | dict(before)
    changed = [name for name in now if name not in free and now[name] != began[name]]
    if changed:
        flags = ", ".join(f"--{FLAGS.get(name, name.replace('_', '-'))}" for name in changed)
        raise ConfigurationError(
            f"--resume: the session began with other values of {flags}.",
            "Give the same values as before, or choose another --output-dir.",
        )
