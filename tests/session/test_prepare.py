from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import tiny
from tunecast.errors import ConfigurationError, DataError
from tunecast.progress import Silent
from tunecast.session import prepare
from tunecast.session.prepare import PreparedTask, choose_device, prepare_task
from tunecast.session.settings import SessionSettings
from tunecast.training import losses
from tunecast.training.losses.completion import CompletionLoss


def test_task_is_laid_out(prepared: PreparedTask) -> None:
    training_task = prepared.training_task
    assert (prepared.task.dataset, prepared.task.metric) == ("colours", "loss")
    assert prepared.dataset.examples == {"train": 128, "validation": 16, "test": 16}
    assert (len(training_task.train), len(training_task.validation), len(training_task.test)) == (128, 16, 16)
    assert training_task.threads == 1
    assert max(len(example.input_ids) for example in training_task.train) <= training_task.max_length <= 128
    assert training_task.max_length % 64 == 0
    assert training_task.max_new_tokens >= max(example.label_tokens for example in training_task.train)


def test_one_line_picks_the_loss_that_encodes_and_trains(
    settings: SessionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []

    def build() -> CompletionLoss:
        built.append("other")
        return CompletionLoss()

    monkeypatch.setattr(losses, "_BUILDERS", {"other": build})
    monkeypatch.setattr(prepare, "LOSS", "other")
    assert prepare_task(settings, Silent()).training_task.loss == "other"
    assert built


def test_long_completions_of_an_encoder_decoder_are_not_cut(
    settings: SessionSettings, tiny_t5: Path, tmp_path: Path
) -> None:
    rows = tiny.toy_rows(60)
    for row in rows:
        row["completion"] *= 15
    changed = replace(settings, model=str(tiny_t5), data=str(tiny.write_jsonl(tmp_path / "a.jsonl", rows)))
    train = prepare_task(changed, Silent()).training_task.train
    assert max(len(example.labels) for example in train) > 64 > max(len(e.input_ids) for e in train)
    assert not any(example.truncated for example in train)


def test_answers_leave_half_of_the_context_to_the_prompt(settings: SessionSettings, tmp_path: Path) -> None:
    rows = tiny.toy_rows(60)
    for row in rows:
        row["completion"] *= 12
    found = prepare_task(replace(settings, data=str(tiny.write_jsonl(tmp_path / "a.jsonl", rows))), Silent())
    assert found.training_task.facts.context == 128
    assert found.training_task.max_new_tokens == 64


def test_examples_to_generate_for_are_the_splits_own(prepared: PreparedTask) -> None:
    training_task = prepared.training_task
    assert len(training_task.test_examples) == len(training_task.test)
    assert not set(training_task.test_examples) & set(training_task.validation_examples)


def test_a_prompt_that_does_not_fit_is_named(settings: SessionSettings, tmp_path: Path) -> None:
    rows = tiny.toy_rows(60)
    rows[7]["prompt"] *= 20
    found = prepare_task(replace(settings, data=str(tiny.write_jsonl(tmp_path / "a.jsonl", rows))), Silent())
    assert any("prompt" in warning and "8" in warning for warning in found.warnings), found.warnings


def test_too_few_rows_for_three_splits(settings: SessionSettings, tmp_path: Path) -> None:
    file = tiny.write_jsonl(tmp_path / "two.jsonl", tiny.toy_rows(2))
    with pytest.raises(DataError):
        prepare_task(replace(settings, data=str(file)), Silent())


def test_a_session_goes_on_in_the_type_that_it_began_with(
    prepared: PreparedTask, settings: SessionSettings
) -> None:
    assert prepared.training_task.dtype == "float32"
    assert prepare_task(settings, Silent(), dtype="bfloat16").training_task.dtype == "bfloat16"


@pytest.mark.parametrize("wanted", ["tpu", "meta", "cuda:7", "cuda:x", "cuda:99x", "cpu0"])
def test_device_that_is_not_there(wanted: str) -> None:
    with pytest.raises(ConfigurationError, match="--device"):
        choose_device(wanted)


@pytest.mark.parametrize(
    ("capability", "built", "is_usable"),
    [
        ((7, 0), ["sm_75", "sm_80", "sm_90", "compute_90"], False),
        ((7, 0), ["sm_60", "sm_70"], True),
        ((8, 9), ["sm_75", "sm_80", "sm_90a"], True),
        ((8, 0), ["sm_86"], False),
        ((12, 0), ["sm_90", "compute_90"], True),
        ((12, 0), ["sm_90a"], False),
    ],
)
def test_a_device_that_torch_was_built_without(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], built: list[str], is_usable: bool
) -> None:
    monkeypatch.setattr("tunecast.session.prepare.has_accelerator", lambda: True)
    answers = {"device_count": 1, "get_device_capability": capability}
    for name, answer in {**answers, "get_arch_list": built, "get_device_name": "Tesla V100"}.items():
        monkeypatch.setattr(f"torch.cuda.{name}", lambda *_, answer=answer: answer)
    for wanted in ("auto", "cuda", "cuda:0"):
        if is_usable:
            assert choose_device(wanted) == ("cuda" if wanted == "auto" else wanted)
            continue
        with pytest.raises(
            ConfigurationError, match=f"--device {wanted}: torch .* no kernels for Tesla V100"
        ):
            choose_device(wanted)


def test_length_beyond_the_context(settings: SessionSettings) -> None:
    with pytest.raises(ConfigurationError, match="128"):
        prepare_task(replace(settings, max_length=129), Silent())
