"""Odds of divergence."""

from __future__ import annotations

from dataclasses import replace

from planted_runs import planted_dataset, planted_model
from tunecast.methods.rates import adapter_rate
from tunecast.predictor.endings import Ending
from tunecast.predictor.quality_training import divergence_of, divergence_probability
from tunecast.predictor.rate_law import fit_rate_law
from tunecast.predictor.task import TaskDescription
from tunecast.records import Pipeline

MULTIPLES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def ending(multiple: float, width: int = 1024, **more: object) -> Ending:
    """A finetuning at a multiple of the usual rate, which diverges at ten times that rate."""
    model = planted_model(width)
    values = {"learning_rate": multiple * adapter_rate(model), "lora_r": 16, "lora_alpha": 32}
    return Ending(
        task=TaskDescription(planted_dataset(0), model, 64_000, 400, 4.0),
        pipeline=Pipeline("lora", {**values, **more}),
        total_steps=800,
        value=1.0,
        table="",
        is_loss=True,
        family="apple",
        diverged=multiple >= 10,
    )


def test_high_rates_diverge() -> None:
    law = fit_rate_law([])
    known = [ending(multiple, width) for multiple in MULTIPLES for width in (512, 1024, 2048)]
    learned = divergence_of(law, known)
    assert learned is not None
    odds = divergence_probability(law, learned, [ending(multiple, 1536) for multiple in MULTIPLES])
    assert list(odds) == sorted(odds)
    assert odds[0] < 0.1
    assert odds[-1] > 0.5


def test_what_steadies_a_schedule_is_learned() -> None:
    """Without a warmup, rates diverge that are well with one."""
    law = fit_rate_law([])
    known = [
        replace(ending(multiple, warmup_ratio=warmup), diverged=multiple >= (3 if warmup == 0 else 30))
        for multiple in MULTIPLES
        for warmup in (0.0, 0.1)
    ]
    learned = divergence_of(law, known)
    assert learned is not None
    with_one, without = (
        divergence_probability(law, learned, [ending(3.0, warmup_ratio=warmup)]) for warmup in (0.1, 0.0)
    )
    assert without > 2 * with_one


def test_one_outcome_teaches_nothing() -> None:
    law = fit_rate_law([])
    assert divergence_of(law, [ending(1.0), ending(0.1)]) is None
    assert divergence_of(law, []) is None
