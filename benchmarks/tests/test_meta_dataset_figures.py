from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from meta_dataset_figures import (
    best_rates,
    between_datasets,
    between_models,
    counts,
    diverged_share,
    evaluation_share,
    fidelity_correlations,
    main,
    markdown,
    rank_correlation,
)
from sample_runs import diverged_run, sample_curve, sample_dataset, sample_model, sample_pipeline, sample_run
from tunecast.records import Outcome, Pipeline, Run, Scalar, Seconds, Task, stable_hash
from tunecast.store import Store, open_for_reading

RATES = (1e-4, 4e-4, 1e-3, 4e-3)


def a_run(place: int, dataset: str = "colours", model: str = "smollm2", worst: bool = False) -> Run:
    """One of four draws; the second does best, or worst."""
    floor = abs(place - 1.2) * (-0.2 if worst else 0.2) + 2.0
    run = sample_run(
        int(stable_hash([place, dataset, model], 7), 16),
        dataset=sample_dataset(dataset),
        model=sample_model(model),
        pipeline=sample_pipeline(learning_rate=RATES[place]),
        curve=sample_curve(floor=floor),
        extra={"number": place, "shared": True},
        seed=0,
    )
    return replace(run, task=Task(dataset, model))


@pytest.fixture
def runs() -> list[Run]:
    made = [a_run(place) for place in range(4)]
    made += [a_run(place, dataset="shapes") for place in range(4)]
    return [*made, *(a_run(place, model="other", worst=True) for place in range(4))]


def test_counts_by_outcome(runs: list[Run]) -> None:
    rows = counts([*runs, diverged_run(77)], lambda run: run.pipeline.method)
    assert rows == [("lora", "13", "12", "1", "0")]
    lengths = counts([replace(runs[0], full_length_tokens=n) for n in (4096, 65536, 16384)], length)
    assert [row[0] for row in lengths] == ["4096", "16384", "65536"]


def length(run: Run) -> int:
    return run.full_length_tokens


def test_best_rates_are_those_of_the_lowest_loss(runs: list[Run]) -> None:
    (row,) = best_rates(runs)
    assert row[:4] == ("lora", "64000", "576", "3")
    assert row[4] == "4.0e-04"
    assert best_rates(runs[:3]) == []


def with_values(run: Run, **values: Scalar) -> Run:
    """The run with other hyperparameters."""
    pipeline = replace(run.pipeline, hyperparameters={**run.pipeline.hyperparameters, **values})
    return replace(run, pipeline=pipeline)


def test_a_group_of_one_rate_has_no_best_rate(runs: list[Run]) -> None:
    fixed = [with_values(run, learning_rate=1e-3, lora_r=2**n) for n, run in enumerate(runs[:4])]
    assert best_rates(fixed) == []
    assert best_rates([*fixed, *runs[:3]]) == []


def test_rates_are_those_of_adamw(runs: list[Run]) -> None:
    factors = {"adamw": 1.0, "sgd": 100.0, "lion": 0.3, "adafactor": 1.0}
    others = [
        with_values(run, optim=name, learning_rate=RATES[place] * factor)
        for place, (run, (name, factor)) in enumerate(zip(runs[:4], factors.items(), strict=True))
    ]
    assert best_rates(others) == best_rates(runs[:4])
    assert diverged_share(others) == diverged_share(runs[:4])


def test_imported_runs_without_a_rate_or_a_width_are_left_out(runs: list[Run]) -> None:
    no_width = replace(runs[0], model=sample_model(width=0))
    no_rate = replace(runs[0], pipeline=Pipeline("lora"))
    assert diverged_share([no_width, no_rate, *runs]) == diverged_share(runs)
    assert best_rates([no_width, no_rate, *runs]) == best_rates(runs)


def test_diverged_share_by_half_decade(runs: list[Run]) -> None:
    bad = [replace(run, outcome=Outcome.DIVERGED) for run in runs[3:4]]
    rows = diverged_share([*runs[:3], *bad])
    assert [row[2:] for row in rows] == [("1", "0%"), ("1", "0%"), ("1", "0%"), ("1", "100%")]
    assert rows[0][:2] == ("lora", "0.032 to 0.1")  # 1e-4 where 1.5e-3 is the width's rate


def test_fidelity_correlations_of_curves_that_never_cross(runs: list[Run]) -> None:
    rows = {row[0]: row[1:] for row in fidelity_correlations(runs)}
    assert rows["1/2"] == ("3", "1.00")
    assert rows["1/64"] == ("0", "-")


def test_runs_on_more_examples_are_not_compared_with_those_on_fewer(runs: list[Run]) -> None:
    """Those on few examples end higher than all others, and their best rate is another."""
    few = [
        replace(a_run(place), id=f"{place:016x}", unique_examples=16, curve=sample_curve(floor=4.0 - place))
        for place in range(4)
    ]
    ((method, *_, groups, _, quartiles),) = best_rates([*runs[:4], *few])
    assert (method, groups, quartiles) == ("lora", "2", "4.0e-04 to 4.0e-03")
    assert {row[0]: row[1] for row in fidelity_correlations([*runs[:4], *few])}["1/2"] == "2"


def test_the_metric_that_is_measured_besides_makes_no_other_group(runs: list[Run]) -> None:
    other = [replace(run, task=replace(run.task, metric="token_f1")) for run in runs[:2]]
    assert best_rates([*other, *runs[2:]]) == best_rates(runs)
    assert fidelity_correlations([*other, *runs[2:]]) == fidelity_correlations(runs)


def test_correlations_between_datasets_and_models(runs: list[Run]) -> None:
    tasks = between_datasets(runs)
    assert tasks == [("colours", "shapes", "1", "1.00"), ("all", "", "1", "1.00")]
    models = between_models(runs)
    assert models[0] == ("other", "smollm2", "1", "-1.00")


def test_a_draw_is_the_same_at_another_rate_on_another_model_and_with_a_smaller_batch(
    runs: list[Run],
) -> None:
    moved = [with_values(run, learning_rate=3 * run.pipeline.number("learning_rate")) for run in runs[8:]]
    assert between_models(runs) == between_models([*runs[:8], *moved])
    halved = [with_values(run, per_device_train_batch_size=2) for run in runs[4:8]]
    assert between_datasets([*runs[:4], *halved]) == between_datasets(runs[:8])


def test_draws_of_two_plans_that_share_numbers_are_not_compared(runs: list[Run]) -> None:
    ranks = [with_values(run, lora_r=2) for run in runs]
    assert between_models([*runs[:4], *ranks[8:]]) == [("all", "", "0", "-")]
    assert between_datasets([*runs[:4], *ranks[4:8]]) == [("all", "", "0", "-")]
    full = [replace(run, id=run.id[::-1], pipeline=sample_pipeline("full")) for run in runs[:4]]
    assert between_models([*runs, *full]) == between_models(runs)
    assert between_datasets([*runs, *full]) == between_datasets(runs)


def test_draws_of_two_plans_that_differ_in_rates_or_examples_are_not_compared(runs: list[Run]) -> None:
    faster = [with_values(run, learning_rate=0.5) for run in runs]
    assert between_datasets([*runs[:4], *faster[4:8]]) == [("all", "", "0", "-")]
    fewer = [replace(run, unique_examples=16) for run in runs]
    assert between_models([*runs[:4], *fewer[8:]]) == [("all", "", "0", "-")]
    # With either of the two runs of a draw, at two rates, the other model's would be a guess.
    assert between_models([*runs[:4], *runs[8:], *faster[:1]]) == [("all", "", "0", "-")]


def test_evaluation_is_told_relative_to_training(runs: list[Run]) -> None:
    point = replace(runs[0].curve[0], training=Seconds(9.0, 4.0), evaluation=Seconds(9.0, 1.0))
    timed = replace(runs[0], curve=(point, point))
    untimed = replace(timed, curve=(replace(point, training=Seconds(9.0, math.nan)),))
    broken = replace(timed, outcome=Outcome.DIVERGED)
    assert evaluation_share([timed, untimed, broken]) == [0.25]
    assert "median of 25% of training's processor seconds in 1 completed runs" in markdown([timed])


def test_what_is_shipped_says_what_the_docs_show() -> None:
    page = Path(__file__).parents[2] / "docs" / "meta-dataset-figures.md"
    with open_for_reading() as store:
        assert page.read_text(encoding="utf-8") == markdown(list(store.runs())) + "\n"


def test_rank_correlation_needs_enough_that_differs() -> None:
    assert rank_correlation([(1, 1), (2, 2), (3, 3)]) is None
    assert rank_correlation([(1, 1), (1, 2), (1, 3), (1, 4)]) is None
    assert rank_correlation([(1, 4), (2, 3), (3, 2), (float("inf"), 1)]) == pytest.approx(-1)


def test_everything_is_printed_as_markdown(
    runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store.open(tmp_path / "runs.sqlite") as store:
        store.put_all(runs)
    main(["--store", str(tmp_path / "runs.sqlite")])
    printed = capsys.readouterr().out
    assert printed.startswith("12 runs, 84 points.")
    assert "| lora | 64000 | 576 | 3 | 4.0e-04 |" in printed
    assert markdown([]).startswith("0 runs, 0 points.")
