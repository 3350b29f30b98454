"""Values that another program did not record stay unknown."""

from __future__ import annotations

import math

from tunecast.records import Outcome
from tunecast.store.importing.foreign import UNKNOWN, Assumed, ForeignRun, LoggedEvaluation


def test_records_override_assumed_names() -> None:
    run = ForeignRun("csv", "k", task="told").to_run(Assumed(task="assumed", model="assumed"))
    assert (run.task.dataset, run.task.model, run.pipeline.method) == ("told", "assumed", UNKNOWN)
    assert {"method", "seed", "machine"} <= set(run.extra["unknown"])
    assert "model" not in run.extra["unknown"]


def test_known_fields_are_not_listed_as_unknown() -> None:
    run = ForeignRun(
        "csv", "k", seed=0, total_steps=4, evaluations=(LoggedEvaluation(2, 1.5, tokens_seen=10),)
    )
    unknown = run.to_run(Assumed()).extra["unknown"]
    assert not {"seed", "total_steps", "tokens_seen"} & set(unknown)
    assert run.to_run(Assumed()).curve[0].share == 0.5


def test_unknown_numbers_are_not_zero_where_zero_would_be_a_measurement() -> None:
    point = ForeignRun("csv", "k", evaluations=(LoggedEvaluation(2, 1.5),)).to_run(Assumed()).curve[0]
    for value in (
        point.share,
        point.learning_rate,
        point.training.wall,
        point.validation.nats_per_completion,
    ):
        assert math.isnan(value)


def test_an_evaluation_that_was_repeated_counts_once() -> None:
    given = (LoggedEvaluation(4, 2.0), LoggedEvaluation(2, 3.0), LoggedEvaluation(4, 1.0))
    run = ForeignRun("csv", "k", evaluations=given).to_run(Assumed())
    assert [(point.step, point.validation.loss) for point in run.curve] == [(2, 3.0), (4, 1.0)]


def test_the_id_depends_on_the_source_and_its_key_only() -> None:
    first = ForeignRun("csv", "k", task="a").to_run(Assumed())
    assert first.id == ForeignRun("csv", "k", task="b", outcome=Outcome.PAUSED).to_run(Assumed()).id
    assert first.id != ForeignRun("mlflow", "k", task="a").to_run(Assumed()).id
