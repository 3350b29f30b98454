"""Opens the writer that a user names: an address or a model."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tunecast.synth.writers.writer import Writer

KEY = "TUNECAST_WRITER_KEY"
"""Environment variable of the server's key, so that no key stands in a command line or a file."""


@dataclass(frozen=True)
class WriterSettings:
    """The writer and how it is asked.

    Args:
        reference: A model as for ``--model``, or the address of a server such as ``http://localhost:8000/v1``.
        model: The model to ask a server for, empty for the first that it lists.
        at_once: Requests to a server at the same time.
        per_minute: Most requests a minute to a server, 0 for no limit.
        timeout: Seconds to wait for one answer of a server.
    """

    reference: str
    model: str = ""
    at_once: int = 4
    per_minute: int = 0
    timeout: float = 120.0


def open_writer(settings: WriterSettings, device: str) -> Writer:
    """Load the model, or connect to the server.

    Args:
        device: Where a model on this machine computes: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ModelError: There is no such model, or no server that answers.
        ConfigurationError: A library is missing, or the address is wrong.
    """
    if settings.reference.startswith(("http://", "https://")):
        from tunecast.synth.writers.server import ServerWriter

        return ServerWriter(
            settings.reference,
            os.environ.get(KEY, ""),
            model=settings.model,
            at_once=settings.at_once,
            per_minute=settings.per_minute,
            timeout=settings.timeout,
        )
    from tunecast.synth.writers.local import LocalWriter

    return LocalWriter(settings.reference, device)
