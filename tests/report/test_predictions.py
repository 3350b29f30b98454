"""What a session's screen predicts, before and after the base model is measured."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tiny
from tunecast.api import resolve
from tunecast.errors import UserError
from tunecast.methods.space import BASELINE
from tunecast.progress import Silent
from tunecast.recommender.recommendation import Recommendation
from tunecast.records import Score, Seconds
from tunecast.report.numbers import duration
from tunecast.report.predictions import show_expected_time, show_measured, show_predictions
from tunecast.report.wording import majority_text
from tunecast.results import SampleOutput
from tunecast.session.calibrate_length import BaseMeasurement, timed_pipeline
from tunecast.session.constant_answers import majority_loss
from tunecast.session.prepare import PreparedTask, prepare_task
from tunecast.session.recommendation import recommended
from tunecast.session.settings import SessionSettings
from tunecast.session.wall_time import least_budget_seconds, predicted_speed
from tunecast.training.measurement import Scored


class Lines(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, text: str) -> None:
        self.lines.append(text)


def measurement(seconds_per_token: float, answering_seconds: float = 8.0) -> BaseMeasurement:
    answers = tuple(SampleOutput("", "a", "", "a") for _ in range(4))
    score = Score(4.0, 4.0, 4.0, 4, 4, loss_low=3.9, loss_high=4.1)
    scored = Scored(score, Seconds(1.0, 1.0), np.zeros(4), answers, answering_seconds=answering_seconds)
    return BaseMeasurement(scored, 100, 3000, timed_pipeline(BASELINE, "cpu"), seconds_per_token)


def predicted(settings: SessionSettings, prepared: PreparedTask, seconds_per_token: float) -> Recommendation:
    found = recommended(settings, prepared, 10**10, measurement(seconds_per_token))
    assert not isinstance(found, UserError)
    return found


def test_seconds_are_those_of_the_measured_speed_once_it_is_known(
    settings: SessionSettings, prepared: PreparedTask
) -> None:
    slow, fast = (predicted(settings, prepared, seconds) for seconds in (0.02, 0.01))
    for one, other in zip(slow.recommendations, fast.recommendations, strict=True):
        assert one.seconds == pytest.approx(2 * other.seconds, rel=0.2), "the machine's rates scatter"
        assert one.full_length_tokens == 3000, "the length of every trial"
    lora = next(one for one in slow.considered if one.pipeline.method == "lora")
    assert lora.seconds == pytest.approx(0.02 * 3000, rel=0.6), "what was measured, and evaluations"


def test_expected_times_are_told_again_by_what_was_measured(
    settings: SessionSettings, prepared: PreparedTask
) -> None:
    metric = replace(settings, objective="exact_match", budget="60s", final_training="epochs=2")
    prepared = replace(prepared, task=replace(prepared.task, metric="exact_match"))
    before, after = Lines(), Lines()
    guessed = recommended(metric, prepared, 10**10)
    show_expected_time(metric, prepared, guessed, before)
    found = predicted(metric, prepared, 0.02)
    show_measured(metric, prepared, found, measurement(0.02, answering_seconds=400.0), after)
    examples = len(prepared.training_task.test)
    hours = duration(4 * examples * 100.0).split()[:2]
    time = next(line for line in after.lines if line.startswith("Expected time by the measured speed: 60s"))
    assert " ".join(hours) in time, "four contenders, 100 s an answer"
    assert " ".join(hours) not in before.lines[0]
    for one in (before, after):
        assert sum("the winner is trained for 2 epochs" in line for line in one.lines) == 1


@pytest.mark.parametrize(("factor", "warned"), [(0.9, True), (1.2, False)])
def test_a_budget_that_is_expected_to_be_too_small_is_warned_of_before_it_begins(
    factor: float, warned: bool, settings: SessionSettings, prepared: PreparedTask
) -> None:
    found = predicted(settings, prepared, 0.02)
    speed = predicted_speed(prepared, found)
    least = least_budget_seconds(prepared.training_task, settings, speed)
    assert least > 16 * 0.02 * prepared.training_task.train_tokens / 128, "four steps of four examples"
    shown = Lines()
    show_expected_time(replace(settings, budget=f"{factor * least:.3f}s"), prepared, found, shown)
    assert any("is probably too small" in line for line in shown.lines) is warned


def test_guessing_is_told_beside_the_predictions(
    settings: SessionSettings, prepared: PreparedTask, tiny_llama: Path, tmp_path: Path
) -> None:
    assert majority_loss(prepared) is None, "its answers are open text"
    draw = random.Random(0)
    rows = [{"prompt": f"{draw.random():.8f}", "completion": "no" if i % 5 else "yes"} for i in range(200)]
    data = tiny.write_jsonl(tmp_path / "labels.jsonl", rows)
    labels = prepare_task(SessionSettings(str(tiny_llama), str(data)), Silent())
    loss = majority_loss(labels)
    assert loss is not None
    tokens = labels.training_task.validation[0].label_tokens
    assert loss * tokens == pytest.approx(0.5, abs=0.2), "the nats of four in five the same"
    shown = Lines()
    found = recommended(SessionSettings(str(tiny_llama), str(data)), labels, 10**10)
    show_predictions(labels, found, shown)
    assert (
        sum(f"guessing by how frequent each answer is: loss {loss:.2f}" in line for line in shown.lines) == 1
    )
    plan = resolve(SessionSettings(str(tiny_llama), str(data)))
    assert plan["majority_loss"] == loss
    assert "2 of these 3 predictions are lower" in majority_text(2.0, [1.0, 1.5, 2.5])
