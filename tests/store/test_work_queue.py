"""Where sessions meet workers: signs of life, and requests that are answered once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from tunecast.store import Store
from tunecast.store.schema import requests, workers, workplaces
from tunecast.store.work_queue import READY, Inbox, Member, Offer, WorkQueue


def offer(name: str = "place", lease_seconds: float = 60.0) -> Offer:
    return Offer(name, "host", "/shared", "key", {"torch": "2.9"}, lease_seconds)


def grow_old(store: Store, table: sa.Table, seconds: float) -> None:
    """Let everything in a table have shown its last sign of life so much earlier."""
    store._write(lambda connection: connection.execute(sa.update(table).values(seen=table.c.seen - seconds)))


@pytest.fixture
def queue(store: Store) -> WorkQueue:
    """A queue with one workplace and one worker in it."""
    found = store.work_queue
    found.offer(offer(), b"model")
    found.join("ann", "place", "far")
    return found


def test_what_is_offered_is_found(queue: WorkQueue) -> None:
    queue.offer(offer("other"), b"model")
    assert [(found.id, found.workers) for found in queue.offers()] == [("other", 0), ("place", 1)]
    assert queue.offers()[0] == offer("other")
    assert queue.workplace("place") == b"model"
    queue.withdraw("place")
    assert [found.id for found in queue.offers()] == ["other"]
    assert queue.workplace("place") is None


def test_a_workers_state_is_told(queue: WorkQueue) -> None:
    queue.tell("ann", READY, b"her machine")
    ((only,), answers) = queue.news("place")
    assert (only.id, only.host, only.state, answers) == ("ann", "far", READY, [])
    assert 0 <= only.age < 30
    assert (queue.message("ann"), queue.message("nobody")) == (b"her machine", b"")


def test_requests_are_answered_in_their_order_and_once(queue: WorkQueue) -> None:
    assert queue.give("place", 1, "ann", b"first")
    assert queue.give("place", 2, "ann", b"second")
    assert queue.inbox("ann") == Inbox(True, True, 1, b"first")
    assert queue.answer("place", 1, "ann", b"done")
    assert not queue.answer("place", 1, "ann", b"done again")
    assert not queue.answer("place", 2, "somebody else", b"not mine")
    assert queue.inbox("ann").number == 2
    assert queue.news("place")[1] == [(1, b"done")]
    queue.forget("place", [1, 2])
    assert queue.news("place")[1] == []
    assert queue.inbox("ann") == Inbox(True, True)


def test_many_answers_to_one_request_leave_one(queue: WorkQueue) -> None:
    queue.give("place", 1, "ann", b"first")
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda n: queue.answer("place", 1, "ann", bytes([n])), range(8)))
    assert sum(taken) == 1
    assert queue.news("place")[1] == [(1, bytes([taken.index(True)]))]


def test_a_lost_worker_leaves_with_its_request_and_cannot_answer(queue: WorkQueue, store: Store) -> None:
    queue.give("place", 1, "ann", b"first")
    queue.give("place", 2, "ann", b"second")
    queue.answer("place", 1, "ann", b"done")
    assert not queue.leave("ann", if_older_than=60.0), "she lives"
    grow_old(store, workers, 61.0)
    assert queue.members("place")[0].age > 60.0
    assert queue.leave("ann", if_older_than=60.0)
    assert not queue.leave("ann", if_older_than=60.0)
    assert not queue.keep_worker("ann")
    assert not queue.answer("place", 2, "ann", b"too late")
    assert not queue.give("place", 3, "ann", b"third")
    assert queue.inbox("ann") == Inbox(False, False)
    assert queue.news("place") == ([], [(1, b"done")]), "what she answered in time counts"


def test_a_sign_of_life_renews_a_lease(queue: WorkQueue, store: Store) -> None:
    grow_old(store, workers, 61.0)
    assert queue.keep_worker("ann")
    assert queue.members("place")[0].age < 30.0
    grow_old(store, workplaces, 61.0)
    assert queue.offers() == []
    assert queue.inbox("ann") == Inbox(True, False), "her session is gone"
    assert queue.keep_offer("place")
    assert queue.inbox("ann").is_open


def test_the_databases_clock_ticks_in_seconds(queue: WorkQueue) -> None:
    before = queue.members("place")[0].age
    time.sleep(0.5)
    assert 0.4 < queue.members("place")[0].age - before < 5.0


def test_what_everybody_forgot_is_removed(queue: WorkQueue, store: Store) -> None:
    queue.give("place", 1, "ann", b"first")
    for table in (workers, workplaces):
        grow_old(store, table, 2 * 86_400.0)
    queue.offer(offer("next"), b"model")
    assert not queue.keep_offer("place")
    with store._reading() as connection:
        for table in (workers, requests):
            assert connection.scalar(sa.select(sa.func.count()).select_from(table)) == 0


def test_a_member_is_described(queue: WorkQueue) -> None:
    (only,) = queue.members("place")
    assert only == Member("ann", "far", "loading", only.age)
