"""A trace of what a session and its workers are doing, for tests that kill them at every moment.

With ``TUNECAST_TRACE=FILE`` in the environment, and this folder in ``PYTHONPATH``, each of these processes
appends a line ``PID PHASE`` to the file whenever its phase changes. A thread reads the phase off the main
thread's stack a few hundred times a second, so that the code under test knows nothing of it. The server that
workers are forked from runs no thread: its workers begin to trace when they are forked.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import FrameType

__all__ = ["PHASES", "VARIABLE", "start_trace"]

VARIABLE = "TUNECAST_TRACE"
SESSION = "tune"
"""A word on the command line of a session."""
SERVER = "tunecast.executors.fork_server"
"""A word on the command line of a process whose forks are workers."""
EVERY_SECONDS = 0.002
PHASES = {
    ("trials.py", "record"): "commit",
    ("session.py", "_save_state"): "commit",
    ("beside_search.py", "measure_parts"): "forecast",
    ("final_evaluation.py", "_deliver"): "export",
    ("tuning.py", "_write_results"): "export",
    ("final_evaluation.py", "compare"): "scoring",
    ("final_evaluation.py", "deliver"): "scoring",
    ("search_loop.py", "_finish_leader"): "final training",
    ("search_loop.py", "_search"): "search",
    ("checkpoint.py", "write"): "checkpoint write",
    ("runner.py", "save"): "export",
    ("runner.py", "score"): "scoring",
    ("runner.py", "measure_speed"): "start",
    ("evaluate.py", "measure"): "evaluation",
    ("live_trial.py", "advance"): "step",
    ("base.py", "answer_to"): "step",
    ("worker.py", "_open"): "start",
    ("worker.py", "serve"): "waiting",
}
"""Phase by file and function; of all functions on the stack the first that is listed here counts."""


def start_trace() -> None:
    """Begin to trace this process, where the environment asks for it and it is a session or a worker."""
    path = os.environ.get(VARIABLE)
    if path and SESSION in sys.orig_argv:
        _start_watching(path)
    elif path and SERVER in sys.orig_argv:
        os.register_at_fork(after_in_child=partial(_watch_worker, path, os.getpid()))


def _watch_worker(path: str, server: int) -> None:
    """Begin to trace a fork of the server; a worker's own forks, which try a template, are none of these."""
    if os.getppid() == server:
        _start_watching(path)


def _start_watching(path: str) -> None:
    threading.Thread(target=_watch, args=(path, threading.main_thread().ident), daemon=True).start()


def _watch(path: str, thread: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    last = ""
    while True:
        phase = _phase(sys._current_frames().get(thread))
        if phase != last:
            os.write(descriptor, f"{os.getpid()} {phase}\n".encode())
            last = phase
        time.sleep(EVERY_SECONDS)


def _phase(frame: FrameType | None) -> str:
    stack = set()
    while frame is not None:
        stack.add((Path(frame.f_code.co_filename).name, frame.f_code.co_name))
        frame = frame.f_back
    return next((phase for place, phase in PHASES.items() if place in stack), "start")
