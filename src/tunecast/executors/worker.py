"""The worker process: opens its workplace (loads a base model) and answers requests until its parent is gone.

Started as ``python -m tunecast.executors.worker FD PARENT``, with one end of a socket and its parent's
process id, so that it depends neither on the parent's main module nor on its memory.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import warnings
from multiprocessing.connection import Connection
from typing import Any

from tunecast.errors import UserError
from tunecast.executors.requests import Broken, Ready, Request, receive

ORPHAN_POLL_SECONDS = 0.5


def main(descriptor: int, parent: int) -> None:
    """Serve requests of the process ``parent`` that come over ``descriptor``; the first is the workplace."""
    _die_with(parent)
    # Libraries warn each other of what they will rename; the user can do nothing about it.
    warnings.simplefilter("ignore", FutureWarning)
    connection: Connection = Connection(descriptor)
    try:
        workplace = receive(connection)
        started = time.perf_counter()
        answer: Any
        try:
            opened, answer = _loaded(workplace, started)
        except Exception as error:  # the session is told whatever keeps the model from loading
            connection.send(_broken(error))
            return
        connection.send(answer)
        while (request := receive(connection)) is not None:
            connection.send(_answer(opened, request))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the session is gone


def _loaded(workplace: Any, started: float) -> tuple[Any, Ready]:
    # What comes now stays, half a million objects of libraries. To look for garbage among them takes a fifth
    # of the time in which they load, and is done again after every trial.
    gc.disable()
    import torch

    from tunecast.hardware.machine import current_versions, measure_machine

    torch.set_num_threads(workplace.threads)
    machine = measure_machine(
        workplace.device, workplace.threads
    )  # before the model takes what memory there is
    opened = workplace.open()
    gc.freeze()
    gc.enable()
    return opened, Ready(machine, current_versions(), time.perf_counter() - started)


def _answer(opened: Any, request: Request) -> Any:
    try:
        return request.perform(opened)
    except Exception as error:  # the session decides what a broken request means
        return _broken(error)


def _broken(error: Exception) -> Broken:
    if isinstance(error, UserError):
        return Broken(type(error).__name__, error.what, False, error.hint)
    from tunecast.training.failures import is_out_of_memory

    memory = is_out_of_memory(error)
    return Broken(type(error).__name__, str(error), isinstance(error, OSError) and not memory, memory=memory)


def _die_with(parent: int) -> None:
    """Leave when the parent's process is gone, even in the middle of a step."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(ORPHAN_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
    sys.stderr.flush()
    os._exit(0)  # taking torch apart in good order takes a second that nobody has after a kill
