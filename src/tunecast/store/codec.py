"""JSON that every database stores and returns exactly, including NaN and infinity.

A diverged run has losses that JSON cannot express, and PostgreSQL refuses Python's ``NaN``. They are written
as ``{"$float": "nan"}``; all other floats keep Python's shortest exact form.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from tunecast.untrusted import parse_json

_MARK = "$float"


def dumps(value: Any, *, sort_keys: bool = False) -> str:
    """Write ``value`` as strict JSON text; ``sort_keys`` for a hash.

    Raises:
        TypeError: It contains something other than mappings with string keys, sequences, strings, numbers
            (also NaN, infinity), booleans and None.
    """
    try:
        return _strict(value, sort_keys)
    except ValueError:
        return _strict(_marked(value), sort_keys)


def loads(text: str | bytes) -> Any:
    """Parse the output of :func:`dumps`.

    Raises:
        ValueError: The text is not JSON, or is beyond the limits of :mod:`tunecast.untrusted`.
    """
    marked = _MARK in text if isinstance(text, str) else _MARK.encode() in text
    return parse_json(text, _unmarked if marked else None)


def for_others(value: Any) -> Any:
    """Replace numbers that are not finite by None, for readers of plain JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: for_others(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [for_others(inner) for inner in value]
    return value


def _strict(value: Any, sort_keys: bool) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"), default=_plain, sort_keys=sort_keys)


def _plain(value: Any) -> Any:
    """Convert the types that ``json`` refuses: read-only mappings and numpy's scalars."""
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON: {value!r}")


def _marked(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {_MARK: repr(float(value))}
    if isinstance(value, Mapping):
        return {key: _marked(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_marked(inner) for inner in value]
    return value


def _unmarked(value: dict[str, Any]) -> Any:
    return float(value[_MARK]) if value.keys() == {_MARK} else value
