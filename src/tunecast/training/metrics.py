"""Metrics of generated text: exact match, token F1, ROUGE-L, BLEU, chrF, and functions of the user.

Only the part of a prediction after its last ``</think>`` counts, unless the reference has one too.

A metric first computes *statistics* of each example, which add up over examples, and then the score from
their sum. A bootstrap of a corpus metric such as BLEU therefore never reads the text again, and is exact,
which a mean of sentence scores would not be.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import string
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunecast.errors import ConfigurationError, did_you_mean
from tunecast.records import Score
from tunecast.training.label_metrics import LABEL_METRIC_NAMES, OF_ONE_LABEL, is_label_metric, label_metric
from tunecast.training.metric import Metric, ScoreOfDraw, Statistics, Texts, check_pairs

END_OF_REASONING = "</think>"
"""End of the reasoning that some templates put before answers, and that models learn to write."""


class _SummedMetric(Metric):
    """A metric computed from the sum of per-example statistics."""

    def __init__(
        self,
        name: str,
        statistics: Callable[[Texts, Texts], Statistics],
        from_sum: Callable[[Statistics], float],
        maximum: float = 1.0,
    ) -> None:
        super().__init__(name)
        self.maximum = maximum
        self._statistics = statistics
        self._from_sum = from_sum

    def score(self, predictions: Texts, references: Texts) -> float:
        predictions = _answers(predictions, references)
        return self._from_sum(self._statistics(predictions, references).sum(axis=0))

    def _resampled(self, predictions: Texts, references: Texts, resamples: int) -> tuple[ScoreOfDraw, int]:
        statistics = self._statistics(_answers(predictions, references), references)
        return lambda drawn: self._from_sum(statistics[drawn].sum(axis=0)), resamples


class _CustomMetric(Metric):
    """A function of the user from (predictions, references) to one float, or to one float per example."""

    WHOLE_SET_RESAMPLES = 200
    """Resamples for functions that return one float: they are called for each, and may be slow."""

    def __init__(self, name: str, function: Callable[[list[str], list[str]], Any]) -> None:
        super().__init__(name, bool(getattr(function, "higher_is_better", True)))
        self._function = function

    def score(self, predictions: Texts, references: Texts) -> float:
        predictions = _answers(predictions, references)
        return float(np.mean(self._call(predictions, references)))

    def _resampled(self, predictions: Texts, references: Texts, resamples: int) -> tuple[ScoreOfDraw, int]:
        texts = _answers(predictions, references)
        values = self._call(texts, references)
        if values.ndim == 1:
            return lambda drawn: float(values[drawn].mean()), resamples

        def scored(drawn: NDArray[np.int64]) -> float:
            return float(self._call([texts[i] for i in drawn], [references[i] for i in drawn]))

        return scored, min(resamples, self.WHOLE_SET_RESAMPLES)

    def _call(self, predictions: Texts, references: Texts) -> Statistics:
        """Call the function; the result has shape () or (examples,).

        Raises:
            ConfigurationError: The function fails or returns something else.
        """
        try:
            values = np.asarray(self._function(list(predictions), list(references)), dtype=np.float64)
        except Exception as error:  # the user's function may raise anything
            raise ConfigurationError(
                f"The metric {self.name} failed: {type(error).__name__}: {error}.",
                "It is called with two lists of strings and must return a float or a list of floats.",
            ) from error
        if values.shape not in ((), (len(predictions),)) or not np.isfinite(values).all():
            raise ConfigurationError(
                f"For {len(predictions)} examples the metric {self.name} returned values of shape "
                f"{values.shape}, or values that are not finite.",
                "It must return a float, or a list with one float per example.",
            )
        return values


def get_metric(name: str) -> Metric:
    """Return the metric called ``name``.

    Args:
        name: ``exact_match``, ``token_f1``, ``rougeL`` (all 0 to 1), ``bleu``, ``chrf`` (both 0 to 100), a
            metric of classification (see :func:`tunecast.training.label_metrics.label_metric`), or
            ``module:function`` for a function ``(predictions: list[str], references: list[str])`` that
            returns a float or a list of floats. Its attribute ``higher_is_better`` is respected.

    Raises:
        ConfigurationError: There is no such metric, or the function cannot be imported.
    """
    if name in _BUILDERS:
        return _BUILDERS[name]()
    if is_label_metric(name):
        return label_metric(name)
    if ":" in name:
        return _CustomMetric(name, _import_function(name))
    usual = OTHER_NAMES.get(name.lower().replace("-", "_"))
    known = (*METRIC_NAMES, *LABEL_METRIC_NAMES, f"{OF_ONE_LABEL}LABEL")
    meant = f"Did you mean {usual}? " if usual else did_you_mean(name, known)
    raise ConfigurationError(
        f"--objective: there is no metric {name!r}.",
        f"{meant}Use loss, one of {', '.join(known)}, or your own as module:function.",
    )


def with_metric(
    score: Score, name: str, predictions: Texts, references: Texts, *, interval_seed: int | None
) -> Score:
    """Add a metric to a score; ``interval_seed`` seeds its 95% interval, None omits it."""
    metric = get_metric(name)
    low = high = None
    if interval_seed is not None:
        low, high = metric.bootstrap_interval(predictions, references, seed=interval_seed)
    return replace(
        score,
        metric=metric.score(predictions, references),
        metric_name=name,
        metric_low=low,
        metric_high=high,
        metric_examples=len(predictions),
    )


def exact_match(prediction: str, reference: str) -> float:
    """Return 1.0 if both are equal up to white space, else 0.0; case matters."""
    return float(prediction.split() == reference.split())


def token_f1(prediction: str, reference: str) -> float:
    """Compute the harmonic mean of precision and recall over words, as SQuAD does.

    Case, ASCII punctuation and the articles a, an, the are ignored. Two texts without words are equal.
    """
    predicted, expected = _squad_words(prediction), _squad_words(reference)
    if not predicted or not expected:
        return float(predicted == expected)
    common = sum((Counter(predicted) & Counter(expected)).values())
    return 2 * common / (len(predicted) + len(expected))


def rouge_l(predictions: Texts, references: Texts) -> list[float]:
    """Compute the ROUGE-L F-measure of each example, without stemming.

    The ``rouge_score`` package lower-cases text and keeps only the letters a to z and digits. For other
    scripts the value is meaningless; use chrF.
    """
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    pairs = zip(predictions, references, strict=True)
    return [float(scorer.score(reference, prediction)["rougeL"].fmeasure) for prediction, reference in pairs]


def _squad_words(text: str) -> list[str]:
    bare = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def _mean_metric(name: str, values: Callable[[Texts, Texts], Sequence[float]]) -> Metric:
    """Make a metric that is the mean of per-example values; its statistics are (value, 1)."""

    def statistics(predictions: Texts, references: Texts) -> Statistics:
        return np.array([(value, 1.0) for value in values(predictions, references)])

    return _SummedMetric(name, statistics, lambda total: float(total[0] / total[1]))


def _each(value: Callable[[str, str], float]) -> Callable[[Texts, Texts], list[float]]:
    return lambda predictions, references: list(map(value, predictions, references))


def _sacrebleu_metric(name: str) -> Metric:
    """Make BLEU or chrF of sacrebleu with its default settings, from its statistics per sentence."""
    from sacrebleu.metrics import BLEU, CHRF

    # force: otherwise sacrebleu warns about text that looks tokenised, as the user's data may be.
    scorer = BLEU(force=True) if name == "bleu" else CHRF()

    def statistics(predictions: Texts, references: Texts) -> Statistics:
        rows = scorer._extract_corpus_statistics(list(predictions), [list(references)])
        return np.array(rows, dtype=np.float64)

    def from_sum(total: Statistics) -> float:
        return float(scorer._compute_score_from_stats([int(value) for value in total]).score)

    return _SummedMetric(name, statistics, from_sum, maximum=100.0)


_BUILDERS: dict[str, Callable[[], Metric]] = {
    "exact_match": lambda: _mean_metric("exact_match", _each(exact_match)),
    "token_f1": lambda: _mean_metric("token_f1", _each(token_f1)),
    "rougeL": lambda: _mean_metric("rougeL", rouge_l),
    "bleu": lambda: _sacrebleu_metric("bleu"),
    "chrf": lambda: _sacrebleu_metric("chrf"),
}
METRIC_NAMES = tuple(_BUILDERS)
OTHER_NAMES = {
    "em": "exact_match",
    "acc": "accuracy",
    "f1": "token_f1, or f1=LABEL for one label of a classification",
    "mcc": "matthews",
    **dict.fromkeys(("rouge", "rouge_l"), "rougeL"),
}
"""Other usual names of metrics."""


def _answers(predictions: Texts, references: Texts) -> list[str]:
    """Remove reasoning from predictions, unless the reference has some."""
    check_pairs(predictions, references)
    return [
        prediction if END_OF_REASONING in reference else prediction.rpartition(END_OF_REASONING)[2]
        for prediction, reference in zip(predictions, references, strict=True)
    ]


def _import_function(name: str) -> Callable[[list[str], list[str]], Any]:
    module_name, _, function_name = name.partition(":")
    try:
        with _working_directory_importable():
            function = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:  # the user's module may raise anything
        raise ConfigurationError(
            f"The metric {name} cannot be imported: {type(error).__name__}: {error}.",
            "Write it as module:function, with a module in this folder or in an installed package.",
        ) from error
    if not callable(function):
        raise ConfigurationError(f"The metric {name} is not a function.", "Write it as module:function.")
    return function


@contextlib.contextmanager
def _working_directory_importable() -> Iterator[None]:
    """Make modules in the working directory importable, as they are not for an installed command."""
    here = os.getcwd()
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)
