"""The prior from recorded runs, with whole datasets held out, and from the literature alone."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from sample_runs import sample_dataset
from tunecast.methods import BASELINE
from tunecast.predictor import TaskDescription
from tunecast.recommender.known_runs import KnownRuns, Plan
from tunecast.records import Outcome, Pipeline
from tunecast.store.final_results import FinalResult, read_final_results
from tunecast.store.shipping import shipped


@pytest.fixture(scope="module")
def endings() -> list[FinalResult]:
    file = shipped()
    assert file is not None
    return read_final_results(file)


def view(ending: FinalResult) -> TaskDescription:
    """The ending's own task; losses come out in bits per byte."""
    return TaskDescription(
        sample_dataset(ending.dataset, meta_features=ending.meta_features),
        ending.model,
        ending.full_length_tokens,
        ending.unique_examples,
        bytes_per_label_token=1 / math.log(2),
    )


def compressed(task: TaskDescription, ratio: float) -> TaskDescription:
    features = {**task.dataset.meta_features, "completion_compression_ratio": ratio}
    return replace(task, dataset=replace(task.dataset, meta_features=features))


def plan(ending: FinalResult) -> Plan:
    return Plan(ending.pipeline, ending.full_length_tokens, ending.total_steps)


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.soak)])
def test_held_out_datasets_are_within_their_intervals(endings: list[FinalResult], every: int) -> None:
    inside, errors, ignorant, untouched = [], [], [], []
    for dataset in sorted({ending.dataset for ending in endings})[::every]:
        prior = KnownRuns([ending for ending in endings if ending.dataset != dataset])
        rest = [
            math.log(one.bits_per_byte)
            for one in endings
            if one.dataset != dataset and one.bits_per_byte and one.outcome is Outcome.COMPLETED
        ]
        for ending in endings:
            if ending.dataset != dataset or ending.outcome is not Outcome.COMPLETED:
                continue
            if not ending.bits_per_byte:
                continue
            if ending.pipeline.method == "zero-shot":
                expected = prior.zero_shot(view(ending))
                untouched.append(expected.low <= ending.bits_per_byte <= expected.high)
                continue
            quality = prior.predict(view(ending), [plan(ending)])[0]
            inside.append(quality.low <= ending.bits_per_byte <= quality.high)
            errors.append(math.log(quality.loss / ending.bits_per_byte))
            ignorant.append(float(np.mean(rest)) - math.log(ending.bits_per_byte))
    error, ignorance = (float(np.sqrt(np.mean(np.square(values)))) for values in (errors, ignorant))
    print(
        f"\n{len(endings)} runs: {np.mean(inside):.0%} of the losses lie in their 90% intervals, "
        f"{sum(untouched)} of {len(untouched)} of untouched models; error of the log loss {error:.2f}, "
        f"of the mean of other datasets {ignorance:.2f}"
    )
    assert 0.8 <= np.mean(inside) <= 1.0
    assert error < 0.85 * ignorance


@pytest.mark.parametrize("every", [2, pytest.param(1, marks=pytest.mark.soak)])
def test_larger_models_than_the_known_are_within_their_intervals(
    endings: list[FinalResult], every: int
) -> None:
    known = [ending for ending in endings if ending.model.name.startswith("nano")]
    larger = [ending for ending in endings if not ending.model.name.startswith("nano")]
    datasets = sorted({ending.dataset for ending in larger})[::every]
    prior = KnownRuns(known)
    errors, inside = [], []
    for ending in larger:
        is_tuned = ending.outcome is Outcome.COMPLETED and ending.pipeline.method != "zero-shot"
        if ending.dataset not in datasets or not is_tuned or not ending.bits_per_byte:
            continue
        quality = prior.predict(view(ending), [plan(ending)])[0]
        inside.append(quality.low <= ending.bits_per_byte <= quality.high)
        errors.append(math.log(quality.loss / ending.bits_per_byte))
    print(f"\n{len(inside)} runs of larger models: {np.mean(inside):.0%} lie in their 90% intervals")
    assert np.mean(inside) >= 0.8
    assert abs(float(np.mean(errors))) < 0.3


def typical(endings: list[FinalResult]) -> FinalResult:
    """A finetuning of a small model that ended well."""
    return next(
        one
        for one in endings
        if one.dataset == "multi30k_en_cs" and one.pipeline.method == "lora" and one.model.name == "nano-16m"
    )


def test_a_model_far_from_the_known_ones_is_less_certain(endings: list[FinalResult]) -> None:
    task = view(typical(endings))
    # Of a dataset on which larger models were finetuned too, more is known.
    prior = KnownRuns(
        [one for one in endings if one.dataset != task.dataset.name or one.model.parameters < 1e8]
    )
    modern = replace(task, model=replace(task.model, parameters=7_000_000_000, pretraining_tokens=None))

    def width(task: TaskDescription) -> float:
        quality = prior.predict(task, [plan(typical(endings))])[0]
        return math.log(quality.high / quality.low)

    assert width(modern) > 1.2 * width(task)


def test_pretraining_beyond_what_any_model_saw_promises_next_to_nothing(endings: list[FinalResult]) -> None:
    """The fall over the first million tokens must not be drawn on to the last trillion."""
    prior = KnownRuns(endings)
    known = typical(endings)

    def loss(tokens: float) -> float:
        facts = replace(known.model, parameters=135_000_000, pretraining_tokens=int(tokens))
        return prior.predict(replace(view(known), model=facts), [plan(known)])[0].loss

    assert loss(1e14) > 0.9 * loss(1e12)
    assert loss(1e9) < 0.9 * loss(1e7)


def test_completions_that_compress_promise_less_loss(endings: list[FinalResult]) -> None:
    prior = KnownRuns([])
    task = view(endings[0])
    easy = compressed(task, 0.05)
    hard = compressed(task, 0.5)
    at = plan(endings[0])
    assert prior.predict(easy, [at])[0].loss < 0.5 * prior.predict(hard, [at])[0].loss


def test_a_larger_model_and_more_data_promise_less_loss(endings: list[FinalResult]) -> None:
    prior = KnownRuns(endings)
    task = view(endings[0])
    larger = replace(task, model=replace(task.model, parameters=100 * task.model.parameters))
    short, long = Plan(BASELINE, 10_000, 50), Plan(BASELINE, 1_000_000, 5000)
    assert prior.predict(larger, [short])[0].loss < prior.predict(task, [short])[0].loss
    assert prior.predict(task, [long])[0].loss < prior.predict(task, [short])[0].loss


def test_a_learning_rate_far_off_promises_more_loss(endings: list[FinalResult]) -> None:
    prior = KnownRuns(endings)
    task = view(endings[0])
    at_rule = Pipeline("lora", {**BASELINE.hyperparameters, "learning_rate": 6e-3})
    off = Pipeline("lora", {**BASELINE.hyperparameters, "learning_rate": 6e-6})
    good, bad = prior.predict(task, [Plan(at_rule, 65_536, 100), Plan(off, 65_536, 100)])
    assert bad.loss > 1.1 * good.loss


def test_the_same_dataset_is_its_own_neighbour(endings: list[FinalResult]) -> None:
    near = KnownRuns(endings).neighbours(view(endings[0]))
    assert near[0].dataset == endings[0].dataset
    assert near[0].distance == pytest.approx(0.0)
    assert near[0].distance <= near[1].distance <= near[2].distance


def test_without_runs_the_literature_speaks_and_is_unsure(endings: list[FinalResult]) -> None:
    task = view(endings[0])
    prior = KnownRuns([])
    assert prior.neighbours(task) == ()
    quality = prior.predict(task, [plan(endings[0])])[0]
    assert quality.high / quality.low > KnownRuns(endings).predict(task, [plan(endings[0])])[0].high / (
        KnownRuns(endings).predict(task, [plan(endings[0])])[0].low
    )


def test_a_measured_zero_shot_loss_moves_the_prediction(endings: list[FinalResult]) -> None:
    prior = KnownRuns(endings)
    task = view(endings[0])
    expected = prior.zero_shot(task).loss
    worse = replace(task, zero_shot_loss=2 * expected)
    assert prior.predict(worse, [plan(endings[0])])[0].loss > prior.predict(task, [plan(endings[0])])[0].loss


def test_no_plans_no_predictions(endings: list[FinalResult]) -> None:
    assert KnownRuns(endings).predict(view(endings[0]), []) == []
