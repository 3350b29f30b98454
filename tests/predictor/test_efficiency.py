"""The share of the ideal that real steps reach, as recorded runs teach it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from planted_runs import planted_dataset, planted_model, planted_run
from sample_runs import sample_machine
from tunecast.estimate.constants import EFFICIENCY
from tunecast.predictor.efficiency import Efficiency, Share, credible_ratios, ideal_ratio, usual_share
from tunecast.records import Machine, Pipeline, Run, Seconds

LORA = {"learning_rate": 1e-3, "lora_r": 8, "lora_alpha": 16, "per_device_train_batch_size": 8}


def run_on(width: int, ratio: float, machine: Machine | None = None, seed: int = 0) -> Run:
    """A run of LoRA whose steps reach a share of the ideal."""
    model = planted_model(width)
    made = planted_run(planted_dataset(0), model, Pipeline("lora", LORA), seed)
    alone = replace(made, machine=machine or sample_machine(), exclusive=True)
    found = ideal_ratio(alone)
    assert found is not None
    slower = found[1] / ratio

    def scaled(seconds: Seconds) -> Seconds:
        return Seconds(slower * seconds.wall, slower * seconds.cpu)

    return replace(alone, curve=tuple(replace(one, training=scaled(one.training)) for one in alone.curve))


def share(runs: Iterable[Run], kind: str = "lora") -> Share:
    return Efficiency.of(runs).share("cpu", "bfloat16", kind)


def test_a_run_that_was_paced_has_that_ratio() -> None:
    assert ideal_ratio(run_on(128, 0.3)) == (("cpu", ("bfloat16", "lora")), pytest.approx(0.3))


def test_without_runs_the_literature_speaks() -> None:
    assert Efficiency().share("cpu", "bfloat16", "lora") == Share(EFFICIENCY)
    on_cuda = Efficiency().share("cuda", "bfloat16", "lora")
    assert on_cuda.value == 1.0
    assert on_cuda.deviation < Share().deviation


def test_runs_move_their_own_group_most_and_their_device_some() -> None:
    runs = [run_on(width, 0.3) for width in (128, 192, 256)]
    own, near, none = share(runs), share(runs, "full"), share([])
    assert 0.3 < own.value < 0.4
    assert own.value < near.value < none.value == EFFICIENCY
    assert Efficiency.of(runs).share("cuda", "bfloat16", "lora") == usual_share("cuda")
    assert own.deviation < near.deviation < Share().deviation


def test_many_runs_of_one_model_count_once() -> None:
    assert share([run_on(128, 0.3)] * 50) == share([run_on(128, 0.3)])


def test_what_was_learned_is_kept_as_plain_values() -> None:
    known = Efficiency.of([run_on(128, 0.3), run_on(192, 0.4)])
    again = Efficiency.from_json(json.loads(json.dumps(known.as_json())))
    for kind in ("lora", "full"):
        assert again.share("cpu", "bfloat16", kind) == known.share("cpu", "bfloat16", kind)
    assert again.share("cpu", "bfloat16", "lora") != Share()


def test_a_machine_whose_rates_were_measured_while_it_was_busy_teaches_nothing() -> None:
    slow = replace(sample_machine(), bandwidth_bytes_per_second=1e9)
    assert share(run_on(128, ratio, slow) for ratio in (0.2, 3.0, 3.0)) == Share()
    # One run that is too good to be true is no reason to distrust a machine, nor to be left out itself.
    assert len(credible_ratios(run_on(128, ratio, slow) for ratio in (0.5, 0.5, 1.2))) == 3


def test_what_formulas_do_not_know_is_left_out() -> None:
    lora = run_on(128, 0.3)
    assert ideal_ratio(replace(lora, pipeline=Pipeline("adalora", LORA))) is None
    assert ideal_ratio(replace(lora, model=replace(lora.model, family="t5"))) is None
    assert ideal_ratio(replace(lora, curve=())) is None
    short = [replace(point, step=2) for point in lora.curve]
    assert ideal_ratio(replace(lora, curve=tuple(short))) is None
    free = [replace(point, training=Seconds(0.0, 0.0)) for point in lora.curve]
    assert ideal_ratio(replace(lora, curve=tuple(free))) is None


def test_an_unknown_model_lies_within_the_spread_of_the_known_ones() -> None:
    draw = np.random.default_rng(0)
    ratios = np.exp(np.log(0.4) + 0.2 * draw.normal(size=12))
    known = share(run_on(64 * (2 + n), float(ratio)) for n, ratio in enumerate(ratios))
    assert known.value == pytest.approx(0.4, rel=0.2)
    assert 0.2 <= known.deviation < 0.25


def test_a_run_of_an_unknown_machine_teaches_nothing() -> None:
    run = run_on(128, 0.3)
    imported = Machine("", 0, 0, 0, 0, {}, math.nan)
    unknown = Seconds(math.nan, math.nan)
    curve = tuple(replace(point, training=unknown) for point in run.curve)
    assert ideal_ratio(replace(run, machine=imported)) is None
    assert ideal_ratio(replace(run, curve=curve)) is None
    assert credible_ratios([replace(run, machine=imported, curve=curve)]) == []
