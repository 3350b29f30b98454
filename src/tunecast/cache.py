"""The folder for files that can be recreated, and JSON values in it."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from tunecast.atomic import written_whole


def cache_folder() -> Path:
    """Return ``TUNECAST_CACHE``, else the user's cache folder, or a temporary one for a user without a
    home."""
    root = os.environ.get("TUNECAST_CACHE")
    try:
        if root:
            return Path(root).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "tunecast"
    except RuntimeError:  # no home folder can be determined
        return Path(tempfile.gettempdir()) / f"tunecast-{os.getuid() if hasattr(os, 'getuid') else 0}"


def read_cached(file: Path) -> Any:
    """Read the JSON value that :func:`write_cached` kept; None if the file is missing or damaged."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_cached(file: Path, value: Any) -> None:
    """Keep a JSON value in a file, creating its folder; do nothing if the cache cannot be written."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(file) as unfinished:
            unfinished.write_text(json.dumps(value, default=dict), encoding="utf-8")
