from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import sessions
import tiny
from tunecast.cli.session_result import as_result
from tunecast.records import Score
from tunecast.results import SessionRecord
from tunecast.session.final_evaluation import Judge


def score(loss: float, metric: float | None = None) -> Score:
    return Score(loss, loss, loss, 10, 100, metric=metric)


def test_lower_loss_is_better_and_no_number_is_worst() -> None:
    judge = Judge("loss")
    losses = [math.nan, 1.0, math.inf, 0.5]
    assert min(losses, key=lambda loss: judge.badness(score(loss))) == 0.5
    assert judge.badness(score(math.nan)) > judge.badness(score(1e9))


def test_higher_metric_is_better_and_the_loss_settles_ties() -> None:
    judge = Judge("exact_match")
    assert judge.badness(score(2.0, 0.9)) < judge.badness(score(1.0, 0.8))
    assert judge.badness(score(1.0, 0.8)) < judge.badness(score(2.0, 0.8))


@pytest.mark.parametrize("objective", ["loss", "exact_match"])
def test_equals_are_equal(objective: str) -> None:
    judge = Judge(objective)
    assert judge.badness(score(1.0, 0.5)) == judge.badness(score(1.0, 0.5))


@pytest.fixture(scope="module")
def contradicted(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> SessionRecord:
    """The record of a session whose test split asks for other answers than training and validation."""
    folder = tmp_path_factory.mktemp("contradicted")
    rows = tiny.toy_rows(120)
    splits = {"train": rows[:90], "validation": rows[90:105], "test": []}
    splits["test"] = [{**row, "completion": "9 % 7 & 5 * 3 @ 1"} for row in rows[105:]]
    (folder / "data").mkdir()
    for split, part in splits.items():
        tiny.write_jsonl(folder / "data" / f"{split}.jsonl", part)
    more = ("--budget", "1-trials", "--strategy", "fixed-baseline", "--no-forecast")
    rate = ("--fix", "learning_rate=0.02")
    sessions.finish(folder / "out", tiny_llama, folder / "data", *more, *rate)
    return sessions.record_of(folder / "out")


def test_validation_chooses_the_winner_where_test_disagrees(contradicted: SessionRecord) -> None:
    base, trained = (contradicted.contender(name) for name in ("zero_shot", "baseline"))
    assert base.validation
    assert trained.validation
    assert trained.validation.loss < base.validation.loss
    assert base.test.loss < trained.test.loss
    assert contradicted.winner == "baseline"
    assert contradicted.ahead_on_test == ("zero_shot",)
    delivered = json.loads((Path(contradicted.output_dir) / "best" / "pipeline.json").read_text())
    assert delivered["method"] == trained.pipeline.method


def test_a_disagreement_is_said_wherever_the_result_is(contradicted: SessionRecord) -> None:
    said = "The test split disagrees with validation: there zero-shot scores better."
    folder = Path(contradicted.output_dir)
    code, out, _ = sessions.call_main("tune", "--resume", "--output-dir", str(folder))
    assert code == 0
    for text in (
        out,
        as_result(contradicted)["warnings"][0],
        (folder / "report.html").read_text(encoding="utf-8"),
        (folder / "best" / "README.md").read_text(encoding="utf-8"),
    ):
        assert said in text


def test_all_contenders_are_compared_on_the_same_validation_examples(contradicted: SessionRecord) -> None:
    scores = [one.validation for one in contradicted.contenders]
    assert len({(score.examples, score.label_tokens) for score in scores if score}) == 1
    assert None not in scores
