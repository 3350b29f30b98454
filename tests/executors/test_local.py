"""Real worker processes on a desk instead of a model."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import workplaces
from tunecast.errors import ModelError
from tunecast.executors import local as executor_module
from tunecast.executors.local import Crash, LocalExecutor, own_accelerator
from tunecast.executors.requests import Broken
from tunecast.records import Outcome, RunError
from workplaces import Desk, Do, Locked


@pytest.fixture(autouse=True)
def _workers_find_this_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(workplaces.__file__).parent))


@pytest.fixture(scope="module")
def executor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalExecutor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(workplaces.__file__).parent))
        with LocalExecutor(Desk(str(tmp_path_factory.mktemp("desk"))), 2) as running:
            ready = running.ready()
            assert (ready.machine.device, ready.machine.threads) == ("cpu", 1)
            yield running


def test_every_slot_answers_by_itself(executor: LocalExecutor) -> None:
    assert executor.idle() == [0, 1]
    executor.submit(0, Do(workplaces.process))
    executor.submit(1, Do(workplaces.process))
    assert executor.idle() == []
    answers: dict[int, tuple[int, int]] = {}
    while len(answers) < 2:
        answers |= dict(executor.wait(timeout=10))
    assert answers[0][0] != answers[1][0]
    assert os.getpgid(0) not in {group for _, group in answers.values()}, "Ctrl-C would reach a worker"


def test_failures_are_answers(executor: LocalExecutor) -> None:
    assert executor.call(Do(workplaces.fail)) == Broken("ValueError", "no pen", system=False)
    answer = executor.call(Do(workplaces.fill_disk))
    assert (answer.kind, answer.system) == ("OSError", True)


def test_a_users_error_and_lost_memory_are_told_apart(executor: LocalExecutor) -> None:
    by_the_user = executor.call(Do(workplaces.fail_by_the_user))
    assert (by_the_user.kind, by_the_user.text, by_the_user.hint) == (
        "ConfigurationError",
        "no pen",
        "Buy one.",
    )
    assert executor.call(Do(workplaces.run_out_of_memory)).memory


def test_products_on_an_accelerator_can_be_bit_equal(executor: LocalExecutor) -> None:
    assert executor.call(Do(workplaces.cublas_workspace)) == ":4096:8"


def test_standard_output_stays_the_sessions(
    executor: LocalExecutor, capfd: pytest.CaptureFixture[str]
) -> None:
    assert executor.call(Do(workplaces.speak)) is None
    assert capfd.readouterr().out == ""


def test_a_death_is_an_answer_and_the_next_worker_is_set_up(executor: LocalExecutor) -> None:
    executor.setup(Do(workplaces.put_paper))
    crash = executor.call(Do(workplaces.die), slot=1)
    assert crash == Crash(-9)
    assert crash.text == "the worker was killed by SIGKILL"
    assert executor.call(Do(workplaces.put_paper), slot=1) == 2
    assert executor.call(Do(workplaces.leave), slot=1).text == "the worker ended with exit code 3"


def test_a_death_in_the_middle_of_an_answer_is_a_death(executor: LocalExecutor) -> None:
    assert executor.call(Do(workplaces.die_while_answering)) == Crash(4)
    assert executor.call(Do(workplaces.process), slot=0)[0] > 0


def test_a_worker_that_died_while_idle_is_found(executor: LocalExecutor) -> None:
    pid, _ = executor.call(Do(workplaces.process))
    psutil.Process(pid).kill()
    assert executor.call(Do(workplaces.process)) == Crash(-9)
    assert executor.call(Do(workplaces.process))[0] != pid


@pytest.mark.parametrize(("exit_code", "outcome"), [(-9, Outcome.OUT_OF_MEMORY), (3, Outcome.FAILED)])
def test_what_a_run_becomes_whose_worker_died(exit_code: int, outcome: Outcome) -> None:
    crash = Crash(exit_code)
    assert crash.failure == (outcome, RunError("WorkerCrash", crash.text))


@pytest.mark.parametrize("while_telling", [False, True])
def test_a_worker_that_dies_while_it_loads_is_started_again(while_telling: bool, tmp_path: Path) -> None:
    with LocalExecutor(Desk(str(tmp_path), deaths=1, while_telling=while_telling), 1) as running:
        assert running.ready().machine.device == "cpu"
        pid, _ = running.call(Do(workplaces.process))
    assert not psutil.pid_exists(pid), "closing left a worker behind"


def test_workers_that_are_busy_are_ended_together(tmp_path: Path) -> None:
    with LocalExecutor(Desk(str(tmp_path)), 2) as running:
        running.ready()
        pids = [running.call(Do(workplaces.process), slot)[0] for slot in running.idle()]
        for slot in running.idle():
            running.submit(slot, Do(workplaces.doze))
        started = time.monotonic()
    assert time.monotonic() - started < 2 * executor_module.PATIENCE_SECONDS
    assert not any(map(psutil.pid_exists, pids))


def test_who_is_given_up_leaves_in_the_middle_of_it_and_another_is_set_up(tmp_path: Path) -> None:
    with LocalExecutor(Desk(str(tmp_path)), 2) as running:
        running.ready()
        running.setup(Do(workplaces.put_paper))
        pids = [running.call(Do(workplaces.process), slot)[0] for slot in running.idle()]
        running.submit(1, Do(workplaces.doze))
        running.break_off()
        assert not psutil.pid_exists(pids[1])
        assert running.idle() == [0, 1]
        assert running.call(Do(workplaces.process), 0)[0] == pids[0]
        assert running.call(Do(workplaces.put_paper), 1) == 2


def test_a_call_is_given_up_when_time_is_over(executor: LocalExecutor) -> None:
    started = time.monotonic()
    over = started + 0.5
    assert executor.call(Do(workplaces.doze), is_over=lambda: time.monotonic() > over) is None
    assert time.monotonic() - started < 30.0
    assert executor.call(Do(workplaces.process), is_over=lambda: False)[0] > 0


def test_a_workplace_that_cannot_be_opened_is_reported() -> None:
    with LocalExecutor(Locked(), 1) as running, pytest.raises(ModelError, match="there is no key"):
        running.ready()


def test_workers_that_always_die_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_module, "STARTS", 2)
    with (
        LocalExecutor(Desk(str(tmp_path), deaths=9), 1) as running,
        pytest.raises(ModelError, match="killed by SIGKILL, 2 times in a row"),
    ):
        running.ready()


def test_slots_take_the_accelerators_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    chosen = [own_accelerator("cuda", slot).get("CUDA_VISIBLE_DEVICES") for slot in range(3)]
    assert chosen == ["2", "5", "2"]
    assert own_accelerator("cuda:1", 1) == own_accelerator("cpu", 1) == {}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    assert own_accelerator("cuda", 1) == {}
