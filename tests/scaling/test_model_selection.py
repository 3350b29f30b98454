"""The ranking of models by their predicted losses."""

from __future__ import annotations

import numpy as np
import pytest

from scaling.planted import SIZES, models_table, rectified
from tunecast.scaling import LossRow, LossTable, build_table, forecast, select
from tunecast.scaling.laws import RECTIFIED
from tunecast.scaling.observations import observe


@pytest.fixture(scope="module")
def planted() -> LossTable:
    return models_table(count=5)


def test_the_ranking_is_complete_cautious_and_near_the_truth(planted: LossTable) -> None:
    ranking = select(planted.up_to(SIZES[-4]), SIZES[-1])
    assert [entry.cautious for entry in ranking] == sorted(entry.cautious for entry in ranking)
    assert all(entry.low < entry.cautious < entry.high for entry in ranking)
    assert {entry.group["model"] for entry in ranking} == {curve.group["model"] for curve in planted.curves}
    predicted = {entry.group["model"]: entry.loss for entry in ranking}
    ours = [predicted[curve.group["model"]] for curve in planted.curves]
    assert np.corrcoef(ours, [curve.losses[-1] for curve in planted.curves])[0, 1] > 0.9


def test_the_chances_to_be_best_add_up_and_open_with_the_distance(planted: LossTable) -> None:
    near, far = (select(planted.up_to(SIZES[-2] / share), SIZES[-1]) for share in (1, 64))
    for ranking in (near, far):
        assert sum(entry.best for entry in ranking) == pytest.approx(1)
    assert max(entry.best for entry in far) < max(entry.best for entry in near)


def test_a_curve_that_may_fall_far_is_not_preferred_to_one_that_surely_does() -> None:
    """At 32 times the data, a noisy curve that has just begun to fall is predicted lower, but not surely."""
    random = np.random.default_rng(1)
    steady = [LossRow(float(rectified(s, 20, 8, 0.4, 0.9)), s, {"model": "steady"}) for s in SIZES[:8]]
    level = float(rectified(SIZES[7] * 32, 20, 8, 0.4, 0.9))
    falls = np.array([0, 0, 0, 0, 0.02, 0.06, 0.13, 0.26]) + 0.02 * random.normal(size=8)
    bold = [
        LossRow(2.6 * level * float(np.exp(-f)), s, {"model": "bold"})
        for s, f in zip(SIZES[:8], falls, strict=True)
    ]
    ranking = {
        entry.group["model"]: entry
        for entry in select(build_table([*steady, *bold], ["model"]), SIZES[7] * 32)
    }
    bold_entry, steady_entry = ranking["bold"], ranking["steady"]
    assert bold_entry.loss < steady_entry.loss
    assert steady_entry.cautious < bold_entry.cautious


def test_losses_before_finetuning_inform_curves_whose_fall_they_predict() -> None:
    """On three draws of noise: on one alone, the gain varies by as much as the sampler's own error."""
    informed, without = (
        np.mean([np.abs(_predicted(zero, seed) / _TRUTH - 1)[1::2] for seed in range(3)])
        for zero in (True, False)
    )
    assert informed < 0.9 * without


def test_losses_before_finetuning_are_no_covariate_where_one_is_missing() -> None:
    with_zero = observe(_late(True), RECTIFIED).covariates
    rows = _late(True).curves
    assert with_zero.shape[1] == 1 + observe(_late(False), RECTIFIED).covariates.shape[1]
    partly = LossTable((*rows[:-1], *_late(False).curves[-1:]))
    assert observe(partly, RECTIFIED).covariates.shape[1] == with_zero.shape[1] - 1


_ONSETS = np.geomspace(2.0, 60.0, 28)
_TRUTH = np.array([float(rectified(SIZES[-1], 3.0 * onset, onset, 0.45, 0.5)) for onset in _ONSETS])


def _late(zero_shot: bool, seed: int = 0) -> LossTable:
    """Curves whose fall begins the later, the higher their loss is before finetuning; half are short."""
    random = np.random.default_rng(seed)
    rows = []
    for index, onset in enumerate(_ONSETS):
        label = {"model": f"m{index:02d}"}
        for size in SIZES[: 3 if index % 2 else 10]:
            loss = float(rectified(size, 3.0 * onset, onset, 0.45, 0.5) * np.exp(0.003 * random.normal()))
            rows.append(LossRow(loss, float(size), label))
        if zero_shot:
            rows.append(LossRow(float(onset), 0.0, label))
    return build_table(rows, ["model"])


def _predicted(zero_shot: bool, seed: int) -> np.ndarray:
    entries = forecast(_late(zero_shot, seed), [SIZES[-1]], with_advice=False).forecasts
    return np.array([entry.loss for entry in sorted(entries, key=lambda entry: str(entry.group["model"]))])
