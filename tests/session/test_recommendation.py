"""What a session predicts on its first screen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tunecast.api import resolve
from tunecast.data import read
from tunecast.data.token_lengths import measure_lengths
from tunecast.predictor import load_prior
from tunecast.progress import Silent
from tunecast.recommender.recommendation import Recommendation
from tunecast.search import Lineup
from tunecast.session.candidates import candidate_pipelines
from tunecast.session.prepare import prepare_task
from tunecast.session.recommendation import lineup_of, question_of, recommendation_for, situation_of
from tunecast.session.settings import SessionSettings


class Lines(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, text: str) -> None:
        self.lines.append(text)


def test_first_screen_holds_three_predictions(tiny_llama: Path, toy_data: Path) -> None:
    shown = Lines()
    found = resolve(SessionSettings(str(tiny_llama), str(toy_data)), progress=shown)
    assert shown.lines[0].startswith("Predicted before anything runs (untouched model: loss")
    assert len(shown.lines) == 4
    assert all(" gain, loss " in line and " GB: " in line for line in shown.lines[1:4])
    assert len(found["prediction"]["recommendations"]) == 3


def test_what_is_doubtful_in_a_prediction_is_told_on_the_first_screen(
    tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    shown = Lines()
    found = resolve(SessionSettings(str(tiny_llama), str(toy_data), budget="3000-tokens"), progress=shown)
    (doubt,) = found["prediction"]["warnings"]
    assert "Too few optimiser steps" in doubt
    assert f"Note: {doubt}" in shown.lines
    assert "--measure" not in " ".join(shown.lines), "a session measures it unasked"


def test_what_the_user_chose_holds_for_predictions_too(tiny_llama: Path, toy_data: Path) -> None:
    settings = SessionSettings(
        str(tiny_llama),
        str(toy_data),
        methods=("lora",),
        fixed={"lora_r": 4},
        ranges={"learning_rate": (1e-5, 1e-4)},
    )
    for one in resolve(settings)["prediction"]["recommendations"]:
        assert one["pipeline"]["lora_r"] == 4
        assert one["pipeline"]["learning_rate"] == 1e-4


def test_what_cannot_be_predicted_is_said_and_stops_nothing(tiny_llama: Path, toy_data: Path) -> None:
    shown = Lines()
    settings = SessionSettings(str(tiny_llama), str(toy_data), budget="0.002s")
    found = resolve(settings, progress=shown)
    assert shown.lines[0].startswith("Nothing is predicted: --budget")
    assert found["prediction"]["warnings"]


@pytest.mark.parametrize(
    ("budget", "one"), [("30m", "450.000s"), ("2M-tokens", "500000-tokens"), ("20-trials", "")]
)
def test_one_training_takes_what_a_session_gives_a_trial(budget: str, one: str) -> None:
    settings = SessionSettings("m", "d", budget=budget, strategy="asha", final_training="none")
    assert question_of(settings).budget == one
    half = question_of(replace(settings, final_training="auto")).budget
    assert half == {"450.000s": "225.000s", "500000-tokens": "250000-tokens"}.get(one, "")
    longer = question_of(replace(settings, strategy="advised")).budget
    assert longer == one or float(longer.rstrip("s-token")) > float(one.rstrip("s-token"))


def test_a_session_begins_with_what_is_best_at_equal_tokens(tiny_llama: Path, toy_data: Path) -> None:
    settings = SessionSettings(str(tiny_llama), str(toy_data))
    prepared = prepare_task(settings, Silent())
    advice, advised = recommendation_for(settings, prepared, 10**10)
    assert isinstance(advice, Recommendation)
    found = advised.pipelines
    assert len(found) == len({pipeline.id for pipeline in found}) == 64
    assert {one.id for one in found[:3]} == {one.pipeline.id for one in advice.recommendations}
    tokens = advice.recommendations[0].full_length_tokens
    slow_first = tuple(replace(one, full_length_tokens=tokens) for one in reversed(advice.recommendations))
    turned = replace(advice, recommendations=slow_first)
    again = lineup_of(settings, prepared, turned, load_prior())
    assert again.pipelines == found
    losses = {name: end.log_loss for name, end in advised.predicted.items()}
    assert {name: end.log_loss for name, end in again.predicted.items()} == pytest.approx(losses)
    assert recommendation_for(replace(settings, strategy="asha"), prepared, 10**10)[1] == Lineup()


def test_the_final_loss_of_every_candidate_is_predicted(tiny_llama: Path, toy_data: Path) -> None:
    settings = SessionSettings(str(tiny_llama), str(toy_data))
    prepared = prepare_task(settings, Silent())
    advice, advised = recommendation_for(settings, prepared, 10**10)
    assert isinstance(advice, Recommendation)
    candidates = candidate_pipelines(settings, prepared.training_task.facts, advised.pipelines)
    assert {pipeline.id for pipeline in candidates} == set(advised.predicted)
    ends = [advised.predicted[pipeline.id] for pipeline in advised.pipelines]
    assert [end.log_loss for end in ends[:3]] == sorted(end.log_loss for end in ends[:3])
    best = advice.recommendations[0]
    told = advised.predicted[best.pipeline.id]
    assert told.loss == pytest.approx(best.predicted_loss, rel=0.05)
    assert (told.low, told.high) == (pytest.approx(best.low, rel=0.1), pytest.approx(best.high, rel=0.1))


@pytest.mark.parametrize(("wanted", "used"), [(None, 128), (40, 40), (100_000, 128)])
def test_advice_takes_no_more_examples_than_there_are(
    tiny_llama: Path, toy_data: Path, wanted: int | None, used: int
) -> None:
    settings = SessionSettings(str(tiny_llama), str(toy_data), unique_examples=wanted)
    prepared = prepare_task(settings, Silent())
    known = situation_of(settings, prepared, 10**10)
    assert prepared.unique_examples(wanted) == known.task.unique_examples == known.lengths.examples == used
    assert known.lengths.train_tokens == pytest.approx(used * known.lengths.mean, abs=1)


def test_lengths_are_those_that_advice_measures(tiny_llama: Path, toy_data: Path) -> None:
    settings = SessionSettings(str(tiny_llama), str(toy_data))
    prepared = prepare_task(settings, Silent())
    known = situation_of(settings, prepared, 10**10).lengths
    measured = measure_lengths(read(str(toy_data)), tiny_llama, context=128)
    assert known.mean == pytest.approx(measured.mean, rel=0.05)
    assert known.bytes_per_label_token == pytest.approx(measured.bytes_per_label_token, rel=0.15)
    assert (known.max_length, known.examples) == (measured.max_length, measured.examples)
