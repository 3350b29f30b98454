"""Where things are kept that can be made anew."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

__all__ = ["cache_folder", "written_whole"]


def cache_folder() -> Path:
    """``TUNECAST_CACHE``, else the user's cache folder; that of a user without a home is a temporary one."""
    root = os.environ.get("TUNECAST_CACHE")
    try:
        if root:
            return Path(root).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "tunecast"
    except RuntimeError:  # no home folder can be determined
        return Path(tempfile.gettempdir()) / f"tunecast-{os.getuid() if hasattr(os, 'getuid') else 0}"


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A file to write that takes the place of ``path`` once it is finished.

    So whoever else reads ``path`` meanwhile, or after a kill, finds all of it or nothing.

    Raises:
        OSError: The folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
