"""Writes JSON lines: one object a line, the format of every dataset that Tunecast makes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tunecast.errors import OutputError

SUFFIX = ".jsonl"


def check_name(path: Path, flag: str) -> None:
    """Check that a file is named as one of JSON lines, so that it is read back as such.

    Args:
        flag: The option that names it, such as ``--output``.

    Raises:
        OutputError: It is not.
    """
    if path.suffix != SUFFIX:
        raise OutputError(
            f"{flag} {path} does not end in {SUFFIX}.",
            f"Name it {path.with_suffix(SUFFIX).name}, for example.",
        )


def json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return rows as lines of JSON."""
    return encoded("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def encoded(text: str) -> bytes:
    """Return a text of JSON in UTF-8.

    Half of a pair of surrogates, which some PDFs and tables have, has no form in UTF-8. It is written as
    JSON's escape, so that it is read back as it was.
    """
    return text.encode("utf-8", errors="backslashreplace")
