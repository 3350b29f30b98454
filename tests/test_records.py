"""What a run says of itself."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from sample_runs import sample_curve, sample_machine, sample_model, sample_point, sample_run, sample_score
from tunecast.records import Outcome


def test_the_loss_at_the_end_is_that_on_all_validation_examples_where_it_was_measured() -> None:
    run = sample_run(1, curve=sample_curve(floor=2.0), validation=sample_score(3.0))
    assert run.end_loss == 3.0
    assert replace(run, validation=None).end_loss == run.curve[-1].validation.loss


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.COMPLETED])
def test_a_run_that_was_not_completed_has_no_finite_loss_at_its_end(outcome: Outcome) -> None:
    assert sample_run(1, outcome=outcome, validation=sample_score(3.0)).end_loss == math.inf


def test_a_loss_that_is_no_number_is_infinite_at_the_end() -> None:
    assert sample_run(1, validation=sample_score(math.nan)).end_loss == math.inf
    assert sample_run(1, validation=None, curve=()).end_loss == math.inf


def test_a_base_model_is_told_by_its_weights_or_else_by_its_name() -> None:
    model = sample_model("one", weights_hash="")
    assert model.identity == "one"
    assert (
        replace(model, weights_hash="0123").identity
        == replace(model, name="two", weights_hash="0123").identity
    )


@pytest.mark.parametrize(
    ("device", "exclusive", "workers", "seconds"),
    [
        ("cpu", False, 2, 0.9 * 24 / 2),  # processor seconds of two threads
        ("cpu", True, 1, 0.5 * 24),
        ("cuda", False, 1, 0.5 * 24),
        ("cuda", False, 2, None),
        ("cuda:1", True, 2, None),
    ],
)
def test_seconds_on_an_idle_machine_are_known_if_a_clock_shows_them(
    device: str, exclusive: bool, workers: int, seconds: float | None
) -> None:
    curve = tuple(sample_point(step, workers=workers) for step in (8, 16))
    run = sample_run(1, curve=curve, machine=sample_machine(device=device), exclusive=exclusive)
    assert run.training_seconds == (seconds and pytest.approx(seconds))
    assert replace(run, curve=()).training_seconds is None
