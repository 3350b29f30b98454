"""The folder for files that can be recreated."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


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
