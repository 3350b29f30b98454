"""Tunecast picks the right finetuning for an LLM and runs it.

The functions of :mod:`tunecast.api` are available here. Each is imported at its first use, so that importing
the package stays instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tunecast.version import VERSION as __version__

if TYPE_CHECKING:
    from tunecast.api import evaluate, export, export_gguf, merge, predict, push, recommend, train, tune
    from tunecast.recommender.question import Question
    from tunecast.records import Pipeline
    from tunecast.session.settings import SessionSettings

__all__ = [
    "Pipeline",
    "Question",
    "SessionSettings",
    "__version__",
    "evaluate",
    "export",
    "export_gguf",
    "merge",
    "predict",
    "push",
    "recommend",
    "train",
    "tune",
]

_HOMES = {
    "Pipeline": "tunecast.records",
    "Question": "tunecast.recommender.question",
    "SessionSettings": "tunecast.session.settings",
}
"""Modules of the names that are not in :mod:`tunecast.api`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'tunecast' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES.get(name, "tunecast.api")), name)


def __dir__() -> list[str]:
    """Return the public names, so that tab completion shows them before their first use."""
    return sorted({*globals(), *__all__})
