"""The sentences of a recommendation."""

from __future__ import annotations

from pathlib import Path

import pytest

import tunecast
from tunecast.hardware.calibration import Calibration, write_calibration
from tunecast.hardware.local_machine import this_machine
from tunecast.recommender.explanations import worth_text
from tunecast.recommender.question import Question


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        (0.9999, "very likely worth it: it beats the untouched model almost certainly."),
        (0.98, "very likely worth it: it beats the untouched model with a probability of 98%."),
        (0.8, "probably worth it"),
        (0.74, "worth it: it beats the untouched model with a probability of 74%."),
        (0.26, "Cannot tell yet"),
        (0.2, "probably not worth it: it beats the untouched model with a probability of 20% only."),
    ],
)
def test_worth(probability: float, words: str) -> None:
    assert words in worth_text(probability)
    assert "100%" not in worth_text(probability)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("full", "0.1 times LoRA's"),
        ("ia3", "the method's usual rate"),
        ("mezo", "times LoRA's"),
        ("lora", "at alpha 32"),
    ],
)
def test_a_learning_rate_has_its_reason(method: str, words: str, tiny_llama: Path, toy_data: Path) -> None:
    best = tunecast.recommend(Question(str(tiny_llama), str(toy_data), methods=(method,))).recommendations[0]
    assert words in best.reasons[0]
    assert ("0.1 times" in best.reasons[0]) == (method == "full")


def test_the_first_says_how_sure_its_time_is(
    tiny_llama: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNECAST_CACHE", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def first(gpu: str | None) -> tuple[str, float]:
        question = Question(str(tiny_llama), str(toy_data), gpu=gpu, methods=("lora",))
        best = tunecast.recommend(question).recommendations[0]
        return " ".join(best.reasons), best.hours_high / best.hours_low

    other, unmeasured = first("H100")
    assert "--calibrate" not in other  # which would be refused beside --gpu
    here, wide = first(None)
    assert "--calibrate measures this machine" in here
    machine = this_machine().machine
    write_calibration(Calibration(machine, dict.fromkeys(machine.flops_per_second, 0.3)), "cpu")
    measured, narrow = first(None)
    assert "--calibrate" not in measured
    assert 1 < narrow < wide
    assert narrow < unmeasured
