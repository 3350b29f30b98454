"""Reads zip archives that others wrote, within limits: DOCX and EPUB files are such archives."""

from __future__ import annotations

import zipfile
from pathlib import Path

from tunecast.errors import DataError

MAX_FILES = 20_000
"""Maximum number of files in an archive; an EPUB has a few per chapter."""
MAX_UNPACKED_BYTES = 300_000_000
"""Maximum bytes of all files together."""
MAX_RATIO = 200
"""Maximum bytes that one packed byte may stand for. Text shrinks to a tenth; zip bombs to a thousandth."""
ALWAYS_UNPACKED_BYTES = 1_000_000
"""Archives that unpack to less are harmless at any ratio."""


def checked_archive(path: Path) -> zipfile.ZipFile:
    """Open a zip archive whose directory states sizes within the limits.

    ``zipfile`` never unpacks more of a file than the directory states, so a false size does no harm.

    Raises:
        DataError: The file is no zip archive, is encrypted, or is beyond a limit.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError) as error:
        raise DataError(f"{path} is damaged: {error}.", "Save or download it again.") from None
    files = archive.infolist()
    unpacked = sum(file.file_size for file in files)
    packed = path.stat().st_size
    if len(files) > MAX_FILES:
        reason = f"it holds {len(files):,} files; {MAX_FILES:,} are the most"
    elif unpacked > MAX_UNPACKED_BYTES:
        reason = f"it unpacks to {unpacked:,} bytes; {MAX_UNPACKED_BYTES:,} are the most"
    elif unpacked > ALWAYS_UNPACKED_BYTES and unpacked > MAX_RATIO * packed:
        reason = f"{packed:,} bytes unpack to {unpacked:,}, as in a zip bomb"
    elif any(file.flag_bits & 1 for file in files):
        reason = "it is encrypted"
    else:
        return archive
    archive.close()
    raise DataError(f"{path} is not read: {reason}.", "Export the document as text or Markdown.")
