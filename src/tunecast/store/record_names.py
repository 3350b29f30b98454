"""Current names for the records of earlier sessions, in stores and in ``session.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STRATEGIES = {"fixed-expert": "fixed-baseline", "advised": "transfer"}
"""Current names of strategies by earlier ones; ``advised`` became part of ``transfer``."""
CONTENDERS = {"expert": "baseline"}


def current_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a session's record under the names of this version.

    Args:
        record: A session's document; one of this version comes back unchanged.
    """
    current = current_strategy(record)
    if isinstance(winner := record.get("winner"), str):
        current["winner"] = CONTENDERS.get(winner, winner)
    if "contenders" in record:
        current["contenders"] = [
            {**contender, "name": CONTENDERS.get(contender["name"], contender["name"])}
            for contender in record["contenders"]
        ]
    if isinstance(configuration := record.get("configuration"), Mapping):
        current["configuration"] = current_strategy(configuration)
    return current


def current_strategy(holder: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record or a configuration with the current name of its strategy."""
    strategy = holder.get("strategy")
    if not isinstance(strategy, str):
        return dict(holder)
    return {**holder, "strategy": STRATEGIES.get(strategy, strategy)}
