from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sample_runs import diverged_run, sample_curve, sample_dataset, sample_model, sample_pipeline, sample_run
from tunecast.collect.figures import (
    best_rates,
    between,
    counts,
    diverged_share,
    fidelity_correlations,
    main,
    markdown,
    rank_correlation,
)
from tunecast.records import Outcome, Run, Task, stable_hash
from tunecast.store import Store

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


def test_diverged_share_by_half_decade(runs: list[Run]) -> None:
    bad = [replace(run, outcome=Outcome.DIVERGED) for run in runs[3:4]]
    rows = diverged_share([*runs[:3], *bad])
    assert [row[2:] for row in rows] == [("1", "0%"), ("1", "0%"), ("1", "0%"), ("1", "100%")]
    assert rows[0][:2] == ("lora", "1.0e-04 to 3.2e-04")


def test_fidelity_correlations_of_curves_that_never_cross(runs: list[Run]) -> None:
    rows = {row[0]: row[1:] for row in fidelity_correlations(runs)}
    assert rows["1/2"] == ("3", "1.00")
    assert rows["1/64"] == ("0", "-")


def test_correlations_between_datasets_and_models(runs: list[Run]) -> None:
    tasks = between(runs, lambda run: run.task.model, lambda run: run.task.dataset)
    assert tasks == [("colours", "shapes", "1", "1.00"), ("all", "", "1", "1.00")]
    models = between(runs, lambda run: run.task.dataset, lambda run: run.task.model)
    assert models[0] == ("other", "smollm2", "1", "-1.00")


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
