"""Recommending a federated method: what is learned from the study, and what costs follow from shapes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tunecast.errors import ConfigurationError
from tunecast.federated.registry import federated_method
from tunecast.federated.settings import FederatedSettings
from tunecast.predictor import load_prior
from tunecast.recommender.federated import FederatedRecommendation, rebuilt_directions, recommend_federated
from tunecast.recommender.federated_study import SKEWS, VARIANTS, Federation, Study, study_of_package
from tunecast.recommender.question import Question, Situation, read_situation
from tunecast.recommender.recommendation import ZeroShotLoss


@pytest.fixture(scope="module")
def question(tiny_llama: Path, toy_data: Path) -> Question:
    return Question(str(tiny_llama), str(toy_data), gpu="RTX 4090")


@pytest.fixture(scope="module")
def situation(question: Question) -> Situation:
    return read_situation(question)


def asked(question: Question, situation: Situation, **values: object) -> FederatedRecommendation:
    federation = Federation(**{"clients": 8, "rounds": 5, **values})  # type: ignore[arg-type]
    return recommend_federated(question, situation, federation, load_prior())


def study_row(variant: str, task: str, kept: float, **values: object) -> dict[str, str]:
    usual = {"model": "m", "parameters": 2_000_000, "clients": 8, "share": 1.0, "concentration": 0.5}
    row = usual | {"seed": 0, "round": 4, "variant": variant, "task": task, "kept": kept} | values
    return {name: str(value) for name, value in row.items()}


def test_every_method_is_compared_and_the_best_comes_first(question: Question, situation: Situation) -> None:
    found = asked(question, situation)
    assert {one.variant for one in found.prospects} == set(VARIANTS)
    shares = [one.kept for one in found.prospects]
    assert shares == sorted(shares, reverse=True)
    for one in found.prospects:
        assert 0 <= one.kept_low <= one.kept <= one.kept_high <= 1
        assert one.kept_low < one.kept_high
        assert one.low <= one.predicted_loss <= one.high
        assert one.seconds_low < one.seconds < one.seconds_high


def test_bytes_are_those_of_the_methods(question: Question, situation: Situation) -> None:
    found = {one.variant: one for one in asked(question, situation, clients=10, share=0.3).prospects}
    for variant, values in VARIANTS.items():
        settings = FederatedSettings(question.model, "", "", rounds=5, **values)  # type: ignore[arg-type]
        method = federated_method(settings)
        each = [method.traffic(situation.task.model, number) for number in range(1, 6)]
        total = sum(one.down + one.up for one in each)
        assert found[variant].round_bytes == total / 5
        assert found[variant].total_bytes == 3 * total


def test_a_measured_loss_moves_the_predictions(question: Question, situation: Situation) -> None:
    measured = ZeroShotLoss(2.0, "measured", 2.0, 2.0)
    found = recommend_federated(question, situation, Federation(8), load_prior(), measured)
    assert found.zero_shot_loss is measured
    for one in found.prospects:
        expected = 2.0 - one.kept * (2.0 - found.centralised_loss)
        assert one.predicted_loss == pytest.approx(expected)


def test_an_interval_holds_all_corners_even_if_training_makes_the_model_worse(
    question: Question, situation: Situation
) -> None:
    measured = ZeroShotLoss(1e-3, "measured", 5e-4, 2e-3)
    found = recommend_federated(question, situation, Federation(8), load_prior(), measured)
    assert found.centralised_loss > 1e-3
    for one in found.prospects:
        assert one.low <= 5e-4 + one.kept_low * found.centralised_loss
        assert one.low <= one.predicted_loss <= one.high


def test_more_clients_share_the_work(question: Question, situation: Situation) -> None:
    few, many = (
        {one.variant: one.seconds for one in asked(question, situation, clients=clients).prospects}
        for clients in (2, 16)
    )
    assert many["fedavg-lora"] < few["fedavg-lora"] / 4
    (seeds,) = (name for name in few if name.startswith("fedkseed"))
    assert many[seeds] == pytest.approx(few[seeds]), "its steps do not depend on the data"


def test_seconds_count_the_clients_that_are_drawn(question: Question, situation: Situation) -> None:
    """Of 8 clients a hundredth is one, which trains an eighth of the rounds on average."""
    whole, part = (
        {one.variant: one.seconds for one in asked(question, situation, share=share).prospects}
        for share in (1.0, 0.01)
    )
    assert part["fedavg-lora"] == pytest.approx(whole["fedavg-lora"] / 8)


def test_one_round_is_too_few_for_two_stages(question: Question, situation: Situation) -> None:
    found = asked(question, situation, rounds=1)
    assert {one.variant for one in found.prospects} == set(VARIANTS) - {"slora"}
    assert "slora is left out: its two stages need at least 2 rounds." in found.warnings


def test_a_processor_rebuilds_weights_direction_by_direction() -> None:
    settings = FederatedSettings("m", "", "", method="fedkseed", rounds=3, seeds=100, steps=10)
    draw = np.random.default_rng(0)
    counted = []
    for _ in range(200):
        drawn = [draw.integers(100, size=40) for _ in range(2)]
        counted.append(len(set(drawn[0])) + len(set(np.concatenate(drawn))))
    assert rebuilt_directions(settings, trained=4) == pytest.approx(np.mean(counted), rel=0.02)


def truth(variant: str, concentration: float, clients: int, share: float) -> float:
    level = {"fedavg-lora": 0.8, "slora": 0.5}[variant]
    return float(level + 0.1 * np.log10(concentration) - 0.1 * np.log(clients / 8) + 0.05 * np.log(share))


def test_the_study_learns_each_methods_level_and_the_common_slopes() -> None:
    grid = [
        (variant, concentration, clients, share)
        for variant in ("fedavg-lora", "slora")
        for concentration in SKEWS.values()
        for clients, share in ((8, 1.0), (8, 0.5), (24, 1.0), (24, 0.5))
    ]
    rows = [
        study_row(one[0], task, truth(*one), concentration=one[1], clients=one[2], share=one[3])
        for one in grid
        for task in ("a", "b")
        for _ in range(10)
    ]
    study = Study.learned(rows)
    for variant, concentration, clients, share in grid:
        skew = next(name for name, value in SKEWS.items() if value == concentration)
        kept, low, high = study.kept(variant, Federation(clients, rounds=4, share=share, skew=skew))
        assert kept == pytest.approx(min(1.0, truth(variant, concentration, clients, share)), abs=0.03)
        assert low <= kept <= high
    assert study.deviation < 0.05
    differing = [row | {"kept": str(float(row["kept"]) - 0.3 * (row["task"] == "b"))} for row in rows]
    assert Study.learned(differing).deviation == pytest.approx(0.3, abs=0.06), "tasks are left out"


def test_later_rounds_keep_what_the_studys_last_one_keeps() -> None:
    study = study_of_package()
    last = [study.kept("slora", Federation(8, rounds=rounds)) for rounds in (study.rounds, 50)]
    assert last[0] == last[1]
    assert last[0] != study.kept("slora", Federation(8, rounds=2))


def test_what_the_study_has_not_seen_is_said(question: Question, situation: Situation) -> None:
    assert not study_of_package().beyond(Federation(8, rounds=3))
    notes = " ".join(asked(question, situation, clients=120, rounds=200, share=0.01).warnings)
    assert "shares for 120 are extrapolated" in notes
    assert "shares after 200 are taken to be the same" in notes
    assert "shares for 1% are extrapolated" in notes


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clients": 1}, "--federated 1: a federation has at least 2 clients"),
        ({"clients": 8, "rounds": 0}, "--rounds must be at least 1"),
        ({"clients": 8, "share": 1.5}, "--share must be at most 1"),
        ({"clients": 8, "skew": "hihg"}, "--skew hihg: there is no such value"),
    ],
)
def test_mistakes(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Federation(**values)  # type: ignore[arg-type]


def test_a_client_needs_an_example(question: Question, situation: Situation) -> None:
    few = replace(situation, task=replace(situation.task, unique_examples=5))
    with pytest.raises(ConfigurationError, match="--federated 8: --data has only 5 training examples"):
        asked(question, few)
