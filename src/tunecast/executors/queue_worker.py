"""A worker that pulls: it looks for sessions in a store, joins one, and answers its requests until it ends.

This process computes nothing itself. It renews its lease and has a worker process of its own
(:class:`~tunecast.executors.local.LocalExecutor`) perform the requests, so that a crash or a lack of memory
becomes an answer here as it does there.
"""

from __future__ import annotations

import secrets
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tunecast.errors import ConfigurationError, ModelError
from tunecast.executors.base import Broken, broken
from tunecast.executors.leases import Backoff, Heartbeat, patiently
from tunecast.executors.local import KeptExecutor, LocalExecutor
from tunecast.executors.pool import Asked, unlike
from tunecast.executors.shared_folder import SharedFolder, shared_dir_of
from tunecast.hardware.machine import current_versions
from tunecast.store import Store
from tunecast.store.work_queue import READY, REFUSING, Offer, WorkQueue

LOOK_SECONDS = 0.5
"""Longest interval between two looks for a session, for a request, and for one that was given up."""
LEAVING_SECONDS = 20
"""Longest time that leaving takes after SIGTERM. A worker that ends then loses its lease, no more."""
FIRST_OUTAGE_SECONDS = 30.0
"""Time for which the store may be unreachable while no session is served."""


class _Ended(BaseException):
    """Somebody asked this process to end."""


def work(store: str, shared_dir: Path | None, stay: Stay, tell: Callable[[str], None]) -> None:
    """Serve the sessions in a store until it is time to leave, or until SIGTERM or Ctrl-C.

    Args:
        store: Path or URL of the store.
        shared_dir: Folder that the sessions share with this worker; None for the folder of a SQLite store.
        stay: How long to stay.
        tell: Shows the user a line.

    Raises:
        ConfigurationError: There is no shared folder, or this machine cannot read and write it.
        StoreError: The store cannot be used.
    """
    folder = SharedFolder(shared_dir_of(store, shared_dir))
    before = signal.signal(signal.SIGTERM, _end)
    try:
        with Store.open(store) as opened:
            QueueWorker(opened.work_queue, folder, stay, tell).run()
    except (_Ended, KeyboardInterrupt):
        tell("Worker stopped.")
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.alarm(0)


def _end(number: int, frame: FrameType | None) -> None:
    """Leave; if that hangs, such as on a lock that this signal has caught in the act, end all the same."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LEAVING_SECONDS)
    raise _Ended


@dataclass(frozen=True)
class Stay:
    """How long a worker stays.

    Args:
        once: It leaves after the first session that it has served.
        idle_seconds: It leaves after this many seconds without a request; None to stay.
    """

    once: bool = False
    idle_seconds: float | None = None


class QueueWorker:
    """Serves one session after the other.

    Args:
        queue: Where sessions are found.
        folder: The folder that they share with this worker.
        stay: How long to stay.
        tell: Shows the user a line.
    """

    def __init__(
        self, queue: WorkQueue, folder: SharedFolder, stay: Stay, tell: Callable[[str], None]
    ) -> None:
        self._queue = queue
        self._folder = folder
        self._stay = stay
        self._tell = tell
        self._host = socket.gethostname()
        self._passed_over: set[str] = set()
        """Workplaces that this worker cannot serve."""
        self._kept = KeptExecutor()
        self._busy_at = time.monotonic()

    def run(self) -> None:
        """Serve sessions until it is time to leave.

        Raises:
            StoreError: The store has been unreachable for too long.
        """
        self._tell(f"Looking for sessions that share {self._folder.path}.")
        backoff = Backoff(longest=LOOK_SECONDS)
        try:
            while not self._is_idle_too_long():
                offer = self._find()
                if offer is None:
                    backoff.wait()
                elif self._serve(offer) and self._stay.once:
                    return
                else:
                    backoff.start()
        finally:
            self._kept.close()

    def _find(self) -> Offer | None:
        """Return the session with the fewest workers, of those that this worker can serve."""
        for offer in patiently(self._queue.offers, FIRST_OUTAGE_SECONDS):
            if offer.id in self._passed_over:
                continue
            if offer.key_id != self._folder.key_id:
                self._passed_over.add(offer.id)
                self._tell(
                    f"Passing over a session on {offer.host}: it shares {offer.shared_dir}, whose key is "
                    f"another one than that in {self._folder.path}."
                )
            elif text := unlike(offer.versions, asdict(current_versions())):
                self._refuse(offer, broken(ConfigurationError(text, "Install the same versions.")))
            else:
                return offer
        return None

    def _refuse(self, offer: Offer, reason: Broken) -> None:
        """Tell the session and the user why this worker cannot serve it."""
        self._passed_over.add(offer.id)
        self._tell(f"Passing over the session on {offer.host}: {reason.text}")
        worker = secrets.token_hex(8)
        sealed = self._folder.seal(worker, reason)
        patiently(
            lambda: self._queue.join(worker, offer.id, self._host, REFUSING, sealed), FIRST_OUTAGE_SECONDS
        )

    def _serve(self, offer: Offer) -> bool:
        """Join a session and answer its requests; return whether its workplace could be opened."""
        sealed = patiently(lambda: self._queue.workplace(offer.id), offer.lease_seconds)
        if sealed is None:
            return False
        workplace = self._folder.unseal(offer.id, sealed)
        worker = secrets.token_hex(8)
        patiently(lambda: self._queue.join(worker, offer.id, self._host), offer.lease_seconds)
        local = self._kept.get(workplace.threads)
        heartbeat = Heartbeat(lambda: self._queue.keep_worker(worker), offer.lease_seconds)
        try:
            local.open(workplace)
            self._tell(f"Serving the session on {offer.host}.")
            opened = self._folder.seal(worker, local.slots[0])
            patiently(lambda: self._queue.tell(worker, READY, opened), offer.lease_seconds)
            self._busy_at = time.monotonic()
            self._answer_requests(offer, worker, local, heartbeat)
        except ModelError as error:
            self._refuse(offer, broken(error))
            return False
        finally:
            heartbeat.close()
            local.end_workers()
            patiently(lambda: self._queue.leave(worker), offer.lease_seconds)
        return True

    def _answer_requests(self, offer: Offer, worker: str, local: LocalExecutor, heartbeat: Heartbeat) -> None:
        """Answer requests until the session ends, has given this worker up as lost, or asks nothing for long.

        Raises:
            ModelError: The worker process died and cannot be replaced.
            StoreError: The store has been unreachable for the time of a lease.
        """
        under_way: int | None = None
        backoff = Backoff(longest=LOOK_SECONDS)
        while True:
            inbox = patiently(lambda: self._queue.inbox(worker), offer.lease_seconds)
            if heartbeat.is_lost or not inbox.is_member:
                self._tell("The session gave this worker up as lost; it will rejoin.")
                return
            if not inbox.is_open:
                self._tell("The session has ended.")
                return
            if under_way is not None and inbox.number != under_way:
                local.cancel()
                under_way = None
            if under_way is None and inbox.number is not None:
                asked: Asked = self._folder.unseal(f"{offer.id}/{inbox.number}", inbox.content)
                under_way = inbox.number
                if asked.is_setup:
                    local.setup(asked.request)
                    self._send(offer, worker, under_way, None)
                    under_way = None
                    continue
                local.submit(asked.request)
            if under_way is None:
                if self._is_idle_too_long():
                    return
                backoff.wait()
                continue
            if answers := local.wait(LOOK_SECONDS):
                self._send(offer, worker, under_way, answers[0][1])
                under_way = None
            self._busy_at = time.monotonic()
            backoff.start()

    def _send(self, offer: Offer, worker: str, number: int, answer: Any) -> None:
        sealed = self._folder.seal(f"{offer.id}/{number}/answer", answer)
        patiently(lambda: self._queue.answer(offer.id, number, worker, sealed), offer.lease_seconds)

    def _is_idle_too_long(self) -> bool:
        limit = self._stay.idle_seconds
        return limit is not None and time.monotonic() - self._busy_at > limit
