"""A line is found beside effects that predictions leave out."""

from __future__ import annotations

import numpy as np
import pytest

from sample_runs import sample_dataset, sample_machine, sample_run
from tunecast.predictor.linear import MIN_RUNS, Line, by_device, families_of, fit_line, is_enough
from tunecast.records import Run, Task


def test_a_line_leaves_out_the_nuisance() -> None:
    draw = np.random.default_rng(0)
    features = draw.normal(size=(4000, 2))
    nuisance = (draw.random((4000, 1)) < 0.5).astype(float)
    target = 3.0 + features @ [2.0, -1.0] + 5.0 * nuisance[:, 0] + 0.1 * draw.normal(size=4000)
    line, error = fit_line(features, nuisance, target, np.arange(4000) % 4)
    assert error == pytest.approx(0.1, rel=0.2)
    asked = np.array([[0.0, 0.0], [1.0, 1.0]])
    assert line(asked) == pytest.approx([3.0, 4.0], abs=0.1)
    assert Line.from_arrays(line.arrays())(asked) == pytest.approx(line(asked))


def test_weights_decide_between_rows_that_disagree() -> None:
    features, nothing = np.zeros((40, 1)), np.zeros((40, 0))
    target = np.repeat([1.0, 2.0], 20)
    weight = np.repeat([1.0, 3.0], 20)
    line, _ = fit_line(features, nothing, target, np.arange(40) % 2, weight)
    assert line(np.zeros((1, 1))) == pytest.approx([1.75])


def runs(*tasks: str, device: str = "cpu") -> list[Run]:
    return [
        sample_run(
            number, task=Task(name, "m"), dataset=sample_dataset(name), machine=sample_machine(device=device)
        )
        for number, name in enumerate(tasks)
    ]


def test_runs_are_held_out_by_families_of_datasets() -> None:
    families = families_of(runs("bbh_one", "bbh_two", "cola", "bbh_one"))
    assert families[0] == families[3]
    assert families[0] != families[2]


def test_enough_is_ten_runs_of_two_families() -> None:
    assert not is_enough(runs(*["cola"] * MIN_RUNS))
    assert not is_enough(runs("banking77", *["cola"] * (MIN_RUNS - 2)))
    assert is_enough(runs("banking77", *["cola"] * (MIN_RUNS - 1)))


def test_runs_of_an_unknown_device_belong_to_none() -> None:
    mixed = [*runs("a", device="cpu"), *runs("b", "c", device="cuda:0"), *runs("d", device="")]
    assert {kind: len(found) for kind, found in by_device(mixed).items()} == {"cpu": 1, "cuda": 2}
