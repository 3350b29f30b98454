"""Migration of ``session.json`` files that earlier versions of Tunecast wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunecast.store.record_names import current_record, current_strategy

RENAMED_FIELDS = {"advised": "recommended", "foretold": "predicted", "doubts": "diagnostics"}


def with_current_names(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of ``session.json`` under the names of this version."""
    current = {RENAMED_FIELDS.get(name, name): value for name, value in content.items()}
    current["configuration"] = current_strategy(current["configuration"])
    if isinstance(record := current.get("record"), Mapping):
        current["record"] = current_record(record)
    return current
