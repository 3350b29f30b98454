"""Paths of the published tables, on machines that have them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def published_tables() -> dict[str, str]:
    """Path by name; the folder is named by TUNECAST_SCALING_TABLES, and nothing is required to be there."""
    folder = Path(os.environ.get("TUNECAST_SCALING_TABLES", "nowhere"))
    return {path.stem: str(path) for path in folder.glob("*.csv")}
