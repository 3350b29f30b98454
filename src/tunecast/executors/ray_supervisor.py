"""The inside of a Ray actor: it supervises one worker process, which performs the requests of a session."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunecast.errors import ConfigurationError, ModelError, UserError
from tunecast.executors.base import Broken, Slot, broken, loading_error
from tunecast.executors.local import KeptExecutor
from tunecast.executors.pool import Asked, unlike
from tunecast.executors.shared_folder import SharedFolder

LOOK_SECONDS = 0.1
"""Longest interval between two looks whether a request was given up."""
MIN_FILES = 4096
"""Open files that Ray may need on a node with a few workers."""
SHARED_MEMORY = "/dev/shm"
OBJECT_STORE_BYTES = 1_000_000_000
"""Shared memory for messages; the largest is the workplace, with the examples of the task."""


@dataclass(frozen=True)
class Place:
    """What a supervisor checks before it unpacks a workplace.

    Args:
        key_id: Identifies the key in the shared folder.
        versions: Versions of the session's software.
        gpus: Accelerators that belong to the worker.
    """

    id: str
    shared_dir: str
    key_id: str
    versions: Mapping[str, str]
    threads: int
    gpus: int


@dataclass(frozen=True)
class Opened:
    """The answer of a supervisor whose worker is ready, with notes for the user."""

    host: str
    slot: Slot
    notes: tuple[str, ...] = ()


class Supervisor:
    """Opens workplaces, one after the other, and answers requests.

    Ray calls the methods in threads. Only one at a time has its turn with the worker process.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._end = threading.Event()
        self._given_up = 0
        """All requests up to this number were given up."""
        self._kept = KeptExecutor()

    def stay(self) -> None:
        """Return when this actor has left; the caller gets an error if it dies."""
        self._end.wait()

    def open(self, place: dict[str, Any], workplace: bytes) -> Opened | tuple[str, Broken]:
        """Have a new worker process open a sealed workplace; return the host and why if it cannot."""
        with self._turn:
            host = socket.gethostname()
            try:
                self._place = Place(**place)
                self._folder = _checked_folder(self._place)
                os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(_accelerators(self._place.gpus))
                self._local = self._kept.get(self._place.threads)
                self._local.open(self._folder.unseal(self._place.id, workplace))
            except UserError as error:
                return host, broken(error)
            except Exception as error:  # such as a module that is missing on this node
                return host, broken(loading_error(broken(error)))
            return Opened(host, self._local.slots[0], tuple(limits(host)[0]))

    def perform(self, number: int, sealed: bytes) -> Any:
        """Answer a request; None if it belongs to the setup, or was given up."""
        with self._turn:
            local = self._local
            asked: Asked = self._folder.unseal(f"{self._place.id}/{number}", sealed)
            try:
                if asked.is_setup:
                    local.setup(asked.request)
                    return None
                local.submit(asked.request)
            except ModelError as error:
                return broken(error)
            while not (answers := local.wait(LOOK_SECONDS)):
                if number <= self._given_up:
                    local.cancel()
                    return None
            return answers[0][1]

    def give_up(self, number: int) -> None:
        """Abort a request if it still runs."""
        self._given_up = max(self._given_up, number)

    def leave(self) -> None:
        """End the worker process."""
        self._given_up = 2**62
        with self._turn:
            self._kept.close()
        self._end.set()


def limits(where: str) -> tuple[list[str], int]:
    """Return notes about limits that Ray may run into here, and the free bytes of shared memory."""
    notes = []
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY and files < MIN_FILES:
        notes.append(f"On {where} only {files:,} files may be open; Ray may need more: ulimit -n 65536.")
    folder = Path(SHARED_MEMORY)
    free = shutil.disk_usage(folder).free if folder.is_dir() else OBJECT_STORE_BYTES
    if free < OBJECT_STORE_BYTES:
        notes.append(
            f"On {where} {SHARED_MEMORY} has {free / 1e6:,.0f} MB free; "
            f"below {OBJECT_STORE_BYTES / 1e6:,.0f} MB Ray may keep messages on disk. "
            "Start containers with --shm-size=2g."
        )
    return notes, free


def _checked_folder(place: Place) -> SharedFolder:
    """Return the shared folder, if this node sees the session's and computes as the session does.

    Raises:
        ConfigurationError: It does not.
    """
    from tunecast.hardware.machine import current_versions

    if text := unlike(place.versions, asdict(current_versions())):
        raise ConfigurationError(text, "Install the same versions on all nodes.")
    folder = SharedFolder(Path(place.shared_dir))
    if folder.key_id != place.key_id:
        raise ConfigurationError(
            f"--shared-dir {place.shared_dir} is another folder on this node than where the session runs.",
            "Name a folder that all nodes see under the same path.",
        )
    return folder


def _accelerators(count: int) -> list[str]:
    """Return the accelerators that Ray gave this actor, so that its worker sees no other.

    Raises:
        ConfigurationError: There are fewer than it needs.
    """
    import ray

    given = [str(one) for one in ray.get_gpu_ids()]
    if len(given) != count:
        raise ConfigurationError(f"Ray gave this worker {len(given)} GPUs instead of {count}.")
    return given
