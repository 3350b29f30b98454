"""Executors, whose workers hold the base model and answer requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunecast.errors import ConfigurationError

if TYPE_CHECKING:
    from tunecast.executors.base import Executor

__all__ = [
    "ELSEWHERE",
    "EXECUTORS",
    "EXECUTOR_NAMES",
    "HERE",
    "HERE_NAMES",
    "MeetingPlace",
    "check_executor",
    "start_executor",
]

HERE = ("local", "in-process")
HERE_NAMES = " or ".join(HERE)
"""Executors whose workers run on this machine."""
ELSEWHERE = ("ray", "queue")
"""Executors whose workers may be on other machines, and need a :class:`MeetingPlace`."""
EXECUTORS = (*HERE, *ELSEWHERE)
EXECUTOR_NAMES = f"{', '.join(EXECUTORS[:-1])} or {EXECUTORS[-1]}"
"""The executors as help texts and messages name them."""


@dataclass(frozen=True)
class MeetingPlace:
    """Where a session meets workers that were started elsewhere.

    Args:
        store: Path or URL of the store.
        shared_dir: Folder that all machines see under the same path.
        tell: Shows the user a line, such as that workers are waited for.
        ray_address: Address of a Ray cluster; see :class:`~tunecast.executors.ray.RayExecutor`.
    """

    store: str
    shared_dir: Path
    tell: Callable[[str], None]
    ray_address: str = ""


def check_executor(name: str) -> None:
    """Refuse the name of an executor that does not exist.

    Raises:
        ConfigurationError: It does not exist.
    """
    if name not in EXECUTORS:
        raise ConfigurationError(f"--executor: there is no {name!r}.", f"Use {EXECUTOR_NAMES}.")


def start_executor(
    name: str, workers: int, threads: int, inherited: Sequence[int] = (), meeting: MeetingPlace | None = None
) -> Executor:
    """Start an executor, which loads everything that needs no workplace in the background.

    ``inherited`` file descriptors, such as the lock of an output folder, stay open in local worker processes.
    ``meeting`` is for workers that were started elsewhere.

    Raises:
        ConfigurationError: There is no executor of that name, or it needs a place to meet its workers.
        StoreError: The store of that place cannot be used.
    """
    check_executor(name)
    if name == "in-process":
        from tunecast.executors.in_process import InProcessExecutor

        return InProcessExecutor(workers)
    if name in ELSEWHERE:
        if meeting is None:
            raise ConfigurationError(
                f"--executor {name}: this command runs on this machine only.", f"Use {HERE_NAMES}."
            )
        return _start_elsewhere(name, workers, meeting)
    from tunecast.executors.local import LocalExecutor

    return LocalExecutor(workers, threads, inherited)


def _start_elsewhere(name: str, workers: int, meeting: MeetingPlace) -> Executor:
    from tunecast.executors.shared_folder import SharedFolder

    folder = SharedFolder(meeting.shared_dir)
    if name == "ray":
        from tunecast.executors.ray import RayExecutor

        return RayExecutor(workers, folder, meeting.tell, meeting.ray_address)
    from tunecast.executors.queue import QueueExecutor

    return QueueExecutor(workers, meeting.store, folder, meeting.tell)
