"""Counts the characters of a text by script and kind."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

# First code point and kind of each range; a range ends where the next one begins. The kind "code" covers
# brackets and the signs + / < = > \ ^ _ ` | ~
# fmt: off
_RANGES: tuple[tuple[int, str], ...] = (
    (0x00, "other"), (0x09, "white_space"), (0x0A, "line_break"), (0x0B, "white_space"), (0x0E, "other"),
    (0x20, "white_space"), (0x21, "punctuation"), (0x28, "code"), (0x2A, "punctuation"), (0x2B, "code"),
    (0x2C, "punctuation"), (0x2F, "code"), (0x30, "digit"), (0x3A, "punctuation"), (0x3C, "code"),
    (0x3F, "punctuation"), (0x41, "latin_upper"), (0x5B, "code"), (0x61, "latin_lower"), (0x7B, "code"),
    (0x7F, "other"), (0xA0, "white_space"), (0xA1, "punctuation"), (0xC0, "latin_lower"), (0x250, "other"),
    (0x370, "greek"), (0x400, "cyrillic"), (0x530, "other"), (0x590, "hebrew"), (0x600, "arabic"),
    (0x780, "other"), (0x900, "indic"), (0xE00, "thai"), (0xE80, "other"), (0x1100, "hangul"),
    (0x1200, "other"), (0x1E00, "latin_lower"), (0x1F00, "greek"), (0x2000, "punctuation"),
    (0x2070, "symbol"), (0x3000, "punctuation"), (0x3040, "kana"), (0x3100, "other"), (0x3400, "han"),
    (0xA000, "other"), (0xAC00, "hangul"), (0xD7B0, "other"), (0xF900, "han"), (0xFB00, "other"),
    (0x1F000, "symbol"), (0x1FB00, "other"), (0x20000, "han"), (0x323B0, "other"),
)
# fmt: on

SCRIPTS: Mapping[str, tuple[str, ...]] = {
    "latin": ("latin_upper", "latin_lower"),
    "cyrillic": ("cyrillic",),
    "east_asian": ("han", "kana", "hangul"),
    "right_to_left": ("arabic", "hebrew"),
    "other_script": ("greek", "indic", "thai", "other"),
}
"""Families of scripts, and the kinds of character in each."""

KINDS = tuple(dict.fromkeys(name for _, name in _RANGES))
_STARTS = np.array([start for start, _ in _RANGES], dtype=np.uint32)
_KIND_OF_RANGE = np.array([KINDS.index(name) for _, name in _RANGES])


def count_characters(text: str) -> dict[str, int]:
    """Count the characters of ``text`` by kind, leaving out kinds that do not occur.

    Accented Latin letters count as lower case, because telling them apart would take a look at each one.
    """
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    # Only distinct code points need to be searched in the ranges.
    distinct, counts = np.unique(points, return_counts=True)
    kinds = _KIND_OF_RANGE[np.searchsorted(_STARTS, distinct, side="right") - 1]
    totals = np.bincount(kinds, weights=counts, minlength=len(KINDS))
    return {name: int(total) for name, total in zip(KINDS, totals, strict=True) if total}
