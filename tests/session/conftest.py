"""A prepared task on the tiny Llama, shared by the tests of a session's parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunecast.progress import Silent
from tunecast.session.prepare import PreparedTask, prepare_task
from tunecast.session.settings import SessionSettings


@pytest.fixture(scope="session")
def settings(tiny_llama: Path, toy_data: Path) -> SessionSettings:
    return SessionSettings(model=str(tiny_llama), data=str(toy_data), threads=1)


@pytest.fixture(scope="session")
def prepared(settings: SessionSettings) -> PreparedTask:
    return prepare_task(settings, Silent())
