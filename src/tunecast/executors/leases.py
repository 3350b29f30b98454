"""Signs of life: a thread that renews a lease, whatever the process does meanwhile, and calls that outlast
an outage of the store."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from tunecast.errors import StoreError

T = TypeVar("T")

LEASE_SECONDS = 30.0
"""Time without a sign of life after which a session or a worker is taken for lost."""
BEATS = 6
"""Signs of life in the time of a lease."""
RETRY_SECONDS = 0.5


class Heartbeat:
    """Renews a lease in a thread, from now on until it is closed.

    Args:
        renew: Returns false if the lease is no longer there.
        lease_seconds: Its duration.
    """

    def __init__(self, renew: Callable[[], bool], lease_seconds: float) -> None:
        self._renew = renew
        self._lease_seconds = lease_seconds
        self._ended, self._lost = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    @property
    def is_lost(self) -> bool:
        """Whether the lease is over."""
        return self._lost.is_set()

    def close(self) -> None:
        """Renew it no longer."""
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        renewed = time.monotonic()
        while not self._ended.wait(self._lease_seconds / BEATS):
            with contextlib.suppress(StoreError):  # it may come back before the lease is over
                if not self._renew():
                    break
                renewed = time.monotonic()
            if time.monotonic() - renewed > self._lease_seconds:
                break
        if not self._ended.is_set():
            self._lost.set()


def patiently(work: Callable[[], T], seconds: float) -> T:
    """Call ``work`` again while the store is unreachable, such as in the middle of its restart.

    Raises:
        StoreError: It has been unreachable for longer than ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return work()
        except StoreError:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_SECONDS)


class Backoff:
    """Waits between two looks at the store: briefly at first, and longer the longer nothing comes."""

    def __init__(self, shortest: float = 0.01, longest: float = 0.25) -> None:
        self._shortest, self._longest = shortest, longest
        self.start()

    def start(self) -> None:
        """Start again, since something has come."""
        self._since = time.monotonic()

    def wait(self, at_most: float | None = None) -> None:
        """Sleep a tenth of the time since the last start."""
        seconds = min(self._longest, max(self._shortest, (time.monotonic() - self._since) / 10))
        time.sleep(seconds if at_most is None else max(0.0, min(seconds, at_most)))
