from __future__ import annotations

import socket
import struct
import subprocess
import sys


def started(parent: int) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A worker that believes in a parent, and the session's end of its connection."""
    ours, theirs = socket.socketpair()
    worker = subprocess.Popen(
        [sys.executable, "-m", "tunecast.executors.worker", str(theirs.fileno()), str(parent)],
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    return worker, ours


def test_worker_leaves_when_its_parent_died_before_it_could_look() -> None:
    worker, connection = started(parent=1)
    with connection:
        assert worker.wait(timeout=60) == 1


def test_worker_leaves_when_its_session_hangs_up() -> None:
    import os

    worker, connection = started(parent=os.getpid())
    connection.close()
    assert worker.wait(timeout=60) == 0


def test_worker_leaves_when_its_session_dies_in_the_middle_of_a_request() -> None:
    import os

    worker, connection = started(parent=os.getpid())
    connection.sendall(struct.pack("!i", 1000) + b"x" * 10)
    connection.close()
    assert worker.wait(timeout=60) == 0
