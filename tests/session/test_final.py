"""The final training: when there is one, how long it is, and that a kill in it loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kills import Victim, check_between, check_end, committed
from sample_runs import sample_point
from sessions import FLAGS, Finished, finish_with
from tunecast.methods.space import EXPERT
from tunecast.records import Machine, Outcome, Pipeline, Run, Score, Versions
from tunecast.session.allowance import Allowance
from tunecast.session.budget import Budget, Used
from tunecast.session.final import FinalTraining, choose_final
from tunecast.session.pace import Pace
from tunecast.session.prepare import PreparedTask, Surroundings
from tunecast.session.trials import Trials
from tunecast.store import Store
from tunecast.training.runner import Measurement

SURROUNDINGS = Surroundings(
    Machine("cpu", 2, 1, 10**9, 10**9, {"float32": 1e9}, 1e9), Versions("0", "3", "2", "5", "0")
)
TOKENS = 2000


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open(":memory:") as opened:
        yield opened


@pytest.fixture
def trials(prepared: PreparedTask, store: Store) -> Trials:
    """Three trials that have ended, the second one best."""
    rates = (1e-4, 1e-3, 1e-2)
    pipelines = [
        Pipeline("lora", {**EXPERT.hyperparameters, "per_device_train_batch_size": 4, "learning_rate": rate})
        for rate in rates
    ]
    laid_out = Trials(
        "session", prepared, pipelines, None, store, seed=0, full_length_tokens=TOKENS,
        unique_examples=128, workers=1, explosion_nats=99.0,
    )  # fmt: skip
    for place, loss in enumerate((3.0, 2.0, 4.0)):
        score = Score(loss, loss, loss, 16, 96)
        measured = Measurement(
            laid_out[place].spec.run, sample_point(loss=loss), Outcome.COMPLETED, validation=score
        )
        laid_out.record(place, measured, SURROUNDINGS, 1.0)
    return laid_out


def chosen(trials: Trials, budget: str, used: Used, most: int = 10**6) -> FinalTraining | None:
    return choose_final(trials, Allowance(Budget.parse(budget), 0.0), Pace(1e-3), used, most_tokens=most)


def test_the_best_pipeline_gets_what_is_left(trials: Trials) -> None:
    found = chosen(trials, "20k-tokens", Used(tokens=8000))
    assert found is not None
    assert found.run == trials[1].spec.run
    place = trials.append(trials[1].spec.pipeline, found.tokens)
    assert 12_000 - 1000 < trials[place].tokens_to_end <= 12_000
    assert trials[place].spec.run != found.run


def test_no_more_than_is_worth_it(trials: Trials) -> None:
    assert chosen(trials, "20k-tokens", Used(), most=5000) == FinalTraining(trials[1].spec.run, 5000)
    assert chosen(trials, "20k-tokens", Used(), most=0) is None


def test_not_for_little_more_than_a_trial(trials: Trials) -> None:
    assert chosen(trials, "20k-tokens", Used(tokens=16_000)) is not None
    assert chosen(trials, "20k-tokens", Used(tokens=17_000)) is None


def test_seconds_are_reckoned_by_their_upper_bound(trials: Trials) -> None:
    found = chosen(trials, "20s", Used(seconds=8.0))
    assert found is not None
    assert 0.5 * 12_000 < found.tokens < 0.9 * 12_000


def test_without_an_end_there_is_no_best(trials: Trials) -> None:
    for trial in trials:
        assert trial.run is not None
        trial.run = replace(trial.run, outcome=Outcome.DIVERGED)
    assert chosen(trials, "20k-tokens", Used()) is None


@pytest.fixture(scope="module")
def final_session(tiny_llama: Path, toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A session whose budget, not its data, limits how long a trial is."""
    flags = ["--model", str(tiny_llama), "--data", str(toy_data), "--budget", "40k-tokens", *FLAGS]
    flags += ["--strategy", "asha", "--methods", "lora,full", "--no-forecast"]
    flags += ["--fix", "per_device_train_batch_size=4"]
    return finish_with(flags, tmp_path_factory.mktemp("final") / "out")


def last(runs: list[Run]) -> Run:
    return max(runs, key=lambda run: run.full_length_tokens)


@pytest.mark.timeout(900)
def test_a_session_ends_with_a_longer_training_of_its_best_pipeline(final_session: Finished) -> None:
    runs = committed(final_session.folder)
    final = last(runs)
    searched = [run for run in runs if run.is_candidate and run.id != final.id]
    assert {run.full_length_tokens for run in searched} == {5000}
    assert 10_000 < final.full_length_tokens <= 15_633, "three passes"
    assert final.outcome is Outcome.COMPLETED
    ended = [run for run in searched if run.outcome is Outcome.COMPLETED]
    best = min(ended, key=lambda run: run.validation.loss)  # type: ignore[union-attr]
    assert (final.pipeline, final.seed, final.session) == (best.pipeline, best.seed, best.session)
    spent = sum(run.curve[-1].tokens_seen for run in runs if run.curve)
    assert 20_000 < spent <= 40_000
    assert final.validation is not None
    assert best.validation is not None
    assert final.validation.loss < best.validation.loss, "this data is far from learned after a fifth of it"
    assert final_session.result["incumbent"]["trial"] == final.id


@pytest.mark.timeout(900)
def test_the_report_says_that_the_winner_was_trained_for_longer(final_session: Finished) -> None:
    final = last(committed(final_session.folder)).full_length_tokens
    report = (final_session.folder / "report.html").read_text()
    assert f"a final training over {final:,} tokens" in report
    assert "too, were planned for 5,000." in report


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_kill_in_it_changes_nothing(final_session: Finished, tmp_path: Path) -> None:
    victim = Victim(final_session.flags, tmp_path / "out")
    victim.launch()
    victim.wait_until(lambda: any(run.full_length_tokens > 5000 for run in committed(victim.folder)))
    assert victim.kill("session")
    whole = committed(final_session.folder)
    kept = last(committed(victim.folder))
    assert kept.full_length_tokens > 5000
    assert kept.outcome is Outcome.PAUSED
    check_between(victim, whole)
    victim.launch()
    assert victim.process.wait(timeout=240) == 0, victim.log.read_text()[-3000:]
    check_end(victim, whole)
