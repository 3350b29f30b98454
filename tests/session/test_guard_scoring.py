from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sessions
import tiny
from sample_runs import sample_run, score_of
from tunecast.executors.requests import ScoreModel
from tunecast.progress import Silent
from tunecast.records import Seconds
from tunecast.report.wording import verdict
from tunecast.results import SessionRecord
from tunecast.session.finalists import FINALISTS, Finalist
from tunecast.session.guard_scoring import GuardScorer
from tunecast.session.guards import Guard
from tunecast.session.prepare import PreparedTask
from tunecast.session.settings import SessionSettings
from tunecast.session.trial import Trial
from tunecast.store import Store
from tunecast.training.measurement import Scored
from tunecast.training.training_task import TrialSpec

MORE = (
    "--budget",
    "2-trials",
    "--strategy",
    "random",
    "--no-forecast",
    "--methods",
    "full",
)
STRONG = ("--fix", "learning_rate=0.01")
"""Full finetuning at a rate at which everything but the task is forgotten."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guards")


@pytest.fixture(scope="module")
def guard(folder: Path) -> Path:
    """Answers that have nothing in common with those of the task."""
    rows = [{"prompt": f"Sum {n}?", "completion": f"{n * 7} % {n} & {n * 3} @ 1"} for n in range(100)]
    return tiny.write_jsonl(folder / "sums.jsonl", rows)


def ended(folder: Path, model: Path, data: Path, *flags: str) -> tuple[SessionRecord, dict[str, Any]]:
    done = sessions.finish(folder, model, data, *MORE, *STRONG, *flags)
    return sessions.record_of(folder), done.result


@pytest.fixture(scope="module")
def unlimited(folder: Path, guard: Path, tiny_llama: Path, toy_data: Path) -> tuple[SessionRecord, Any]:
    choices = tiny.write_choices(folder, 60)
    guards = ("--guard", str(choices), "--guard", str(guard))
    return ended(folder / "unlimited", tiny_llama, toy_data, *guards)


@pytest.fixture(scope="module")
def limited(folder: Path, guard: Path, tiny_llama: Path, toy_data: Path) -> tuple[SessionRecord, Any]:
    flags = ("--guard", str(guard), "--guard-limit", "2%")
    return ended(folder / "limited", tiny_llama, toy_data, *flags)


def test_guards_are_reported_and_decide_nothing_without_a_limit(
    unlimited: tuple[SessionRecord, Any], folder: Path, tiny_llama: Path, toy_data: Path
) -> None:
    record, result = unlimited
    plain, _ = ended(folder / "plain", tiny_llama, toy_data)
    assert plain.guarded == ()
    assert [(one.name, one.validation, one.test) for one in record.contenders] == [
        (one.name, one.validation, one.test) for one in plain.contenders
    ]
    assert record.winner == plain.winner != "zero_shot"
    assert not any(one.left_out for one in record.guarded)
    winner = record.contender(record.winner)
    guarded = next(one for one in record.guarded if (one.run, one.step) == (winner.run, winner.step))
    choices, score = guarded.scores
    assert score.accuracy is None
    assert choices.guard == "choices"
    assert choices.accuracy is not None
    change = choices.accuracy.value - choices.accuracy.base
    assert change * choices.examples == pytest.approx(round(change * choices.examples)), "each answer counts"
    assert choices.accuracy.low <= change <= choices.accuracy.high
    assert {one.scores[0].accuracy.base for one in record.guarded if one.scores[0].accuracy} == {
        choices.accuracy.base
    }
    assert score.guard == "sums"
    assert score.percent > 2
    assert 0 < score.low < score.loss - score.base < score.high
    with Store.open(folder / "unlimited" / "runs.sqlite", create=False) as store:
        stored = store.get(winner.run)
        assert not [run for run in store.runs() if run.guard_scores and not run.is_candidate]
    assert stored.guard_scores == ((winner.step, choices), (winner.step, score))
    assert score.examples_hash
    assert stored.test == winner.test
    shown = next(one for one in result["guards"] if one["trial"] == winner.run)["scores"]["sums"]
    assert shown["change"]["value"] == pytest.approx(shown["loss"] - shown["base"])
    for file in ("report.html", "best/README.md"):
        text = (folder / "unlimited" / file).read_text(encoding="utf-8")
        assert f"{score.loss - score.base:+.3f} ({score.low:.3f} to {score.high:.3f})" in text
        assert "base accuracy" in text
        assert str(folder) not in text.partition("best")[0]


def test_what_loses_more_than_the_limit_cannot_win(limited: tuple[SessionRecord, Any], folder: Path) -> None:
    record, result = limited
    assert record.guarded
    assert all(one.left_out for one in record.guarded)
    assert record.winner == "zero_shot"
    said = "Zero-shot won: every checkpoint that was scored on the guards loses more than --guard-limit"
    assert verdict(record, ()).text.startswith(said)
    assert record.contender("incumbent").step == 0
    assert json.loads((folder / "limited" / "best" / "pipeline.json").read_text())["method"] == "zero-shot"
    (left_out,) = [text for text in result["warnings"] if "left out of the choice" in text]
    assert left_out.startswith(f"{len(record.guarded)} checkpoints were left out")
    assert "--guard-limit is 2%" in left_out
    assert all(f"run {one.run}" in left_out for one in record.guarded)
    assert "% on sums)" in left_out
    assert "left out of the choice" in (folder / "limited" / "report.html").read_text(encoding="utf-8")


def test_a_resumed_session_scores_the_same(limited: tuple[SessionRecord, Any], folder: Path) -> None:
    record, _ = limited
    sessions.unfinish(folder / "limited", keep=3)
    code, _, err = sessions.call_main("tune", "--resume", "--output-dir", str(folder / "limited"))
    assert code == 0, err
    again = sessions.record_of(folder / "limited")
    assert again.guarded == record.guarded
    assert again.winner == record.winner


SPREAD = (
    "--strategy",
    "random",
    "--methods",
    "full",
    "--range",
    "learning_rate=0.0001:0.02",
    "--no-forecast",
)
"""Trials of very different rates: the fastest learner forgets, the slowest does not."""


@pytest.fixture(scope="module")
def searched_on(folder: Path, guard: Path, tiny_llama: Path, toy_data: Path) -> Path:
    """A session whose three leading checkpoints lose more than the limit."""
    limit = ("--guard", str(guard), "--guard-limit", "0%")
    more = ("--budget", "8-trials", "--final-training", "none")
    sessions.finish(folder / "on", tiny_llama, toy_data, *SPREAD, *limit, *more)
    return folder / "on"


def test_the_search_for_a_checkpoint_within_the_limit_goes_on_after_the_leaders(searched_on: Path) -> None:
    record = sessions.record_of(searched_on)
    baseline, *others = record.guarded
    assert not baseline.left_out
    assert [one.left_out for one in others] == [True] * (len(others) - 1) + [False]
    assert len(others) > FINALISTS
    incumbent = record.contender("incumbent")
    assert (incumbent.run, incumbent.step) == (others[-1].run, others[-1].step)
    with Store.open(searched_on / "runs.sqlite", create=False) as store:
        best = {
            run.id: min(point.validation.loss for point in run.curve) for run in store.runs() if run.curve
        }
    losses = [best[one.run] for one in others]
    assert losses == sorted(losses), "in the order of the validation loss"
    assert record.guards_untried == 0
    assert f"{len(others) - 1} checkpoints were left out of the choice" in record.warnings[-1]
    said = f"Left out by --guard-limit: {len(others) - 1} of {len(others) + 1} checkpoints"
    code, out, _ = sessions.call_main("tune", "--resume", "--output-dir", str(searched_on))
    assert code == 0
    assert said in out


def test_without_time_the_rest_is_counted(prepared: PreparedTask, settings: SessionSettings) -> None:
    guard = Guard("kept", prepared.training_task.validation[:4])
    seconds = Seconds(0.0, 0.0)

    def ask(request: ScoreModel) -> Scored:
        loss = 1.0 if request.spec is None else float(request.spec.run)
        return Scored(score_of(loss), seconds, np.full(4, loss))

    def candidate(number: int) -> Finalist:
        run = sample_run(number)
        trial = Trial(TrialSpec(str(number), run.pipeline, 0, 1000, 10, ""), prepared.training_task, run=run)
        return Finalist(run, trial, run.curve[-1].step)

    limited = replace(settings, guard=("kept.jsonl",), guard_limit=2.0)
    scorer = GuardScorer(limited, replace(prepared, guards=(guard,)), ask, Silent())
    candidates = [candidate(number) for number in (2, 3, 4, 5, 1)]
    assert scorer.first_kept(candidates, lambda one: one in candidates[:2]) == []
    assert [one.left_out for one in scorer.found] == [True, True]
    assert scorer.untried == 3
    counted, untried = scorer.warnings()
    assert counted.startswith("2 checkpoints were left out")
    assert untried.startswith("3 more were not scored on the guards, because the budget")
    assert scorer.first_kept(candidates, lambda one: one is not candidates[2]) == candidates[-1:]
    assert scorer.untried == 1, "one that takes longer is passed over"
    assert scorer.first_kept(candidates, lambda one: True) == candidates[-1:]
    assert scorer.untried == 0
