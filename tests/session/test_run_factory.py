from __future__ import annotations

import math

from tunecast.session.prepare import PreparedTask
from tunecast.session.run_factory import affordable_validation, explosion_nats


def test_validation_fits_the_full_length(prepared: PreparedTask) -> None:
    training_task = prepared.training_task
    few = affordable_validation(training_task, 1, seed=0)
    many = affordable_validation(training_task, 10**9, seed=0)
    assert (len(few[0]), len(few[1])) == (16, 16)
    assert (len(many[0]), len(many[1])) == (len(training_task.validation), len(training_task.validation))
    assert affordable_validation(training_task, 10**4, seed=0) == affordable_validation(
        training_task, 10**4, seed=0
    )


def test_a_loss_explodes_well_above_knowing_nothing() -> None:
    assert explosion_nats(0.5, 1000) == 1.5 * math.log(1000)
    assert explosion_nats(20.0, 1000) == 30.0
