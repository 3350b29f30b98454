"""Distances between pipelines."""

from __future__ import annotations

import pytest

from sample_runs import sample_pipeline
from search.known_runs import FULL, PIPELINES
from tunecast.search.distance import nearest, pipeline_distance, stand_ins


def test_distance_between_pipelines() -> None:
    base = sample_pipeline(optim="adamw")
    assert pipeline_distance(base, base) == 0.0
    assert pipeline_distance(base, FULL[0]) == float("inf")
    nearer, farther = (sample_pipeline(optim="adamw", learning_rate=rate) for rate in (6e-4, 1.0))
    assert 0 < pipeline_distance(base, nearer) < pipeline_distance(base, farther) <= 1.0
    # Lion at 0.3 times AdamW's rate takes steps as large: only the optimiser differs.
    lion = sample_pipeline(optim="lion", learning_rate=9e-5)
    assert pipeline_distance(base, lion) == pytest.approx(1 / 8)
    assert pipeline_distance(base, sample_pipeline(lora_r=0)) == pytest.approx(2 / 8)


def test_nearest_and_stand_ins() -> None:
    assert nearest([*FULL, *PIPELINES], PIPELINES[2]) == (5, 0.0)
    assert nearest(FULL, PIPELINES[0]) is None
    assert stand_ins(PIPELINES, [PIPELINES[1], PIPELINES[1], FULL[0]]) in ([1, 0], [1, 2])
