"""The share of the ideal that real steps reach, as recorded runs teach it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tunecast.estimate.constants import EFFICIENCY
from tunecast.recommender.efficiency import Efficiency, Share, credible_ratios, ideal_ratio, usual_share
from tunecast.records import Pipeline
from tunecast.store.final_results import FinalResult, read_final_results
from tunecast.store.shipping import shipped


@pytest.fixture(scope="module")
def endings() -> Sequence[FinalResult]:
    file = shipped()
    assert file is not None
    return read_final_results(file)


def paced(ending: FinalResult, ratio: float, device: str = "cpu") -> FinalResult:
    """The run, had its steps reached that share of the ideal."""
    assert ending.step_cost is not None
    machine = replace(ending.step_cost.machine, device=device)
    alone = replace(ending, step_cost=replace(ending.step_cost, machine=machine))
    found = ideal_ratio(alone)
    assert found is not None
    seconds = ending.step_cost.seconds * found[1] / ratio
    return replace(ending, step_cost=replace(ending.step_cost, machine=machine, seconds=seconds))


def one_of(endings: Sequence[FinalResult], method: str, model: str) -> FinalResult:
    return next(
        e for e in endings if e.pipeline.method == method and e.model.name == model and ideal_ratio(e)
    )


def test_without_runs_the_literature_speaks() -> None:
    assert Efficiency().share("cpu", "bfloat16", "lora") == Share(EFFICIENCY)
    on_cuda = Efficiency().share("cuda", "bfloat16", "lora")
    assert on_cuda.value == 1.0
    assert on_cuda.deviation < Share().deviation


def test_runs_move_their_own_group_most_and_their_device_some(endings: Sequence[FinalResult]) -> None:
    lora = one_of(endings, "lora", "micro-16m")
    others = [one_of(endings, "lora", name) for name in ("micro-4m", "mini-10m")]
    known = Efficiency([paced(one, 0.3) for one in (lora, *others)])
    own, near, far = (
        known.share(device, "bfloat16", kind)
        for device, kind in (("cpu", "lora"), ("cpu", "full"), ("cuda", "lora"))
    )
    assert 0.3 < own.value < 0.4
    assert own.value < near.value < EFFICIENCY
    assert far == usual_share("cuda")
    assert own.deviation < near.deviation < Share().deviation


def test_many_runs_of_one_model_count_once(endings: Sequence[FinalResult]) -> None:
    lora = one_of(endings, "lora", "micro-16m")
    assert Efficiency([paced(lora, 0.3)] * 50).share("cpu", "bfloat16", "lora") == Efficiency(
        [paced(lora, 0.3)]
    ).share("cpu", "bfloat16", "lora")


def test_a_machine_whose_rates_were_measured_while_it_was_busy_teaches_nothing(
    endings: Sequence[FinalResult],
) -> None:
    lora = one_of(endings, "lora", "micro-16m")
    other = one_of(endings, "lora", "mini-10m")
    assert lora.step_cost is not None
    slow = replace(lora.step_cost.machine, bandwidth_bytes_per_second=1e9)
    busy = [
        replace(one, step_cost=replace(one.step_cost, machine=slow))
        for one in (lora, other, other)
        if one.step_cost
    ]
    spoiled = [paced(one, ratio) for one, ratio in zip(busy, (0.2, 3.0, 3.0), strict=True)]
    assert Efficiency(spoiled).share("cpu", "bfloat16", "lora") == Share()
    # One run that is too good to be true is no reason to distrust a machine, nor to be left out itself.
    mostly = [paced(one, ratio) for one, ratio in zip(busy, (0.5, 0.5, 1.2), strict=True)]
    assert len(credible_ratios(mostly)) == 3


def test_what_formulas_do_not_know_is_left_out(endings: Sequence[FinalResult]) -> None:
    lora = one_of(endings, "lora", "micro-16m")
    assert lora.step_cost is not None
    assert ideal_ratio(replace(lora, pipeline=Pipeline("adalora", lora.pipeline.hyperparameters))) is None
    assert ideal_ratio(replace(lora, model=replace(lora.model, family="t5"))) is None
    assert ideal_ratio(replace(lora, step_cost=replace(lora.step_cost, steps=2))) is None
    assert ideal_ratio(replace(lora, step_cost=None)) is None
    assert ideal_ratio(replace(lora, step_cost=replace(lora.step_cost, seconds=0.0))) is None


# Larger models reach more and several threads less, which nothing here knows yet: SmolLM2 is predicted worst.
# The limits lie a tenth above what was found, so that runs can be added.
@pytest.mark.parametrize(
    ("held", "most", "share"), [("micro", 0.33, 0.5), ("mini", 0.28, 0.5), ("SmolLM2", 0.34, 0.8)]
)
def test_held_out_models_take_as_long_as_predicted(
    endings: Sequence[FinalResult], held: str, most: float, share: float
) -> None:
    known = Efficiency([e for e in endings if not e.model.name.startswith(held)])
    errors, constant = [], []
    for _, ((device, key), ratio) in credible_ratios(e for e in endings if e.model.name.startswith(held)):
        errors.append(math.log(known.share(device, *key).value / ratio))
        constant.append(math.log(EFFICIENCY / ratio))
    assert np.sqrt(np.mean(np.square(errors))) < most
    assert np.sqrt(np.mean(np.square(errors))) < share * np.sqrt(np.mean(np.square(constant)))
