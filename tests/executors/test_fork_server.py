"""The server that workers are forked from, and how it ends."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from kills import still_alive
from tunecast.executors.fork_server import ForkServer

ORPHAN_SECONDS = 5.0
KILLED_PARENT = """
import sys, time
from kills import still_alive
from tunecast.executors.fork_server import ForkServer
server = ForkServer({})
connection, process = server.fork()
if sys.argv[1] == "ready":
    process._read(1, None)
print(server._process.pid, *process._numbers, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    started = ForkServer({"OMP_NUM_THREADS": "1"})
    yield started
    started.close()


def test_a_worker_leaves_when_its_session_hangs_up(server: ForkServer) -> None:
    connection, process = server.fork()
    connection.close()
    assert process.exit_code(60) == 0
    assert process.exit_code() == 0, "it is known from now on"


def test_a_worker_leaves_when_its_session_dies_in_the_middle_of_a_request(server: ForkServer) -> None:
    connection, process = server.fork()
    os.write(connection.fileno(), struct.pack("!i", 1000) + b"x" * 10)
    connection.close()
    assert process.exit_code(60) == 0


def test_a_signal_is_told(server: ForkServer) -> None:
    connection, process = server.fork()
    assert process.exit_code(0.0) is None
    while not process.is_started:
        pass
    process.send_signal(signal.SIGTERM)
    assert process.exit_code(60) == -signal.SIGTERM
    process.send_signal(signal.SIGTERM)  # to nobody
    connection.close()


def test_the_server_has_imported_libraries_and_runs_no_thread(server: ForkServer) -> None:
    connection, process = server.fork()
    connection.close()
    process.exit_code(60)
    found = psutil.Process(server._process.pid)
    assert found.num_threads() == 1
    assert any("libtorch" in mapped.path for mapped in found.memory_maps())


def test_a_worker_alone_holds_the_lock_it_inherits(server: ForkServer, tmp_path: Path) -> None:
    file = tmp_path / "lock"
    lock, second = (os.open(file, os.O_RDWR | os.O_CREAT) for _ in range(2))
    fcntl.flock(lock, fcntl.LOCK_EX)
    connection, process = server.fork([lock])
    os.close(lock)
    while not process.is_started:
        time.sleep(0.01)
    with pytest.raises(BlockingIOError):
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    connection.close()
    assert process.exit_code(60) == 0
    fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(second)


def test_closing_ends_a_server_that_still_imports(server: ForkServer) -> None:
    young = ForkServer({})
    connection, process = young.fork()
    young.close()
    assert not young.is_alive
    assert not process.is_started
    assert process.exit_code(5.0) == 1
    connection.close()


@pytest.mark.parametrize("moment", ["ready", "importing"])
def test_nothing_outlives_a_killed_session(moment: str) -> None:
    session = subprocess.Popen(
        [sys.executable, "-c", KILLED_PARENT, moment], stdout=subprocess.PIPE, text=True
    )
    assert session.stdout is not None
    processes = [psutil.Process(int(pid)) for pid in session.stdout.readline().split()]
    assert len(processes) == (2 if moment == "ready" else 1)
    if moment == "ready":
        processes[1].suspend()  # as in a collection's pause
    session.kill()
    session.wait()
    assert still_alive(processes, ORPHAN_SECONDS) == []


def test_a_worker_is_a_new_interpreter_where_a_library_has_started_cuda(tmp_path: Path) -> None:
    """Without a device, sets the flag that torch sets in a fork of a process that has started CUDA."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if any('fork_server' in word for word in sys.orig_argv):\n"
        "    import torch\n"
        "    torch._C._cuda_isInBadFork = lambda: True\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    server = ForkServer({"OMP_NUM_THREADS": "1", "PYTHONPATH": path})
    connection, process = server.fork()
    while not process.is_started:
        time.sleep(0.1)
    worker = psutil.Process(process._numbers[0])
    while "tunecast.executors.worker" not in worker.cmdline():
        time.sleep(0.1)
    connection.close()
    assert process.exit_code(60) == 0
    server.close()


def test_a_server_that_cannot_import_its_libraries_still_starts_workers(tmp_path: Path) -> None:
    (tmp_path / "peft.py").write_text("raise ImportError('a broken installation')\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    server = ForkServer({"OMP_NUM_THREADS": "1", "PYTHONPATH": path})
    connection, process = server.fork()
    connection.close()
    assert process.exit_code(60) == 0
    server.close()
