"""A worker without a fork, as where a library has started CUDA before the fork."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import workplaces
from tunecast.executors.base import Slot
from tunecast.executors.worker import Opening, receive
from workplaces import Desk, Do


def started(parent: int) -> tuple[subprocess.Popen[bytes], Connection]:
    """A worker of a parent, and the session's end of its connection."""
    ours, theirs = socket.socketpair()
    worker = subprocess.Popen(
        [sys.executable, "-m", "tunecast.executors.worker", str(theirs.fileno()), str(parent)],
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    return worker, Connection(ours.detach())


def test_it_answers_until_its_session_hangs_up(tmp_path: Path) -> None:
    worker, connection = started(parent=os.getpid())
    connection.send(Opening(Desk(str(tmp_path)), {"OWN": "1"}))
    assert isinstance(receive(connection), Slot)
    connection.send(Do(workplaces.put_paper))
    assert receive(connection) == 1
    connection.close()
    assert worker.wait(timeout=60) == 0


def test_it_leaves_when_its_parent_died_before_it_could_look() -> None:
    worker, connection = started(parent=1)
    assert worker.wait(timeout=60) == 1
    connection.close()
