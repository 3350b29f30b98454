"""Paths as a user writes them."""

from __future__ import annotations

import os.path
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """A path whose ``~`` is a home folder.

    That of a user nobody knows stays as it is, so that the path is reported as missing by its name;
    ``Path.expanduser`` would raise a RuntimeError that names nothing.
    """
    return Path(os.path.expanduser(path))
