"""What a session knows of other tasks, and a real one that rests on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import sessions
from replay.made_up import task_runs
from tunecast.errors import ConfigurationError
from tunecast.predictor import load_prior
from tunecast.progress import Silent
from tunecast.search import Context, get_strategy
from tunecast.session.state import SessionState
from tunecast.session.transfer_state import as_begun, keep, prior_known, runs_known
from tunecast.store import Store, meta_dataset


@pytest.fixture(autouse=True)
def nothing_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meta_dataset, "shipped", lambda: None)


def test_runs_of_the_store_without_the_sessions_own() -> None:
    runs = task_runs("a")
    with Store.open(":memory:") as store:
        store.put_all([*runs, replace(runs[1], id="own", session="mine")])
        known = runs_known(get_strategy("portfolio"), store, "mine", Silent())
        assert {run.id for run in known} == {run.id for run in runs}
        assert runs_known(get_strategy("asha"), store, "mine", Silent()) == ()


def test_what_is_shipped_is_known_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "shipped.sqlite"
    with Store.open(path) as shipped:
        shipped.put_all(task_runs("a"))
    monkeypatch.setattr(meta_dataset, "shipped", lambda: path)
    with Store.open(":memory:") as store:
        store.put_all(task_runs("b"))
        known = runs_known(get_strategy("nearest-task"), store, "mine", Silent())
    assert {run.task.dataset for run in known} == {"a", "b"}


def test_too_few_runs_are_one_error_before_anything_is_spent() -> None:
    with Store.open(":memory:") as store:
        store.put_all(task_runs("a")[:3])
        with pytest.raises(ConfigurationError, match=r"(?s)too few.*tunecast collect"):
            runs_known(get_strategy("portfolio"), store, "mine", Silent())


@pytest.mark.parametrize("strategy", ["portfolio"])
def test_a_session_tries_what_was_best_elsewhere(
    strategy: str, tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "known.sqlite"
    # Elsewhere nothing came near the best full finetunings.
    elsewhere = [
        replace(run, validation=replace(run.validation, loss=0.5 * run.validation.loss))
        if run.pipeline.method == "full" and run.validation
        else run
        for run in task_runs("elsewhere")
    ]
    with Store.open(path) as store:
        store.put_all(elsewhere)
    flags = ("--budget", "3-trials", "--epochs", "1", "--strategy", strategy, "--store", str(path))
    sessions.finish(tmp_path / "out", tiny_llama, toy_data, *flags, "--no-forecast")
    with Store.open(path) as store:
        tried = [run for run in store.runs(task=toy_data.stem) if run.is_candidate]
    methods = [run.pipeline.method for run in sorted(tried, key=lambda run: run.created_at)]
    assert methods == ["lora", "full", "full"]


@pytest.mark.parametrize("fits", [True, False])
def test_the_order_of_candidates_is_written_down_without_an_baseline_that_does_not_fit(fits: bool) -> None:
    runs = task_runs("a")
    pipelines = [run.pipeline for run in runs if run.is_candidate]
    begun = Context(runs[0].dataset, runs[0].model, runs[0].full_length_tokens, 100, runs=tuple(runs))
    state = SessionState("id", {}, "of these rows")
    keep(state, get_strategy("portfolio"), begun, pipelines, baseline_fits=fits)
    assert state.candidates == pipelines
    assert state.listed is not None
    assert (pipelines[0].id in state.listed) is fits
    later = as_begun(replace(begun, runs=()), state)
    assert later.listed == tuple(state.listed)
    assert later.is_prior_kept


def test_a_strategy_that_knows_no_other_task_keeps_its_candidates_alone() -> None:
    run = task_runs("a")[0]
    plain = Context(run.dataset, run.model, run.full_length_tokens, 100)
    state = SessionState("id", {}, "of these rows")
    keep(state, get_strategy("asha"), plain, [run.pipeline], baseline_fits=True)
    assert (state.candidates, state.listed, state.prior) == ([run.pipeline], None, None)
    assert as_begun(plain, state) == plain


def test_another_prior_is_noticed() -> None:
    run, prior = task_runs("a")[0], load_prior()
    begun = Context(run.dataset, run.model, run.full_length_tokens, 100, prior=prior)
    state = SessionState("id", {}, "of these rows")
    keep(state, get_strategy("transfer"), begun, [run.pipeline], baseline_fits=True)
    assert as_begun(begun, state).is_prior_kept
    steeper = replace(prior.quality.law, curvature=2 * prior.quality.law.curvature)
    other = replace(prior, quality=replace(prior.quality, law=steeper))
    assert other.provenance == prior.provenance
    assert not as_begun(replace(begun, prior=other), state).is_prior_kept


def test_the_prior_is_read_from_its_file_for_strategies_that_rest_on_it_and_for_no_other(
    tmp_path: Path,
) -> None:
    changed = replace(load_prior(), provenance=replace(load_prior().provenance, checksum="my own"))
    changed.save(tmp_path / "prior")
    found = prior_known(get_strategy("transfer"), str(tmp_path / "prior"))
    assert found is not None
    assert found.provenance.checksum == "my own"
    assert prior_known(get_strategy("quick-tune"), "") is load_prior()
    assert prior_known(get_strategy("asha"), str(tmp_path / "nowhere")) is None
