"""Reads ``session.json`` files that Tunecast 0.1.0 wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RENAMED_FIELDS = {"foretold": "predicted", "doubts": "diagnostics"}
RENAMED_STRATEGIES = {"fixed-expert": "fixed-baseline"}
RENAMED_CONTENDERS = {"expert": "baseline"}


def with_current_names(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a session's content under the names of this version.

    Args:
        content: What ``session.json`` holds; content of this version comes back unchanged.
    """
    current = {RENAMED_FIELDS.get(name, name): value for name, value in content.items()}
    current["configuration"] = _with_current_strategy(current["configuration"])
    if isinstance(record := current.get("record"), Mapping):
        current["record"] = _with_current_contenders(record)
    return current


def _with_current_strategy(holder: Mapping[str, Any]) -> dict[str, Any]:
    strategy = holder.get("strategy")
    if not isinstance(strategy, str):
        return dict(holder)
    return {**holder, "strategy": RENAMED_STRATEGIES.get(strategy, strategy)}


def _with_current_contenders(record: Mapping[str, Any]) -> dict[str, Any]:
    current = _with_current_strategy(record)
    current["winner"] = RENAMED_CONTENDERS.get(current.get("winner", ""), current.get("winner"))
    current["contenders"] = [
        {**contender, "name": RENAMED_CONTENDERS.get(contender["name"], contender["name"])}
        for contender in current.get("contenders", ())
    ]
    if isinstance(configuration := current.get("configuration"), Mapping):
        current["configuration"] = _with_current_strategy(configuration)
    return current
