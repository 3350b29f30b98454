"""What a session predicts on its first screen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tunecast.api import resolve
from tunecast.data import read
from tunecast.data.token_lengths import measure_lengths
from tunecast.errors import ConfigurationError, UserError
from tunecast.predictor import load_prior
from tunecast.progress import Silent
from tunecast.recommender.recommendation import Recommendation
from tunecast.session.candidates import candidate_pipelines
from tunecast.session.prepare import prepare_task
from tunecast.session.recommendation import (
    question_of,
    recommended,
    recommended_candidates,
    situation_of,
)
from tunecast.session.settings import SessionSettings


class Lines(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, text: str) -> None:
        self.lines.append(text)


def test_first_screen_holds_three_predictions(tiny_llama: Path, toy_data: Path) -> None:
    shown = Lines()
    found = resolve(SessionSettings(str(tiny_llama), str(toy_data)), progress=shown)
    assert shown.lines[0].startswith("Predicted before anything runs (base model: loss")
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
    longer = question_of(replace(settings, strategy="transfer")).budget
    assert longer == one or float(longer.rstrip("s-token")) > float(one.rstrip("s-token"))


def test_what_a_recommendation_chose_from_are_candidates_of_strategies_that_predict(
    tiny_llama: Path, toy_data: Path
) -> None:
    settings = SessionSettings(str(tiny_llama), str(toy_data))
    prepared = prepare_task(settings, Silent())
    facts = prepared.training_task.facts
    found = recommended(settings, prepared, 10**10)
    assert isinstance(found, Recommendation)
    pipelines = recommended_candidates(settings, facts, found)
    assert pipelines[0] == found.recommendations[0].pipeline
    assert {one.pipeline.id for one in found.considered} <= {one.id for one in pipelines}
    assert len({one.id for one in pipelines}) == len(pipelines) > 2 * len(found.considered)
    candidates = candidate_pipelines(settings, facts, pipelines)
    assert candidates[1 : 1 + len(pipelines)] == pipelines
    assert recommended_candidates(replace(settings, strategy="asha"), facts, found) == []
    assert recommended_candidates(settings, facts, ConfigurationError("nothing is known")) == []


def test_candidates_at_other_rates_stay_within_what_the_user_allows(tiny_llama: Path, toy_data: Path) -> None:
    bounded = SessionSettings(str(tiny_llama), str(toy_data), ranges={"learning_rate": (1e-4, 2e-4)})
    fixed = replace(bounded, ranges={}, fixed={"learning_rate": 3e-4})
    for settings, low, high in ((bounded, 1e-4, 2e-4), (fixed, 3e-4, 3e-4)):
        prepared = prepare_task(settings, Silent())
        found = recommended(settings, prepared, 10**10)
        pipelines = recommended_candidates(settings, prepared.training_task.facts, found)
        assert pipelines
        assert all(low <= one.number("learning_rate") <= high for one in pipelines)


def test_a_prior_of_the_users_own_recommends_too(tiny_llama: Path, toy_data: Path, tmp_path: Path) -> None:
    settings = SessionSettings(str(tiny_llama), str(toy_data), prior=str(tmp_path / "none.safetensors"))
    found = recommended(settings, prepare_task(settings, Silent()), 10**10)
    assert isinstance(found, UserError)
    assert "none.safetensors" in found.what
    load_prior().save(tmp_path / "none.safetensors")
    assert isinstance(recommended(settings, prepare_task(settings, Silent()), 10**10), Recommendation)


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
