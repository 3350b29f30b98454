"""Reads and checks the content of ``session.json``, from which a session is resumed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tunecast.errors import ConfigurationError, OutputError
from tunecast.predictor import Prediction
from tunecast.records import Pipeline, stable_hash
from tunecast.results import SessionRecord
from tunecast.session.folder import OutputFolder
from tunecast.session.settings import SessionSettings

FLAGS = {"fixed": "fix", "ranges": "range", "forecast": "no-forecast"}
"""Options whose names differ from their settings'."""


@dataclass(frozen=True)
class Part:
    """A part of the data: its unique examples, and a horizon with as many passes as over all data."""

    unique_examples: int
    full_length_tokens: int


@dataclass(frozen=True)
class SurveyPlan:
    """The measurements that a forecast needs.

    Args:
        leading: Id of the run whose pipeline is measured, empty if no trial was completed.
        parts: Parts of its data, smallest first.
        reason: Reason for having no parts, else empty.
    """

    leading: str
    parts: tuple[Part, ...]
    reason: str


@dataclass
class SessionState:
    """All decisions of a session, which a resumed session keeps.

    None or an empty value means that something is not decided yet.

    Args:
        dataset_fingerprint: Hash of its data.
        dtype: Type of the base model's weights.
        started_at: Seconds since 1970.
        seconds_per_token: Measured training rate of the baseline, before the first trial.
        advised: Recommended candidates, best first.
        predicted: Predicted ends of pipelines by their ids, kept only if gains are weighed against seconds.
        candidates: All candidates; the first is the baseline.
        prior: Identity of the prior that the strategy uses.
        listed: Ids of candidates in the order of a strategy that looks recorded runs up.
        held_back: Amount of the budget, in its unit, reserved for the forecast.
        survey: The measurements for the forecast.
        diagnostics: Doubts about the strategy's predictions, one sentence each.
        record: The result, once the session is complete.
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
        """Return the content of ``session.json``: everything that is decided."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def read_state(content: Mapping[str, Any]) -> SessionState:
    """Build a session's state from the content of ``session.json``.

    Raises:
        OutputError: The content is of another version.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(SessionState).validate_python(dict(content))
    except ValidationError as error:
        raise OutputError(
            f"session.json contains fields that this version cannot read ({error.error_count()}).",
            "Choose another --output-dir.",
        ) from error


def earlier_state(folder: OutputFolder, settings: SessionSettings, resume: bool) -> SessionState | None:
    """Return the state of a session in the folder, None if there is none.

    Raises:
        OutputError: There is a session that is not to be resumed, or it is of another version.
        ConfigurationError: The session began with other settings.
    """
    content = folder.read_session()
    if content is None:
        return None
    if not resume:
        raise OutputError(
            f"--output-dir {folder.path} already holds a session.",
            "Continue it with --resume, or choose another folder.",
        )
    _check_same(content["configuration"], settings)
    return read_state(content)


def state_of(
    settings: SessionSettings, dataset_fingerprint: str, dtype: str, earlier: SessionState | None
) -> SessionState:
    """Return the state of a session that begins, or continues with the data it began with.

    Raises:
        ConfigurationError: The data have changed.
    """
    if earlier is None:
        started = time.time()
        identifier = stable_hash([settings.as_json(), dataset_fingerprint, started])
        return SessionState(identifier, settings.as_json(), dataset_fingerprint, dtype, started)
    if earlier.dataset_fingerprint != dataset_fingerprint:
        raise ConfigurationError(
            f"--resume: {settings.data} is not the data that the session began with.",
            "Restore the data, or choose another --output-dir.",
        )
    return earlier


def _check_same(before: Mapping[str, Any], settings: SessionSettings) -> None:
    """Check that a session continues with the configuration it began with."""
    now = settings.as_json()
    # Results must not change, and neither may the store, or the points in it would be lost.
    free = {"output_dir", "keep_gb", "executor"}
    # The number of threads decides the last bits of every result, and follows from the workers by default.
    if settings.threads is not None:
        free.add("workers")
    # Settings that an earlier version did not have count as their present defaults.
    began = SessionSettings(model="", data="").as_json() | dict(before)
    changed = [name for name in now if name not in free and now[name] != began[name]]
    if changed:
        flags = ", ".join(f"--{FLAGS.get(name, name.replace('_', '-'))}" for name in changed)
        raise ConfigurationError(
            f"--resume: the session began with other values of {flags}.",
            "Give the same values as before, or choose another --output-dir.",
        )
