from __future__ import annotations

import dataclasses

import pytest

from report.sample_session import BASELINE, full_session, make_record, make_runs
from tunecast.records import ZERO_SHOT, Pipeline, Score
from tunecast.report.wording import describe_pipeline, pipeline_line, verdict
from tunecast.results import Contender, SessionRecord


def with_test(record: SessionRecord, name: str, **changes: object) -> SessionRecord:
    """The record with fields of one contender's test score replaced."""

    def change(one: Contender) -> Contender:
        if one.name != name:
            return one
        test: Score = dataclasses.replace(one.test, **changes)  # type: ignore[arg-type]
        return dataclasses.replace(one, test=test)

    return dataclasses.replace(record, contenders=tuple(map(change, record.contenders)))


def test_clear_winner_is_said_with_its_margin_and_cost() -> None:
    record, runs = full_session()
    words = verdict(record, runs)
    assert words.text.startswith("The search won: lora at learning rate ")
    assert "certain" not in str(words)
    text = " ".join(words.sentences)
    assert words.sentences[0].startswith(
        "Chosen on 281 validation examples: loss 2.698, against 4.143 for zero"
    )
    assert words.sentences[0].endswith("and 2.909 for the baseline.")
    assert "Test loss: 1.455 (35%) lower than zero-shot, 4.163 (4.113 to 4.213)." in text
    assert "Test loss: 0.231 (8%) lower than the baseline, 2.939" in text
    assert words.sentences[-1] == "Cost: 4 min 51 s for 29 trials on a budget of 5m; 4 failed."


def test_overlapping_intervals_are_called_uncertain() -> None:
    record, runs = full_session()
    record = with_test(record, "baseline", loss=2.75, loss_low=2.70, loss_high=2.80)
    words = verdict(record, runs)
    assert "intervals of winner and the baseline overlap: the difference is not certain" in str(words)


def test_missing_intervals_are_called_unknown() -> None:
    record, runs = full_session()
    words = verdict(with_test(record, "baseline", loss_low=None), runs)
    assert "Without intervals, the difference to the baseline may not be certain" in str(words)


@pytest.mark.parametrize(
    ("winner", "headline"),
    [
        ("zero_shot", "Zero-shot won: no finetuning beat the untouched base model"),
        ("baseline", "The baseline won: the search found nothing better"),
    ],
)
def test_other_winners_are_said_plainly(winner: str, headline: str) -> None:
    record, runs = full_session()
    words = verdict(dataclasses.replace(record, winner=winner), runs)
    assert words.text == headline


@pytest.mark.parametrize("strategy", ["fixed-baseline", "fixed-3e-4"])
def test_without_a_search_none_is_spoken_of(strategy: str) -> None:
    record, runs = full_session()
    words = verdict(dataclasses.replace(record, winner="baseline", strategy=strategy), runs)
    assert words.text == "The baseline won"
    other = verdict(dataclasses.replace(record, strategy=strategy), runs)
    assert other.text.startswith("Training helped: lora at learning rate ")


def test_winner_that_is_worse_by_loss_is_not_called_lower() -> None:
    record, runs = full_session()
    words = verdict(dataclasses.replace(record, winner="zero_shot"), runs)
    assert "1.224 (42%) higher than the baseline, 2.939" in str(words)


def test_incumbent_that_is_the_baseline_pipeline_wins_as_the_baseline() -> None:
    runs = make_runs(1)
    words = verdict(make_record(runs), runs)
    assert words.text == "The baseline won: the search found nothing better"
    assert "than the baseline" not in str(words)


def test_metric_decides_where_it_is_the_objective() -> None:
    record, runs = full_session()
    words = verdict(dataclasses.replace(record, objective="rouge_l"), runs)
    assert words.sentences[0].startswith("Chosen on 281 validation examples: rouge_l 0.296, against 0.141")
    assert words.sentences[1].startswith("Test rouge_l 0.296 (0.275 to 0.317), test loss 2.708")
    assert "rouge_l: 0.048 higher than the baseline, 0.248" in str(words)


def test_nothing_to_deliver() -> None:
    record, runs = full_session()
    words = verdict(dataclasses.replace(record, contenders=(), winner=""), runs)
    assert words.text == "No model could be delivered"


def test_what_tells_pipelines_apart_in_a_short_line() -> None:
    assert pipeline_line(BASELINE) == "lora, rate 2e-4, batch 16, r=16, alpha=32"
    assert pipeline_line(Pipeline("ia3", {"learning_rate": 1e-2})) == "ia3, rate 1e-2, batch ?"
    assert pipeline_line(ZERO_SHOT) == "no training"


def test_pipeline_in_one_line() -> None:
    pipeline = dataclasses.replace(
        make_runs(1)[1].pipeline,
        hyperparameters={"learning_rate": 2e-4, "use_dora": True, "lora_dropout": 0.05},
    )
    assert describe_pipeline(pipeline) == "lora, learning_rate 2e-4, use_dora yes, lora_dropout 0.05"
    assert dataclasses.replace(pipeline, hyperparameters={}).learning_rate is None
