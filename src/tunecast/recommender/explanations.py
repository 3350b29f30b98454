"""Explains a recommendation in sentences: its reasons, their certainty, and how to override each choice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tunecast.methods import get_method
from tunecast.methods.rates import WIDE, WIDE_RATE, adapter_rate
from tunecast.recommender.known_runs import Neighbour
from tunecast.recommender.question import Situation
from tunecast.recommender.rate_rules import RULE_ALPHA
from tunecast.recommender.recommendation import Prospect

CERTAIN = 0.995
"""Higher probabilities would be printed as 100%, which no prediction deserves."""
FAR = 1.0
"""A known task at a larger distance tells little: datasets differ by about 1.3 on average."""


def reasons(prospect: Prospect, situation: Situation, neighbours: Sequence[Neighbour]) -> tuple[str, ...]:
    """Explain a pipeline: its learning rate, its length, similar known tasks, and the certainty."""
    return (
        _rate(prospect, situation),
        _length(prospect, situation),
        *_memory(prospect),
        _neighbours(neighbours),
        _time(prospect, situation),
        _certainty(prospect),
    )


def overrides(prospect: Prospect, situation: Situation, epochs: float) -> Mapping[str, str]:
    """Return the flag that changes each automatic choice, by its name."""
    pipeline = prospect.pipeline
    knobs = {
        name: f"--fix {name}={pipeline[name]}"
        for name in ("learning_rate", "lora_r", "lora_alpha", "per_device_train_batch_size", "optim")
        if name in pipeline.hyperparameters
    }
    return {
        "method": f"--methods {pipeline.method}",
        **knobs,
        "epochs": f"--epochs {epochs:g}",
        "max_length": f"--max-length {situation.lengths.max_length}",
    }


def worth_text(probability: float) -> str:
    """Say whether finetuning is worth it."""
    chance = f"with a probability of {probability:.0%}" if probability < CERTAIN else "almost certainly"
    if probability >= 0.95:
        return f"Finetuning is very likely worth it: it beats the untouched model {chance}."
    if probability >= 0.75:
        return f"Finetuning is probably worth it: it beats the untouched model {chance}."
    if probability > 0.25:
        return f"Cannot tell yet whether finetuning is worth it: it beats the untouched model {chance}."
    return f"Finetuning is probably not worth it: it beats the untouched model {chance} only."


def _rate(prospect: Prospect, situation: Situation) -> str:
    pipeline = prospect.pipeline
    facts = situation.task.model
    width = facts.width
    usual = f"the {WIDE_RATE:g} of all wide models" if width >= WIDE else f"what suits width {width}"
    method = get_method(pipeline.method)
    if method.fixed_rate:
        rule = "the method's usual rate on all models"
    elif (multiple := method.central_rate(facts) / adapter_rate(facts)) != 1.0:
        rule = f"{multiple:.2g} times LoRA's, which is {usual}"
    else:
        rule = f"{usual}, at alpha {RULE_ALPHA:g} for all ranks"
    return f"Learning rate {pipeline.number('learning_rate'):g}: {rule}."


def _length(prospect: Prospect, situation: Situation) -> str:
    epochs = prospect.full_length_tokens / situation.lengths.train_tokens
    return (
        f"{prospect.total_steps} steps over {prospect.full_length_tokens:,} tokens, {epochs:.2g} passes over "
        f"{situation.lengths.examples:,} examples of {situation.lengths.mean:.0f} tokens."
    )


def _memory(prospect: Prospect) -> list[str]:
    batch = int(prospect.pipeline.number("per_device_train_batch_size", 8))
    if prospect.micro_batch >= batch:
        return []
    return [
        f"Memory holds {prospect.micro_batch} of its {batch} examples at a time; the step stays the same."
    ]


def _time(prospect: Prospect, situation: Situation) -> str:
    factor = math.sqrt(prospect.hours_high / prospect.hours_low)
    target = situation.target
    remedy = "; --calibrate measures this machine" if target.is_here and not target.efficiency else ""
    return f"The 90% interval of the time spans a factor of {factor:.1f} to either side{remedy}."


def _neighbours(neighbours: Sequence[Neighbour]) -> str:
    if not neighbours:
        return "No task is known: the prediction rests on the literature alone."
    near = neighbours[0]
    alike = ", ".join(name.replace("_", " ") for name in near.alike)
    if near.distance > FAR:
        return (
            f"Unlike all known tasks (the nearest, {near.dataset}, is {near.distance:.1f} deviations away)."
        )
    return f"Nearest known task: {near.dataset} ({near.runs} runs), alike in {alike}."


def _certainty(prospect: Prospect) -> str:
    factor = math.sqrt(prospect.high / prospect.low)
    return (
        f"The 90% interval of the loss spans a factor of {factor:.1f} to either side; differences between "
        "pipelines are more certain than the level."
    )
