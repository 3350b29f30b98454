"""Executors that start once and open one workplace after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tunecast.executors import EXECUTORS, start_executor
from tunecast.executors import local as local_module
from tunecast.executors.base import Executor
from tunecast.executors.fork_server import ForkServer
from tunecast.executors.local import LocalExecutor
from workplaces import Desk


@pytest.fixture(autouse=True, scope="package")
def _executors_close_their_servers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_module, "ForkServer", ForkServer)
        yield


@pytest.fixture(scope="package")
def processes(_executors_close_their_servers: None) -> Iterator[LocalExecutor]:
    """An executor of two worker processes that has opened nothing, or something else."""
    with LocalExecutor(2, 1) as started:
        yield started


@pytest.fixture
def local(processes: LocalExecutor, tmp_path: Path) -> LocalExecutor:
    """Two worker processes at a desk."""
    processes.open(Desk(str(tmp_path)))
    return processes


@pytest.fixture(params=EXECUTORS)
def started(request: pytest.FixtureRequest, processes: LocalExecutor) -> Iterator[Executor]:
    """An executor of two slots that has opened nothing."""
    if request.param == "local":
        yield processes
    else:
        with start_executor(request.param, 2, 1) as executor:
            yield executor


@pytest.fixture
def executor(started: Executor, tmp_path: Path) -> Executor:
    """An executor of two slots at a desk."""
    started.open(Desk(str(tmp_path)))
    return started
