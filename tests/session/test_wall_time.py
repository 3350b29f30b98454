from __future__ import annotations

from dataclasses import replace

import pytest

from tunecast.errors import UserError
from tunecast.session.prepare import PreparedTask
from tunecast.session.recommendation import recommended
from tunecast.session.settings import SessionSettings
from tunecast.session.wall_time import test_scoring_seconds as scoring_seconds


def test_scoring_takes_longer_with_more_examples_and_with_answers(
    settings: SessionSettings, prepared: PreparedTask
) -> None:
    predicted = recommended(settings, prepared, 10**9)
    assert not isinstance(predicted, UserError)
    task = prepared.training_task
    half = replace(task, test=task.test[::2], test_examples=task.test_examples[::2])
    whole = scoring_seconds(task, "", predicted)
    assert whole > 0
    assert scoring_seconds(half, "", predicted) == pytest.approx(whole / 2, rel=0.2)
    assert scoring_seconds(task, "exact_match", predicted) > whole
