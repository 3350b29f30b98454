"""Where things are kept that can be made anew."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """``TUNECAST_CACHE``, else the user's cache folder."""
    root = os.environ.get("TUNECAST_CACHE")
    if root:
        return Path(root).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "tunecast"
