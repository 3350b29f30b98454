from __future__ import annotations

import json
from pathlib import Path

import pytest

import tiny
from tunecast.errors import ConfigurationError, DataError, UserError
from tunecast.models import load_tokenizer
from tunecast.session.guards import MIN_EXAMPLES, Guard, affordable, read_guards
from tunecast.session.prepare import PreparedTask
from tunecast.training.losses import get_loss


def read(prepared: PreparedTask, *sources: Path | str) -> tuple[Guard, ...]:
    task = prepared.training_task
    return read_guards(
        [str(source) for source in sources], load_tokenizer(task.model), task.facts, get_loss(task.loss), 0
    )


def test_a_guard_is_a_whole_file_or_a_validation_split(prepared: PreparedTask, tmp_path: Path) -> None:
    rows = tiny.toy_rows(60, seed=5)
    file = tiny.write_jsonl(tmp_path / "kept.jsonl", rows)
    (tmp_path / "split").mkdir()
    tiny.write_jsonl(tmp_path / "split" / "train.jsonl", rows[:40])
    tiny.write_jsonl(tmp_path / "split" / "validation.jsonl", rows[40:47])
    one, other = read(prepared, file, tmp_path / "split")
    assert (one.name, other.name) == ("kept", "split")
    assert {example.row for example in one.examples} == set(range(1, 61))
    assert {example.row for example in other.examples} == set(range(1, 8))


def test_a_guard_has_more_than_one_example(prepared: PreparedTask, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="kept has a single example"):
        read(prepared, tiny.write_jsonl(tmp_path / "kept.jsonl", tiny.toy_rows(1)))


def test_a_suite_is_one_guard_for_each_part(prepared: PreparedTask) -> None:
    found = read(prepared, "python")
    assert [guard.name for guard in found] == ["python/docstrings", "python/prose", "python/code"]
    context = prepared.training_task.facts.context or 0
    assert all(0 < example.tokens <= context for guard in found for example in guard.examples)


def test_guards_together_take_as_long_as_validation(prepared: PreparedTask) -> None:
    guards = read(prepared, "python")
    long = guards[0].examples * 3
    chosen = affordable(guards, long)
    share = sum(example.tokens for example in long) / len(guards)
    for whole, part in zip(guards, chosen, strict=True):
        assert part.examples == whole.examples[: len(part.examples)]
        assert len(part.examples) > MIN_EXAMPLES
        assert sum(example.tokens for example in part.examples) <= share
    assert [len(guard.examples) for guard in affordable(guards, guards[0].examples[:1])] == [MIN_EXAMPLES] * 3
    assert affordable((), long) == ()


def test_two_guards_of_one_name_are_refused(prepared: PreparedTask, tmp_path: Path) -> None:
    file = tiny.write_jsonl(tmp_path / "kept.jsonl", tiny.toy_rows(30))
    with pytest.raises(ConfigurationError, match="two guards are called 'kept'"):
        read(prepared, file, file)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ("--guard", "bad.jsonl", "empty")),
        ("not json\n", ("--guard", "bad.jsonl", "line 1")),
        (json.dumps({"frage": "a", "nummer": 3}), ("--guard", "bad.jsonl", "frage", "are for --data alone")),
        (
            json.dumps({"prompt": "a", "completion": "b"}),
            ("--guard", "bad.jsonl", "bad has a single example"),
        ),
    ],
)
def test_what_cannot_be_read_is_named(
    prepared: PreparedTask, tmp_path: Path, content: str, parts: tuple[str, ...]
) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(content)
    with pytest.raises(UserError) as refused:
        read(prepared, file)
    for part in parts:
        assert part in str(refused.value)


def test_an_unknown_suite_is_refused_with_the_known_ones(prepared: PreparedTask) -> None:
    with pytest.raises(ConfigurationError, match="Did you mean python"):
        read(prepared, "pyton")


def test_a_task_of_lm_eval_is_a_guard(prepared: PreparedTask, tmp_path: Path) -> None:
    rows = [{"asked": f"{number} and one is", "said": str(number + 1)} for number in range(20)]
    definition = {
        "task": "sums", "dataset_path": "json", "test_split": "test", "output_type": "generate_until",
        "dataset_kwargs": {"data_files": {"test": str(tiny.write_jsonl(tmp_path / "sums.jsonl", rows))}},
        "doc_to_text": "{{asked}}", "doc_to_target": "{{said}}",
    }  # fmt: skip
    (tmp_path / "sums.yaml").write_text(json.dumps(definition))
    (guard,) = read(prepared, tmp_path / "sums.yaml")
    assert guard.name == "sums"
    assert {example.row for example in guard.examples} == set(range(1, 21))
