"""Which candidates a search with a prior keeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from planted_runs import (
    planted_end,
)
from search.planted_task import DATASET, MODEL, context, drawn
from tunecast.predictor import Prior, WorkerCapacity
from tunecast.predictor.features import columns, pipeline_row
from tunecast.search.failure import memory_odds
from tunecast.search.ranking import ranked


def test_ranking_keeps_good_ones_different_ones_and_some_as_drawn(prior: Prior) -> None:
    pipelines = drawn(400)
    kept = ranked(context(prior=prior), pipelines, 40)
    assert len({pipeline.id for pipeline in kept}) == 40
    ends = [planted_end(pipeline, MODEL, DATASET) for pipeline in pipelines]
    first = [planted_end(pipeline, MODEL, DATASET) for pipeline in kept[:10]]
    assert np.mean(first) < np.quantile(ends, 0.3)
    assert {pipeline.method for pipeline in kept} == {"lora", "full"}
    places = [pipelines.index(pipeline) for pipeline in kept[30:]]
    assert places == sorted(places)
    assert places[-1] < 60


def test_what_would_diverge_is_not_among_the_candidates_where_others_are(prior: Prior) -> None:
    class Odds:
        """Learning rates in the upper part of those that are asked about diverge."""

        def __init__(self, part: float) -> None:
            self.part = part

        def probability(self, _distances: object, _steps: object, features: np.ndarray) -> np.ndarray:
            rates = features[:, columns(("log_effective_rate",))[0]]
            return np.where(rates > np.quantile(rates, 1 - self.part), 0.9, 0.1)

    pipelines = drawn(200)

    def diverging(part: float) -> set[str]:
        rows = np.array([pipeline_row(pipeline, MODEL) for pipeline in pipelines])
        odds = Odds(part).probability(None, None, rows)
        return {pipeline.id for pipeline, chance in zip(pipelines, odds, strict=True) if chance > 0.5}

    for part, most in ((0.5, 0), (0.9, 20)):
        quality = replace(prior.quality, divergence=Odds(part))
        kept = ranked(context(prior=replace(prior, quality=quality)), pipelines, 40)
        assert len({pipeline.id for pipeline in kept}) == 40
        assert len(diverging(part) & {pipeline.id for pipeline in kept}) == most


def test_what_memory_would_not_hold_is_not_among_the_candidates_where_others_are(
    roomy: tuple[Prior, WorkerCapacity],
) -> None:
    prior, room = roomy
    pipelines = drawn(200)
    told, ignorant = context(prior=prior, room=room), context(prior=prior)
    odds = memory_odds(told, prior, pipelines)
    beyond = {pipeline.id for pipeline, chance in zip(pipelines, odds, strict=True) if chance > 0.5}
    assert 20 < len(beyond) < 180
    assert not memory_odds(ignorant, prior, pipelines).any()
    elsewhere = replace(told, room=replace(room, device="cuda:0"))
    assert not memory_odds(elsewhere, prior, pipelines).any()
    chosen, anything = ({p.id for p in ranked(one, pipelines, 40)} for one in (told, ignorant))
    assert not beyond & chosen
    assert beyond & anything


def test_ranking_few_or_none(prior: Prior) -> None:
    assert ranked(context(prior=prior), [], 10) == []
    assert len(ranked(context(prior=prior), drawn(3), 10)) == 3
