"""Requests outside the search: tried again after one crash, with errors that name the output folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import workplaces
from tunecast.errors import ModelError, OutputError
from tunecast.executors import start_executor
from tunecast.executors.base import Crash
from tunecast.session.requester import Requester
from workplaces import Desk, Do


@pytest.fixture
def requester(tmp_path: Path) -> Iterator[Requester]:
    with start_executor("in-process", 1, 1) as executor:
        executor.open(Desk(str(tmp_path)))
        yield Requester(executor, tmp_path)


def crashing(times: int) -> tuple[Callable[[list[str]], int], list[int]]:
    """A function that crashes so often and then returns 7, and the list of its calls."""
    calls: list[int] = []

    def function(desk: list[str]) -> int:
        calls.append(len(calls))
        if len(calls) <= times:
            workplaces.give_up(desk)
        return 7

    return function, calls


def test_one_crash_is_forgiven(requester: Requester) -> None:
    function, calls = crashing(1)
    assert requester.ask(Do(function)) == 7
    assert len(calls) == 2


def test_a_second_crash_is_an_error_or_an_answer(requester: Requester) -> None:
    function, calls = crashing(2)
    with pytest.raises(ModelError, match=r"The worker ended.*2 times in a row") as raised:
        requester.ask(Do(function))
    assert "--resume" in raised.value.hint
    assert len(calls) == 2
    assert isinstance(requester.answer(Do(workplaces.give_up)), Crash)


def test_failures_are_raised_and_those_of_the_disk_name_the_folder(requester: Requester) -> None:
    with pytest.raises(OutputError, match=str(requester.folder)):
        requester.ask(Do(workplaces.fill_disk))
    with pytest.raises(RuntimeError, match="ValueError: no pen"):
        requester.answer(Do(workplaces.fail))
