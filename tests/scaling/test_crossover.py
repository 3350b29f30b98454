from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq

from scaling.planted import methods_table
from tunecast.errors import ConfigurationError
from tunecast.scaling import LossRow, build_table, crossover

CONSTANTS = {"full": (30, 0.1, 0.25, 0.5), "lora": (6, 0.08, 0.1, 0.45)}


@pytest.mark.parametrize(("law", "size"), [("joint", 1e9), ("auto", 6e9)])
def test_planted_crossing_is_found_with_its_interval(law: str, size: float) -> None:

    def difference(log_size: float) -> float:
        full, lora = (
            a * size**-alpha * np.exp(-beta * log_size) + e for a, alpha, beta, e in CONSTANTS.values()
        )
        return float(full - lora)

    expected = np.exp(brentq(difference, 0, 28))
    (crossing,) = crossover(methods_table(CONSTANTS), model_parameters=size, law=law)
    root = crossing.roots[0]
    assert root.data_size == pytest.approx(expected, rel=0.3)
    assert root.low <= root.data_size <= root.high
    assert (root.better_below, root.better_above) == ("lora", "full")
    assert crossing.probability > 0.9


def test_a_method_without_curves_of_that_size_is_predicted_there() -> None:
    """The losses before finetuning, which only one of the two has at that size, inform neither."""
    table = methods_table(CONSTANTS)
    gone = ("full", 3e9)
    kept = [c for c in table.curves if (c.group["method"], c.factors["model_parameters"]) != gone]
    assert len(kept) == len(table.curves) - 1
    informed = replace(table, curves=tuple(replace(curve, zero_shot=9.0) for curve in kept))
    found = crossover(informed, model_parameters=3e9, law="joint")
    assert found == crossover(informed.without_zero_shot(), model_parameters=3e9, law="joint")


def test_a_method_that_is_always_better_never_crosses() -> None:
    constants = {"good": (5, 0.1, 0.2, 0.3), "bad": (9, 0.1, 0.2, 0.6)}
    (crossing,) = crossover(methods_table(constants), model_parameters=1e9)
    assert crossing.roots == ()
    assert "none in range: good is better" in crossing.reason


def test_without_a_model_size_methods_are_compared_at_every_measured_one() -> None:
    crossings = crossover(methods_table(CONSTANTS), law="joint")
    assert [entry.model_parameters for entry in crossings] == [1e8, 3e8, 1e9, 3e9]
    assert all(entry.first["method"] != entry.second["method"] for entry in crossings)


def test_one_group_cannot_cross() -> None:
    rows = [LossRow(2 - 0.1 * i, 100 * 2.0**i, {"method": "full"}) for i in range(4)]
    with pytest.raises(ConfigurationError, match="only one group"):
        crossover(build_table(rows, ["method"]))


def test_single_curves_cross_without_a_model_size() -> None:
    sizes = 100 * 2.0 ** np.arange(8)
    rows = [LossRow(float(8 * d**-0.3 + 0.5), d, {"method": "full"}) for d in sizes]
    rows += [LossRow(float(2.5 * d**-0.1), d, {"method": "lora"}) for d in sizes]
    grid = np.geomspace(10, 1e5, 4000)
    expected = grid[np.argmin(np.abs(8 * grid**-0.3 + 0.5 - 2.5 * grid**-0.1))]
    (crossing,) = crossover(build_table(rows, ["method"]))
    assert crossing.roots[0].data_size == pytest.approx(expected, rel=0.25)
