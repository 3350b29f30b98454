"""Features: names, what makes models comparable, and what a curve says."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from planted_runs import planted_dataset, planted_model
from sample_runs import sample_point
from tunecast.methods.rates import adapter_rate, optimizer_rate
from tunecast.predictor import TaskDescription
from tunecast.predictor.features import CURVE, FEATURES, PIPELINE, curve_row, feature_rows, pipeline_row
from tunecast.records import Pipeline


def setting(width: int = 128, **changes: object) -> TaskDescription:
    made = TaskDescription(planted_dataset(0), planted_model(width), 16_384, 400, 4.0)
    return replace(made, **changes)


def value(row: np.ndarray, name: str) -> float:
    return float(row[FEATURES.index(name)])


def lora(rate: float, **more: object) -> Pipeline:
    values = {"learning_rate": rate, "lora_r": 8, "lora_alpha": 16, "per_device_train_batch_size": 8}
    return Pipeline("lora", values | more)


def test_names_are_distinct_and_rows_have_as_many() -> None:
    assert len(set(FEATURES)) == len(FEATURES)
    curve = (sample_point(8, 3.0), sample_point(16, 2.5))
    rows = feature_rows(setting(), [lora(1e-3), Pipeline("full", {})], [(), curve])
    assert rows.shape == (2, len(FEATURES))
    assert np.isfinite(rows).all()
    assert np.array_equal(rows[:1], feature_rows(setting(), [lora(1e-3)]))


def test_the_same_multiple_of_the_usual_rate_looks_the_same_at_any_width() -> None:
    rows = [pipeline_row(lora(3 * adapter_rate(m)), m) for m in (planted_model(128), planted_model(1024))]
    places = [PIPELINE.index(name) for name in ("log_rate", "log_effective_rate", "log_scale")]
    assert np.allclose(*(np.array(row)[places] for row in rows))
    assert rows[0][PIPELINE.index("log_rate")] == pytest.approx(math.log(3))


@pytest.mark.parametrize("optimizer", ["sgd", "lion"])
def test_an_optimizers_own_rates_are_taken_out(optimizer: str) -> None:
    model = planted_model()
    plain = pipeline_row(lora(1e-3), model)
    other = pipeline_row(lora(optimizer_rate(optimizer, 1e-3), optim=optimizer), model)
    place = PIPELINE.index("log_rate")
    assert other[place] == pytest.approx(plain[place])
    assert other[PIPELINE.index(f"optimizer_{optimizer}")] == 1


def test_the_scale_of_an_adapter_is_part_of_its_effective_rate() -> None:
    model, place = planted_model(), PIPELINE.index("log_effective_rate")
    weak, strong = (pipeline_row(lora(1e-3, lora_alpha=alpha), model)[place] for alpha in (8, 32))
    assert strong - weak == pytest.approx(math.log(4))
    rank_stabilised = pipeline_row(lora(1e-3, use_rslora=True), model)[PIPELINE.index("log_scale")]
    assert rank_stabilised == pytest.approx(math.log(16 / math.sqrt(8)))


def test_trainable_share_grows_with_rank_and_is_whole_for_full() -> None:
    model, place = planted_model(), PIPELINE.index("log_trainable_share")
    small, large = (pipeline_row(lora(1e-3, lora_r=rank), model)[place] for rank in (4, 32))
    assert small < large < 0 == pipeline_row(Pipeline("full", {"learning_rate": 1e-3}), model)[place]


def test_steps_are_the_full_length_over_the_tokens_of_a_batch() -> None:
    made = setting()
    row = feature_rows(made, [lora(1e-3)])[0]
    assert math.exp(value(row, "log_steps")) == pytest.approx(16_384 / (8 * made.mean_tokens))
    few = feature_rows(setting(unique_examples=2), [lora(1e-3)])[0]
    assert math.exp(value(few, "log_tokens_per_update")) == pytest.approx(2 * made.mean_tokens)


def test_mean_tokens_come_from_raw_facts_where_they_are() -> None:
    facts = {"examples": 10, "prompt": {"tokens": {"total": 300}}, "completion": {"tokens": {"total": 200}}}
    assert setting(dataset=replace(planted_dataset(0), facts=facts)).mean_tokens == 50


def test_a_curve_is_told_relative_to_the_zero_shot_loss() -> None:
    curve = [replace(sample_point(loss=loss), share=share) for loss, share in ((2.0, 0.25), (1.0, 0.5))]
    row = dict(zip(CURVE, curve_row(curve, 4.0, 1e-3), strict=True))
    assert row["share"] == 0.5
    assert row["log_loss"] == pytest.approx(math.log(1 / 4))
    assert row["log_loss_before"] == pytest.approx(math.log(2 / 4))
    assert row["slope"] == pytest.approx(math.log(1 / 2) / math.log(2))
    assert row["log_best_loss"] == row["log_loss"]
    assert row["points"] == 2
    assert row["rate_now"] == pytest.approx(curve[-1].learning_rate / 1e-3)


@pytest.mark.parametrize("loss", [0.0, math.nan, math.inf])
def test_losses_without_a_logarithm_have_features(loss: float) -> None:
    assert np.isfinite(curve_row([sample_point(loss=loss)], 4.0)).all()


def test_random_directions_are_alike_whatever_they_train() -> None:
    model = planted_model(128)
    flags = slice(0, sum(name.startswith("method_") for name in PIPELINE))
    rows = [pipeline_row(Pipeline(name, {}), model)[flags] for name in ("mezo", "mezo_lora", "mezo_prefix")]
    assert rows[0] == rows[1] == rows[2]
    assert sum(rows[0]) == 1
    assert rows[0] != pipeline_row(Pipeline("lora", {}), model)[flags]
