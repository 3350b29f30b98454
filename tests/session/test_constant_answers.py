"""Rivals that need no model, on a real model whose training cannot help."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

import sessions
import tiny
from tunecast.cli.session_result import as_result
from tunecast.data import answer_of
from tunecast.models.load import load_tokenizer
from tunecast.progress import Silent
from tunecast.results import SessionRecord
from tunecast.session.constant_answers import constant_rivals
from tunecast.session.prepare import PreparedTask, prepare_task
from tunecast.session.settings import SessionSettings


@pytest.fixture(scope="module")
def guessed(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> SessionRecord:
    """The record of a session on labels that the prompts do not tell, four of five the same."""
    folder = tmp_path_factory.mktemp("guessed")
    draw = random.Random(0)
    rows = [{"prompt": f"{draw.random():.8f}", "completion": "no" if i % 5 else "yes"} for i in range(200)]
    data = tiny.write_jsonl(folder / "labels.jsonl", rows)
    more = ("--budget", "1-trials", "--strategy", "fixed-baseline", "--no-forecast", "--epochs", "8")
    flags = ("--objective", "exact_match", "--fix", "learning_rate=0.02")
    sessions.finish(folder / "out", tiny_llama, data, *more, *flags)
    return sessions.record_of(folder / "out")


def test_a_model_that_says_the_majority_is_no_win(guessed: SessionRecord) -> None:
    (majority,) = guessed.constant_answers
    winner = guessed.contender(guessed.winner)
    assert guessed.winner == "baseline"
    assert (majority.name, majority.answer) == ("majority_answer", "no")
    assert majority.test.metric == winner.test.metric
    assert guessed.only_answer == "no"
    assert guessed.unbeaten == ("majority_answer",)


def test_it_is_said_first_wherever_the_result_is(guessed: SessionRecord) -> None:
    warning = "The winner answers “no” to every test prompt: it is no better than guessing."
    folder = Path(guessed.output_dir)
    code, out, _ = sessions.call_main("tune", "--resume", "--output-dir", str(folder))
    assert code == 0
    assert out.startswith(f"Warning: {warning}")
    card = (folder / "best" / "README.md").read_text(encoding="utf-8")
    report = (folder / "report.html").read_text(encoding="utf-8")
    for text in (out, card, report):
        assert "is no better than a constant answer" in text
    assert warning in card
    assert warning in report
    assert as_result(guessed)["warnings"][0] == warning


def test_json_says_how_much_was_trained_and_what_needs_no_model(guessed: SessionRecord) -> None:
    result = json.loads(json.dumps(as_result(guessed)))
    trained = result["training"]["baseline"]
    assert result["training"]["zero_shot"]["steps"] == 0
    assert trained["steps"] > 0
    assert trained["epochs"] == pytest.approx(8.0, rel=0.2)
    assert (trained["examples"], trained["share"]) == (trained["available"], 1.0)
    assert result["constant_answers"]["majority_answer"]["answer"] == "no"
    assert result["margins"]["zero_shot"]["low"] > 0


def test_the_majority_has_the_loss_of_the_label_shares(guessed: SessionRecord) -> None:
    (majority,) = guessed.constant_answers
    share = majority.test.metric
    assert share is not None
    expected = -share * math.log(0.8) - (1 - share) * math.log(0.2)  # as four of five rows have it
    assert majority.test.nats_per_completion == pytest.approx(expected, rel=0.1)
    assert majority.test.loss_low is not None
    assert majority.test.loss_low < majority.test.loss


def test_open_text_is_compared_with_saying_nothing_and_with_a_copy(prepared: PreparedTask) -> None:
    assert prepared.kind.answers is None
    assert constant_rivals(prepared, "", seed=0) == []
    empty, copy = constant_rivals(prepared, "token_f1", seed=0)
    assert (empty.answer.name, copy.answer.name) == ("empty_answer", "copied_prompt")
    assert empty.answer.test.metric == 0.0
    assert copy.texts[0] == prepared.training_task.test_examples[0].turns[-2].content
    assert copy.answer.test.metric_examples == len(prepared.training_task.test)


def test_a_metric_without_a_value_for_a_constant_answer_leaves_it_out(
    prepared: PreparedTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lengths_agree.py").write_text(
        "import numpy\n\ndef correlation(predictions, references):\n"
        "    pair = [list(map(len, texts)) for texts in (predictions, references)]\n"
        "    return float(numpy.corrcoef(pair)[0, 1])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    rivals = constant_rivals(prepared, "lengths_agree:correlation", seed=0)
    assert "empty_answer" not in [rival.answer.name for rival in rivals]


def test_shards_keep_examples_and_answers_together(tiny_llama: Path, tmp_path: Path) -> None:
    """Rows are counted anew in each file of a folder, so that a row's number is not unique."""
    for shard in range(2):
        rows = [{"prompt": f"{shard} {i}", "completion": f"{'a' if shard else 'b'} {i}"} for i in range(40)]
        tiny.write_jsonl(tmp_path / f"train-{shard:05d}.jsonl", rows)
    settings = SessionSettings(str(tiny_llama), str(tmp_path), threads=1, test_examples=3)
    task = prepare_task(settings, Silent()).training_task
    tokenizer = load_tokenizer(task.model)
    assert len(task.test) == len(task.test_examples) == 3
    for encoded, example in zip(task.test, task.test_examples, strict=True):
        labels = [label for label in encoded.labels if label >= 0]
        assert answer_of(example) in tokenizer.decode(labels)
