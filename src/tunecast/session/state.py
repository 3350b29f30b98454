"""What ``session.json`` holds, and whether a session may go on from it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from tunecast.errors import ConfigurationError, OutputError
from tunecast.records import SessionRecord, stable_hash
from tunecast.session.folder import OutputFolder
from tunecast.session.settings import SessionSettings

__all__ = ["earlier_state", "read_record", "state_of"]

FLAGS = {"fixed": "fix", "ranges": "range", "forecast": "no-forecast"}
"""Flags of settings that are not called like them."""


def earlier_state(folder: OutputFolder, settings: SessionSettings, resume: bool) -> dict[str, Any] | None:
    """What ``session.json`` of a session in the folder holds; None where there is none.

    Args:
        folder: The locked output folder.
        settings: What is asked for now.
        resume: Whether a session that is there goes on.

    Raises:
        OutputError: There is one, and nobody wants to go on with it.
        ConfigurationError: It began with other settings.
    """
    state = folder.read_session()
    if state is None:
        return None
    if not resume:
        raise OutputError(
            f"--output-dir {folder.path} already holds a session.",
            "Go on with it by --resume, or choose another folder.",
        )
    _check_same(state["configuration"], settings)
    return state


def state_of(
    settings: SessionSettings, dataset_fingerprint: str, dtype: str, earlier: dict[str, Any] | None
) -> dict[str, Any]:
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
        return {
            "id": stable_hash([settings.as_json(), dataset_fingerprint, started]),
            "configuration": settings.as_json(),
            "dataset_fingerprint": dataset_fingerprint,
            "dtype": dtype,
            "started_at": started,
        }
    if earlier["dataset_fingerprint"] != dataset_fingerprint:
        raise ConfigurationError(
            f"--resume: {settings.data} is not what the session began with.",
            "Restore the data, or choose another --output-dir.",
        )
    return {"dtype": dtype, **earlier}  # which an earlier version did not keep


def read_record(content: Mapping[str, Any]) -> SessionRecord:
    """A session's record from its JSON.

    Raises:
        OutputError: The JSON is of another version.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(SessionRecord).validate_python(content)
    except ValidationError as error:
        raise OutputError(
            f"session.json holds a record that this version cannot read ({error.error_count()} fields).",
            "Choose another --output-dir.",
        ) from error


def _check_same(before: Mapping[str, Any], settings: SessionSettings) -> None:
    """A session goes on only with the configuration it began with."""
    now = settings.as_json()
    # What is computed may not change, nor the store, without which the points that are in it would be lost.
    free = {"output_dir", "keep_gb"}
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
