"""Text metrics against their reference implementations and against properties that any metric has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tiny
from tunecast.errors import ConfigurationError
from tunecast.training.metrics import METRIC_NAMES, exact_match, get_metric, rouge_l, token_f1

REFERENCES = [row["completion"] for row in tiny.toy_rows(60)]
PREDICTIONS = [
    reference if index % 3 else other
    for index, (reference, other) in enumerate(zip(REFERENCES, REFERENCES[::-1], strict=True))
]


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_perfect_predictions_score_the_maximum(name: str) -> None:
    metric = get_metric(name)
    best = metric.score(REFERENCES, REFERENCES)
    assert best == pytest.approx(100.0 if name in ("bleu", "chrf") else 1.0)
    assert metric.bootstrap_interval(REFERENCES, REFERENCES) == pytest.approx((best, best))
    assert metric.score(PREDICTIONS, REFERENCES) < best


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_interval_holds_the_score_and_narrows_with_more_examples(name: str) -> None:
    metric = get_metric(name)
    score = metric.score(PREDICTIONS, REFERENCES)
    low, high = metric.bootstrap_interval(PREDICTIONS, REFERENCES, seed=1)
    assert low < score < high
    wide_low, wide_high = metric.bootstrap_interval(PREDICTIONS * 9, REFERENCES * 9, seed=1)
    assert (wide_high - wide_low) == pytest.approx((high - low) / 3, rel=0.25)
    assert (low, high) == metric.bootstrap_interval(PREDICTIONS, REFERENCES, seed=1)


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_unequal_or_no_examples_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="1 predictions for 2"):
        get_metric(name).score(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="0 predictions"):
        get_metric(name).bootstrap_interval([], [])


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_reasoning_before_an_answer_does_not_count(name: str) -> None:
    metric = get_metric(name)
    thinking = [f"<think>\n\n</think>\n\n{prediction}" for prediction in PREDICTIONS]
    assert metric.score(thinking, REFERENCES) == pytest.approx(metric.score(PREDICTIONS, REFERENCES))
    assert metric.score(thinking, thinking) > metric.score(PREDICTIONS, thinking)


def test_corpus_metrics_equal_sacrebleu() -> None:
    import sacrebleu

    assert get_metric("bleu").score(PREDICTIONS, REFERENCES) == pytest.approx(
        sacrebleu.corpus_bleu(PREDICTIONS, [REFERENCES], force=True).score
    )
    assert get_metric("chrf").score(PREDICTIONS, REFERENCES) == pytest.approx(
        sacrebleu.corpus_chrf(PREDICTIONS, [REFERENCES]).score
    )


def test_bleu_interval_is_that_of_resampled_corpora() -> None:
    import sacrebleu

    draw = np.random.default_rng(0)
    scores = []
    for _ in range(300):
        chosen = draw.integers(len(REFERENCES), size=len(REFERENCES))
        predictions = [PREDICTIONS[i] for i in chosen]
        scores.append(sacrebleu.corpus_bleu(predictions, [[REFERENCES[i] for i in chosen]], force=True).score)
    expected = np.percentile(scores, [2.5, 97.5])
    found = get_metric("bleu").bootstrap_interval(PREDICTIONS, REFERENCES, resamples=300, seed=0)
    assert found == pytest.approx(tuple(expected))


@pytest.mark.parametrize(
    ("prediction", "reference", "value"),
    [(" a  b\n", "a b", 1.0), ("A b", "a b", 0.0), ("", "  ", 1.0), ("a", "", 0.0)],
)
def test_exact_match_ignores_white_space_only(prediction: str, reference: str, value: float) -> None:
    assert exact_match(prediction, reference) == value


@pytest.mark.parametrize(
    ("prediction", "reference", "value"),
    [
        ("The cat!", "a cat", 1.0),
        ("red house", "blue house", 0.5),
        ("x x y", "x z", 0.4),
        ("the", "an", 1.0),
        ("", "word", 0.0),
    ],
)
def test_token_f1_as_squad_counts(prediction: str, reference: str, value: float) -> None:
    assert token_f1(prediction, reference) == pytest.approx(value)


def test_rouge_l_is_the_longest_common_subsequence() -> None:
    assert rouge_l(["a b c d"], ["a x c d"]) == pytest.approx([0.75])


@pytest.fixture
def own_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_metrics_of_test.py").write_text(
        "def lengths(predictions, references):\n"
        "    return [abs(len(p) - len(r)) for p, r in zip(predictions, references)]\n"
        "lengths.higher_is_better = False\n"
        "def whole(predictions, references):\n"
        "    return sum(p == r for p, r in zip(predictions, references)) / len(predictions)\n"
        "def broken(predictions, references):\n"
        "    return 1 / 0\n"
        "def short(predictions, references):\n"
        "    return [1.0]\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    return "own_metrics_of_test"


def test_own_functions(own_metrics: str) -> None:
    lengths = get_metric(f"{own_metrics}:lengths")
    assert not lengths.higher_is_better
    assert lengths.score(["aa", "b"], ["a", "bbbb"]) == 2.0
    whole = get_metric(f"{own_metrics}:whole")
    expected = get_metric("exact_match")
    assert whole.score(PREDICTIONS, REFERENCES) == expected.score(PREDICTIONS, REFERENCES)
    assert whole.bootstrap_interval(PREDICTIONS, REFERENCES, resamples=200) == pytest.approx(
        expected.bootstrap_interval(PREDICTIONS, REFERENCES, resamples=200)
    )


@pytest.mark.parametrize("function", ["missing", "number"])
def test_what_cannot_be_imported_is_said(own_metrics: str, function: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{own_metrics}:{function}"):
        get_metric(f"{own_metrics}:{function}")


@pytest.mark.parametrize(
    ("name", "meant"),
    [("acc", "accuracy"), ("rouge-l", "rougeL"), ("MCC", "matthews")],
)
def test_other_names_lead_to_the_metric(name: str, meant: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        get_metric(name)
    assert caught.value.hint.startswith(f"Did you mean {meant}? ")


def test_unknown_names(own_metrics: str) -> None:
    with pytest.raises(ConfigurationError, match="no metric 'acurracy'"):
        get_metric("acurracy")
    with pytest.raises(ConfigurationError, match="no metric 'f1'") as caught:
        get_metric("f1")
    assert "token_f1, or f1=LABEL for one label" in caught.value.hint
    with pytest.raises(ConfigurationError, match="no_such_module"):
        get_metric("no_such_module:f")


@pytest.mark.parametrize(("function", "text"), [("broken", "ZeroDivisionError"), ("short", "shape")])
def test_faults_of_own_functions_are_said(own_metrics: str, function: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        get_metric(f"{own_metrics}:{function}").score(["a", "b"], ["a", "b"])


@pytest.mark.parametrize("name", METRIC_NAMES)
def test_a_difference_is_resampled_in_pairs(name: str) -> None:
    metric = get_metric(name)
    low, high = metric.difference_interval(REFERENCES, PREDICTIONS, REFERENCES, resamples=200)
    gap = metric.score(REFERENCES, REFERENCES) - metric.score(PREDICTIONS, REFERENCES)
    assert low <= gap <= high
    assert metric.difference_interval(PREDICTIONS, PREDICTIONS, REFERENCES, resamples=50) == (0.0, 0.0)
    back = metric.difference_interval(PREDICTIONS, REFERENCES, REFERENCES, resamples=200)
    assert back == pytest.approx((-high, -low))
