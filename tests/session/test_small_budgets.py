"""What is said of budgets in which no step fits, or that leave a part unused."""

from __future__ import annotations

import re

import pytest

from tunecast.budget import Budget
from tunecast.errors import BudgetError
from tunecast.methods.space import BASELINE
from tunecast.session.budget_tracker import BudgetTracker
from tunecast.session.prepare import PreparedTask
from tunecast.session.runtime_model import RuntimeModel
from tunecast.session.small_budgets import check_suffices, unused_text
from tunecast.session.trial import Trial
from tunecast.training.training_task import TrialSpec


def a_trial(prepared: PreparedTask) -> Trial:
    return Trial(TrialSpec("run", BASELINE, 0, 4000, 64, ""), prepared.training_task)


def test_a_budget_in_which_no_point_fits_is_refused_before_a_trial(prepared: PreparedTask) -> None:
    trial, runtime_model = a_trial(prepared), RuntimeModel(1.0, overhead_seconds=1.0, validation_seconds=5.0)
    first = trial.tokens_to_next + 1.0
    for seconds, fits in ((first + 30.0, True), (first + 3.0, False)):
        tracker = BudgetTracker(Budget("seconds", seconds, f"{seconds:.0f}s"), seconds_before=4.0)
        if fits:
            check_suffices([trial], tracker, runtime_model, 10.0)
            continue
        with pytest.raises(BudgetError) as refused:
            check_suffices([trial], tracker, runtime_model, 10.0)
        assert f"a trial's first point takes about {first:.1f} s" in refused.value.what
        enough = re.search(r"--resume --budget (\d+)s", str(refused.value.hint))
        assert enough
        to_end = runtime_model.upper("lora", trial.work_to_end, trial.points_to_end, ends=True)
        assert int(enough[1]) > 4.0 + to_end + 10.0
    halved = BudgetTracker(Budget("seconds", first + 30.0, "budget"), seconds_before=4.0)
    halved.reserve("final training", (first + 30.0) / 2)
    check_suffices([trial], halved, runtime_model, 10.0)  # the search may use it if no trial leads
    check_suffices([trial], BudgetTracker(Budget.parse("1-tokens"), 0.0), runtime_model, 10.0)


def test_an_unused_part_has_a_reason_and_a_budget_that_uses_it(prepared: PreparedTask) -> None:
    trial, runtime_model = a_trial(prepared), RuntimeModel(1.0)
    end = trial.tokens_to_end
    tokens = Budget.parse("10k-tokens")
    said = unused_text([trial], tokens, 3000.0, runtime_model)
    assert said == (
        "30% of the budget was not used, because bringing a trial to its end would take "
        f"{end:,} tokens. --resume --budget {tokens.times(1.5 * (7000 + end) / 10_000)} is enough for that."
    )
    assert unused_text([trial], tokens, 900.0, runtime_model) == ""
    assert unused_text([trial], tokens, float(end), runtime_model) == "", "it could have been brought there"
    assert unused_text([], tokens, 3000.0, runtime_model) == ""
    assert unused_text([trial], Budget.parse("10-trials"), 3.0, runtime_model) == ""
    assert "would take up to" in unused_text([trial], Budget.parse("100s"), 30.0, runtime_model)
