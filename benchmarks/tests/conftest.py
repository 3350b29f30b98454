"""Shares the fixtures of the package's tests."""

from __future__ import annotations

from collect.conftest import roots, small_world, write_plan
from conftest import (
    finished_session,
    pytest_collection_modifyitems,
    pytest_runtest_protocol,
    tiny_llama,
    toy_data,
)

__all__ = [
    "finished_session",
    "pytest_collection_modifyitems",
    "pytest_runtest_protocol",
    "roots",
    "small_world",
    "tiny_llama",
    "toy_data",
    "write_plan",
]
