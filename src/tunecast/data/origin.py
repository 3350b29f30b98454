"""Where synthetic pairs come from, as ``tunecast synth`` wrote it beside them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tunecast.untrusted import Malformed, read_json

REPORT_SUFFIX = ".synth.json"
"""End of the name of a synthesis's report, beside the pairs."""
MAX_NAMES = 50
"""Document names that are kept; further ones are only counted."""
MAX_CHARACTERS = 20_000
"""Longest prompt that is kept."""


def read_origin(data: Path) -> dict[str, Any] | None:
    """Return what made a file of pairs, None if no readable report stands beside it.

    Returns:
        JSON: ``made_by`` (pairs by recipe or model), ``documents`` (names, at most :data:`MAX_NAMES`),
        ``documents_read`` (their number), ``dropped`` (pairs by reason), ``prompts`` (texts by name, empty if
        no model wrote) and ``changed`` (whether the file was changed since).
    """
    try:
        report = read_json(data.with_name(data.stem + REPORT_SUFFIX))
        digest = hashlib.sha256(data.read_bytes()).hexdigest()
    except (OSError, Malformed):
        return None
    if not isinstance(report, dict):
        return None
    documents = report.get("documents")
    names = [name for name in documents if isinstance(name, str)] if isinstance(documents, list) else []
    return {
        "made_by": _counts(report.get("made_by")),
        "documents": names[:MAX_NAMES],
        "documents_read": len(names),
        "dropped": _counts(report.get("dropped")),
        "prompts": {name: text[:MAX_CHARACTERS] for name, text in _texts(report.get("prompts")).items()},
        "changed": report.get("pairs_sha256") != digest,
    }


def _counts(value: Any) -> dict[str, int]:
    items = value.items() if isinstance(value, dict) else ()
    return {name: count for name, count in items if isinstance(count, int)}


def _texts(value: Any) -> dict[str, str]:
    items = value.items() if isinstance(value, dict) else ()
    return {name: text for name, text in items if isinstance(text, str)}
