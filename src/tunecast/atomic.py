"""Files that are replaced in one step: whoever reads one finds all of it, old or new."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

__all__ = ["written_whole"]


@contextlib.contextmanager
def written_whole(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A file to write that takes the place of ``path`` once it is finished.

    So whoever else reads ``path`` meanwhile, or after a kill, finds all of it or nothing.

    Args:
        path: The file, in a folder that there is.
        durable: Whether its content is on the disk before it takes its place, so that a power cut leaves one
            of the two as well.

    Raises:
        OSError: The folder cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        yield unfinished
        if durable:
            with unfinished.open("rb+") as file:
                os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        with contextlib.suppress(OSError):  # what went wrong before is what has to be told
            unfinished.unlink(missing_ok=True)
