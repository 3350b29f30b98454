"""Executors, whose workers hold the base model and answer requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunecast.errors import ConfigurationError

if TYPE_CHECKING:
    from tunecast.executors.base import Executor

__all__ = ["EXECUTORS", "EXECUTOR_NAMES", "check_executor", "start_executor"]

EXECUTORS = ("local", "in-process")
EXECUTOR_NAMES = " or ".join(EXECUTORS)
"""The executors as help texts and messages name them."""


def check_executor(name: str) -> None:
    """Refuse the name of an executor that does not exist.

    Raises:
        ConfigurationError: It does not exist.
    """
    if name not in EXECUTORS:
        raise ConfigurationError(f"--executor: there is no {name!r}.", f"Use {EXECUTOR_NAMES}.")


def start_executor(name: str, workers: int, threads: int, inherited: Sequence[int] = ()) -> Executor:
    """Start an executor, which loads everything that needs no workplace in the background.

    ``inherited`` file descriptors, such as the lock of an output folder, stay open in local worker processes.

    Raises:
        ConfigurationError: There is no executor of that name.
    """
    check_executor(name)
    if name == "in-process":
        from tunecast.executors.in_process import InProcessExecutor

        return InProcessExecutor(workers)
    from tunecast.executors.local import LocalExecutor

    return LocalExecutor(workers, threads, inherited)
