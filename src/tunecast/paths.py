"""Expands paths as a user writes them."""

from __future__ import annotations

import os.path
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """Expand ``~`` to a home folder.

    For an unknown user the path stays unchanged, so that it is later reported as missing by its name.
    ``Path.expanduser`` would raise a RuntimeError without the name.
    """
    return Path(os.path.expanduser(path))
