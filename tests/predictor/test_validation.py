"""Leaving tasks out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from planted_runs import planted_runs
from tunecast.predictor.endings import Ending, recorded
from tunecast.predictor.examples import Examples, examples_of
from tunecast.predictor.validation import held_out_scores, score, score_divergence
from tunecast.records import Run


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return planted_runs(tasks=8, runs=12)


@pytest.fixture(scope="module")
def examples(runs: list[Run]) -> Examples:
    return examples_of(runs)


def test_ends_are_known_better_with_a_curve_and_with_a_measured_zero_shot_loss(runs: list[Run]) -> None:
    rows = {(row.name, row.stage): row for row in held_out_scores(runs)}
    assert set(rows) == {
        *(("measured", stage) for stage in ("no curve", "to 0.2", "to 0.7")),
        ("unknown", "no curve"),
    }
    for row in rows.values():
        assert row.groups == 8
        assert 0.5 < row.coverage <= 1.0
    late, early = rows["measured", "to 0.7"], rows["measured", "no curve"]
    assert late.rank_correlation > 0.8
    assert late.log_score > early.log_score
    assert early.log_score > rows["unknown", "no curve"].log_score - 0.1


def test_odds_of_divergence_are_judged_where_some_diverged(runs: list[Run]) -> None:
    endings = recorded(runs)
    found = score_divergence(endings)
    assert found is not None
    assert found.auc > 0.9
    assert found.log_loss < found.base_log_loss
    assert score_divergence([one for one in endings if not one.diverged]) is None
    table: list[Ending] = [replace(one, table="published") for one in endings]
    assert score_divergence(table) is None


def test_perfect_predictions_score_best(examples: Examples) -> None:
    tiny = np.full(len(examples), 0.01)
    right, wrong = (score("", examples, mean, tiny) for mean in (examples.target, -examples.target))
    assert all(row.rank_correlation == pytest.approx(1.0) for row in right)
    assert all(row.regret == 0 and row.coverage == 1 for row in right)
    assert all(a.log_score > b.log_score for a, b in zip(right, wrong, strict=True))
