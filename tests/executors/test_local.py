"""Worker processes, their deaths and their environment."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

import workplaces
from kills import still_alive
from tunecast.errors import ModelError
from tunecast.executors import local as local_module
from tunecast.executors.local import LocalExecutor, crash_of, own_accelerators
from tunecast.records import Outcome, RunError
from workplaces import Desk, Do


def test_workers_are_processes_out_of_reach_of_ctrl_c(local: LocalExecutor) -> None:
    processes = [local.call(Do(workplaces.process), slot) for slot in local.idle()]
    assert len({pid for pid, _ in processes} | {os.getpid()}) == 3
    assert os.getpgid(0) not in {group for _, group in processes}


def test_libraries_find_their_environment_as_they_load(local: LocalExecutor) -> None:
    assert local.call(Do(workplaces.variables)) == (":4096:8", "1000", "1", 1)


def test_the_garbage_collector_passes_over_libraries_but_not_over_the_workplace(local: LocalExecutor) -> None:
    passed_over, sees_workplace = local.call(Do(workplaces.collected))
    assert passed_over > 100_000
    assert sees_workplace


def test_standard_output_stays_the_sessions(local: LocalExecutor, capfd: pytest.CaptureFixture[str]) -> None:
    assert local.call(Do(workplaces.speak)) is None
    assert capfd.readouterr().out == ""


def test_workers_hold_no_connection_of_each_other(local: LocalExecutor) -> None:
    first, second = (local.call(Do(workplaces.sockets), slot) for slot in local.idle())
    assert (len(first), len(second)) == (1, 1)


def test_a_death_is_an_answer(local: LocalExecutor) -> None:
    assert local.call(Do(workplaces.die), slot=1) == crash_of(-9)
    assert local.call(Do(workplaces.leave), slot=1).text == "the worker ended with exit code 3"
    assert local.call(Do(workplaces.die_while_answering), slot=1) == crash_of(4)
    assert local.call(Do(workplaces.process), slot=1)[0] > 0


def test_a_worker_that_died_while_idle_is_replaced_at_once(local: LocalExecutor) -> None:
    pid, _ = local.call(Do(workplaces.process))
    machine = local.slots[0].machine
    server = psutil.Process(pid).ppid()
    psutil.Process(pid).kill()
    assert local.call(Do(workplaces.process)) == crash_of(-9)
    again, _ = local.call(Do(workplaces.process))
    assert again != pid
    assert psutil.Process(again).ppid() == server, "no library is imported again"
    assert local.slots[0].machine is not machine
    assert local.slots[0].machine == machine, "it is not measured again"


def test_workers_do_not_outlive_their_server_and_the_next_have_another(local: LocalExecutor) -> None:
    pids = [local.call(Do(workplaces.process), slot)[0] for slot in local.idle()]
    server = psutil.Process(pids[0]).parent()
    assert server is not None
    workers = [psutil.Process(pid) for pid in pids]
    server.kill()
    assert still_alive(workers, 5) == []
    assert [local.call(Do(workplaces.process), slot) for slot in local.idle()] == [crash_of(1)] * 2
    assert all(local.call(Do(workplaces.process), slot)[0] not in pids for slot in local.idle())


@pytest.mark.parametrize(("exit_code", "outcome"), [(-9, Outcome.OUT_OF_MEMORY), (3, Outcome.FAILED)])
def test_what_a_run_becomes_whose_worker_died(exit_code: int, outcome: Outcome) -> None:
    crash = crash_of(exit_code)
    assert crash.failure == (outcome, RunError("WorkerCrash", crash.text))


@pytest.mark.parametrize("while_telling", [False, True])
def test_a_worker_that_dies_while_it_loads_is_started_again(
    while_telling: bool, local: LocalExecutor, tmp_path: Path
) -> None:
    local.open(Desk(str(tmp_path), deaths=1, while_telling=while_telling))
    assert local.call(Do(workplaces.process))[0] > 0


def test_workers_that_are_busy_are_ended_together(local: LocalExecutor, tmp_path: Path) -> None:
    pids = [local.call(Do(workplaces.process), slot)[0] for slot in local.idle()]
    for slot in local.idle():
        local.submit(Do(workplaces.doze), slot)
    began = time.monotonic()
    local.end_workers()
    assert time.monotonic() - began < 2 * local_module.PATIENCE_SECONDS
    assert not any(map(psutil.pid_exists, pids))


def test_cancelling_ends_busy_workers_alone(local: LocalExecutor) -> None:
    pids = [local.call(Do(workplaces.process), slot)[0] for slot in local.idle()]
    local.submit(Do(workplaces.doze), 1)
    local.cancel()
    assert not psutil.pid_exists(pids[1])
    assert local.call(Do(workplaces.process), 0)[0] == pids[0]


def test_pausing_stops_workers_in_the_middle_of_a_request(local: LocalExecutor) -> None:
    handle = local.submit(Do(workplaces.nap))
    local.pause()
    assert local.wait(timeout=1.0) == []
    local.resume()
    assert local.wait(timeout=10.0) == [(handle, None)]


def test_a_call_is_given_up_when_time_is_over(local: LocalExecutor) -> None:
    over = time.monotonic() + 0.5
    assert local.call(Do(workplaces.doze), is_over=lambda: time.monotonic() > over) is None
    assert time.monotonic() - over < 30.0
    assert local.call(Do(workplaces.process), is_over=lambda: False)[0] > 0


def test_workers_that_always_die_are_reported(
    local: LocalExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_module, "STARTS", 2)
    with pytest.raises(ModelError, match="killed by SIGKILL, 2 times in a row"):
        local.open(Desk(str(tmp_path), deaths=9))


def test_slots_take_the_accelerators_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    chosen = [own_accelerators("cuda", slot).get("CUDA_VISIBLE_DEVICES") for slot in range(3)]
    assert chosen == ["2", "5", "2"]
    assert own_accelerators("cuda:1", 1) == own_accelerators("cpu", 1) == {}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,6,7,9")
    pairs = [own_accelerators("cuda", slot, 2).get("CUDA_VISIBLE_DEVICES") for slot in range(3)]
    assert pairs == ["2,5", "6,7", "2,5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    assert own_accelerators("cuda", 1) == {}
