"""Requests in the calling process: what the contract of all executors does not cover."""

from __future__ import annotations

from pathlib import Path

import pytest

import workplaces
from tunecast.errors import ModelError
from tunecast.executors.in_process import InProcessExecutor


def test_a_slot_that_its_setup_ends_is_reported(tmp_path: Path) -> None:
    with InProcessExecutor() as executor:
        executor.open(workplaces.Desk(str(tmp_path)))
        executor.setup(workplaces.Do(workplaces.give_up))
        with pytest.raises(ModelError, match="cannot be set up: the worker ended: the desk is broken"):
            executor.call(workplaces.Do(workplaces.put_paper))
