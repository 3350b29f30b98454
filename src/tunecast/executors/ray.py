"""Workers on a Ray cluster, or on a Ray that is started on this machine: one actor for each, from Ray Core.

An actor computes nothing itself (:mod:`tunecast.executors.ray_supervisor`): it has a worker process of its
own perform the requests, so that a crash or a lack of memory becomes an answer there as it does on this
machine. If the actor itself dies, its node is gone; the caller hears of a loss, and another actor starts
where Ray finds room. Requests and answers are small messages. Checkpoints go through the shared folder alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from tunecast.errors import ConfigurationError, ModelError, first_line
from tunecast.executors.base import Broken, Workplace
from tunecast.executors.leases import Backoff
from tunecast.executors.pool import PoolExecutor, PoolWorker
from tunecast.executors.ray_supervisor import OBJECT_STORE_BYTES, Opened, Place, Supervisor, limits
from tunecast.executors.shared_folder import SharedFolder
from tunecast.records import Outcome

PLACING_SECONDS = 10.0
"""Time for which :meth:`RayExecutor.open` waits for room for all workers, if there is room for one."""
GOODBYE_SECONDS = 5.0
"""Seconds that actors may take to end their worker processes."""
STARTS = 3
"""Number of actors that may die in a row before any was ready."""
PLACED_SECONDS = 0.001
REST_SECONDS = 0.25
"""Longest wait between two looks at what Ray has placed."""
CONCURRENT_CALLS = 4
"""A request, the actor's sign of life, the order to give the request up, and the next request."""
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
"""Of a Ray that is started here. By default it reports its use, and its workers give way to all others."""
MIN_STORE_BYTES = 80_000_000
"""Ray takes no less for its object store."""


@dataclass(eq=False)
class _Berth:
    """A place that Ray reserves for a worker, and who is there.

    Args:
        group: Ray's placement group: all resources of one worker, on one node.
        actor: The supervisor in it; None until there is room, and after its death.
        life: A call that ends with the actor.
        pending: The call whose answer is awaited: to open the workplace, or to perform a request.
        worker: The worker, once its workplace is open.
    """

    group: Any
    actor: Any = None
    life: Any = None
    pending: Any = None
    worker: PoolWorker | None = None


@dataclass
class _Starts:
    """Actors that died before they were ready, one after the other.

    If any was ready before, the nodes have what it takes, and the session waits for better times.
    """

    deaths: int = 0
    told: set[str] = field(default_factory=set)


class RayExecutor(PoolExecutor):
    """Slots on Ray; they come when Ray has room for their workers, and go with their nodes.

    Args:
        workers: Workers to ask Ray for, which autoscaling clusters take as their demand.
        folder: The folder that all nodes share with the session.
        tell: Shows the user a line.
        address: Address of a cluster, ``auto`` for the one on this machine; empty for ``RAY_ADDRESS`` or, if
            that is not set, a Ray of the session's own.

    Raises:
        ConfigurationError: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(
        self, workers: int, folder: SharedFolder, tell: Callable[[str], None], address: str = ""
    ) -> None:
        super().__init__(workers, folder, tell)
        self._berths: list[_Berth] = []
        self._starts = _Starts()
        self._workplace = b""
        self._threads = 1
        self._ray, self._is_ours = _connected(address, tell)
        self._demand: dict[str, float] = {}

    def open(self, workplace: Workplace) -> None:
        """Have actors open a workplace, and wait until all that Ray has room for have.

        Raises:
            ConfigurationError: The workplace names one accelerator, no node has the versions that the session
                has, or none sees the shared folder.
            ModelError: The base model cannot be loaded, or actors cannot start.
        """
        if ":" in workplace.device:
            raise ConfigurationError(
                f"--device {workplace.device}: Ray chooses the accelerators of its workers.",
                "Use --device cuda.",
            )
        self.cancel()
        self._forget_workers()
        self._starts = _Starts()
        self._place = secrets.token_hex(8)
        self._workplace, self._threads = self._folder.seal(self._place, workplace), workplace.threads
        self._reserve(_demand(workplace.device, workplace.threads, workplace.devices))
        self._opened_at, is_told = time.monotonic(), False
        backoff = Backoff()
        self._look()
        while not self._has_begun():
            if not is_told and not self._workers and self._lacks_room:
                is_told = True
                self._tell(f"Ray has no room yet for a worker with {self._wants}; waiting for it.")
            self._rest(backoff)
            self._look()
        if missing := sum(berth.actor is None for berth in self._berths):
            room = f"Ray has no room yet for {missing} of {self._awaited} workers with {self._wants}"
            self._tell(f"{room}; they join when it has.")

    def close(self) -> None:
        """End all workers, and Ray if it was started here."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._release(self._berths)
        self._berths = []
        self._forget_workers()
        if self._is_ours and self._ray.is_initialized():
            with _own_signals():
                self._ray.shutdown()

    @property
    def _wants(self) -> str:
        return " and ".join(f"{amount:g} {name}" for name, amount in self._demand.items())

    @property
    def _lacks_room(self) -> bool:
        late = time.monotonic() - self._opened_at > PLACING_SECONDS
        return late and all(berth.actor is None for berth in self._berths)

    def _has_begun(self) -> bool:
        if not self._berths:
            raise next(iter(self._refusing.values())).error()
        is_loading = any(berth.actor is not None and berth.worker is None for berth in self._berths)
        is_placed = all(berth.actor is not None for berth in self._berths)
        late = time.monotonic() - self._opened_at > PLACING_SECONDS
        return bool(self._workers) and not is_loading and (is_placed or late)

    def _reserve(self, demand: dict[str, float]) -> None:
        """Reserve a place for every worker; actors that are there already open the next workplace."""
        from ray.util.placement_group import placement_group

        if demand != self._demand:
            self._release(self._berths)
            self._berths, self._demand = [], demand
        for berth in self._berths:
            berth.worker = berth.pending = None
            if berth.actor is not None:
                self._call_open(berth)
        missing = self._awaited - len(self._berths)
        self._berths += [_Berth(placement_group([demand], strategy="STRICT_PACK")) for _ in range(missing)]

    def _release(self, berths: list[_Berth]) -> None:
        """End the actors of berths, and give their places back."""
        from ray.util.placement_group import remove_placement_group

        actors = [berth.actor for berth in berths if berth.actor is not None]
        if actors:
            leaving = [actor.leave.remote() for actor in actors]
            self._ray.wait(leaving, num_returns=len(leaving), timeout=GOODBYE_SECONDS)
        for actor in actors:
            self._ray.kill(actor)
        for berth in berths:
            remove_placement_group(berth.group)

    def _start(self, berth: _Berth) -> None:
        """Start an actor in a berth, and have it open the workplace."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        made = self._ray.remote(Supervisor).options(
            num_cpus=self._demand["CPU"],
            num_gpus=self._demand.get("GPU", 0),
            max_concurrency=CONCURRENT_CALLS,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=PlacementGroupSchedulingStrategy(berth.group),
        )
        berth.actor = made.remote()
        berth.life = berth.actor.stay.remote()
        self._call_open(berth)

    def _call_open(self, berth: _Berth) -> None:
        from tunecast.hardware.machine import current_versions

        place = Place(
            self._place,
            str(self._folder.path),
            self._folder.key_id,
            asdict(current_versions()),
            self._threads,
            int(self._demand.get("GPU", 0)),
        )
        berth.pending = berth.actor.open.remote(asdict(place), self._workplace)

    def _send(self, worker: PoolWorker, number: int, sealed: bytes) -> bool:
        berth = self._berth_of(worker)
        if berth is not None:
            berth.pending = berth.actor.perform.remote(number, sealed)
        return berth is not None

    def _take_back(self, workers: list[PoolWorker]) -> None:
        for worker in workers:
            berth = self._berth_of(worker)
            if berth is not None:
                berth.actor.give_up.remote(worker.number)
                berth.pending = None

    def _berth_of(self, worker: PoolWorker) -> _Berth | None:
        return next((berth for berth in self._berths if berth.worker is worker), None)

    def _rest(self, backoff: Backoff, at_most: float | None = None) -> None:
        """Wait for the next answer, but look now and then at what Ray has placed."""
        seconds = REST_SECONDS if at_most is None else max(0.0, min(REST_SECONDS, at_most))
        pending = [berth.pending for berth in self._berths if berth.pending is not None]
        if pending:
            self._ray.wait(pending, num_returns=1, timeout=seconds)
        else:
            time.sleep(seconds)

    def _look_around(self) -> None:
        for berth in self._berths:
            if berth.actor is None and berth.group.wait(PLACED_SECONDS):
                self._start(berth)
        calls = [call for berth in self._berths for call in (berth.pending, berth.life) if call is not None]
        if not calls:
            return
        done = set(self._ray.wait(calls, num_returns=len(calls), timeout=0)[0])
        for berth in list(self._berths):
            if berth.pending in done:
                self._receive(berth, berth.pending)
            elif berth.life in done:
                self._receive(berth, berth.life)

    def _receive(self, berth: _Berth, call: Any) -> None:
        """Take an answer, or learn that the actor is gone."""
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(call)
        except errors.RayTaskError:
            raise  # an error of the supervisor itself
        except errors.RayError as error:
            self._bury(berth, error)
            return
        berth.pending = None
        if berth.worker is not None:
            if berth.worker.handle is None and isinstance(answer, Broken):
                raise answer.error()  # it cannot be set up
            self._take(berth.worker, answer)
        elif isinstance(answer, Opened):
            self._starts.deaths = 0
            self._tell_once(*answer.notes)
            berth.worker = PoolWorker(secrets.token_hex(8), answer.host, answer.slot)
            self._seat(berth.worker)
        else:
            self._refuse(berth, answer)

    def _refuse(self, berth: _Berth, told: tuple[str, Broken]) -> None:
        """Give up a place whose worker cannot serve this workplace: its next one could not either."""
        self._note_refusal(secrets.token_hex(8), *told)
        self._berths.remove(berth)
        self._release([berth])

    def _bury(self, berth: _Berth, error: Exception) -> None:
        """Empty a berth whose actor is gone, so that another one starts there, or on the next node."""
        worker, actor = berth.worker, berth.actor
        berth.worker = berth.actor = berth.life = berth.pending = None
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(actor)  # it may only be cut off
        if worker is not None:
            no_memory = isinstance(error, self._ray.exceptions.OutOfMemoryError)
            number = next(number for number, other in self._workers.items() if other is worker)
            outcome = Outcome.OUT_OF_MEMORY if no_memory else Outcome.FAILED
            self._lose(number, "was ended because memory ran out" if no_memory else "was lost", outcome)
            return
        self._starts.deaths += 1
        if self._starts.deaths >= STARTS and not self._slots:
            raise ModelError(
                f"Workers on Ray cannot start: {first_line(error).rstrip('.')}.",
                "Check that all nodes have tunecast installed, and their free memory; then --resume.",
            )

    def _tell_once(self, *lines: str) -> None:
        for line in lines:
            if line not in self._starts.told:
                self._starts.told.add(line)
                self._tell(line)


def workers_with_room(address: str, device: str, threads: int, devices: int) -> int:
    """Return how many workers the nodes of a cluster have room for as they are now; nothing else is counted.

    Args:
        address: As for :class:`RayExecutor`.

    Raises:
        ConfigurationError: Ray is not installed, or the cluster cannot be reached.
    """
    ray, is_ours = _connected(address, lambda text: None)
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    finally:
        if is_ours:
            with _own_signals():
                ray.shutdown()
    demand = _demand(device, threads, devices)
    return sum(min(int(node.get(name, 0.0) // amount) for name, amount in demand.items()) for node in nodes)


def _demand(device: str, threads: int, devices: int) -> dict[str, float]:
    """Return what Ray reserves for a worker. With accelerators, its threads only feed these."""
    if device == "cpu":
        return {"CPU": float(threads * devices)}
    return {"CPU": float(devices), "GPU": float(devices)}


def _connected(address: str, tell: Callable[[str], None]) -> tuple[Any, bool]:
    """Return Ray, connected, and whether the connection is the executor's to end.

    Raises:
        ConfigurationError: Ray is not installed, or the cluster cannot be reached.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise ConfigurationError(
            "--executor ray: Ray is not installed.", "Run: pip install 'tunecast[ray]'"
        ) from error
    if ray.is_initialized():  # the calling program did it
        return ray, False
    chosen = address or os.environ.get("RAY_ADDRESS", "") or "local"
    here: dict[str, Any] = {}
    if chosen == "local":
        notes, free = limits("this machine")
        for note in notes:
            tell(note)
        here = {
            "include_dashboard": False,
            "object_store_memory": max(MIN_STORE_BYTES, min(OBJECT_STORE_BYTES, free)),
        }
    try:
        with _own_signals():
            ray.init(chosen, log_to_driver=False, logging_level=logging.ERROR, **here)
    except Exception as error:  # Ray raises whatever its parts do
        raise ConfigurationError(
            f"--executor ray: the cluster {chosen!r} cannot be used: {first_line(error)}.",
            "Check --ray-address; without one, Ray is started on this machine.",
        ) from error
    return ray, True


@contextlib.contextmanager
def _own_signals() -> Any:
    """Keep this process's handler of SIGTERM, which Ray replaces by its own."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
