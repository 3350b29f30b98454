"""Files that are replaced in one step: whoever reads one finds all of it, old or new.

The pages that a user asks a command for are written so too, and checked before the work that fills them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from tunecast.errors import OutputError


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


def check_writable(path: Path, flag: str) -> None:
    """Refuse a file that could not be written, before the work whose outcome it is for.

    Args:
        path: The file; folders on the way to it are made.
        flag: The option that names it, such as ``--plot``.

    Raises:
        OutputError: It cannot be written, or is a folder or a device.
    """
    try:
        path = path.resolve()  # of a link it is the target that is written
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "it is a folder or a device")
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _refused(path, flag, error) from error


def write_page(path: Path, text: str, flag: str) -> None:
    """Write a page that a user asked for; an older one is replaced in one step.

    Args:
        path: The file; folders on the way to it are made.
        text: All of it.
        flag: The option that names it, such as ``--plot``.

    Raises:
        OutputError: It cannot be written.
    """
    check_writable(path, flag)
    try:
        with written_whole(path.resolve()) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _refused(path, flag, error) from error


def _refused(path: Path, flag: str, error: OSError) -> OutputError:
    return OutputError(
        f"{flag} {path} cannot be written: {error.strerror}.", "Name a file in another folder."
    )
