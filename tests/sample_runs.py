"""Builders of valid records, for the tests of every room. No heavy imports, no files."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from tunecast.executors.base import Slot
from tunecast.records import (
    DatasetFacts,
    Machine,
    ModelFacts,
    Outcome,
    Pipeline,
    Point,
    Run,
    RunError,
    Score,
    Seconds,
    Task,
    Versions,
    stable_hash,
)

FULL_LENGTH_TOKENS = 64_000
STEPS = (0, 2, 4, 8, 16, 32, 64)


def sample_score(loss: float = 2.5, **changes: Any) -> Score:
    """A score whose other figures follow from the loss; `changes` replace fields."""
    score = Score(
        loss, nats_per_completion=20 * loss, bits_per_byte=0.4 * loss, examples=50, label_tokens=1000
    )
    return replace(score, **changes)


def sample_point(step: int = 8, loss: float = 2.5, **changes: Any) -> Point:
    """A point of a trial of 64 steps; `changes` replace fields."""
    share = step / STEPS[-1]
    point = Point(
        step=step,
        tokens_seen=round(share * FULL_LENGTH_TOKENS),
        label_tokens_seen=round(0.4 * share * FULL_LENGTH_TOKENS),
        share=share,
        learning_rate=3e-4 * (1 - share),
        train_loss=None if step == 0 else loss + 0.1,
        gradient_norm=None if step == 0 else 1.0 / 3.0,
        validation=sample_score(loss),
        training=Seconds(0.5 * step, 0.9 * step),
        evaluation=Seconds(0.25, 0.4),
        peak_bytes=1_500_000_000,
        micro_batch_size=4,
        load_average=1.25,
        workers=2,
        elapsed_seconds=float(step),
        checkpoint_hash=f"checkpoint-{step}",
    )
    return replace(point, **changes)


def sample_curve(start: float = 4.0, floor: float = 2.0, rate: float = 0.05) -> tuple[Point, ...]:
    """A curve that falls from `start` toward `floor`."""
    return tuple(sample_point(step, floor + (start - floor) * math.exp(-rate * step)) for step in STEPS)


def sample_model(name: str = "smollm2", **changes: Any) -> ModelFacts:
    """Facts of a model of SmolLM2's shape; `changes` replace fields."""
    model = ModelFacts(
        name=name,
        family="llama",
        architecture="decoder-only",
        parameters=134_515_008,
        embedding_parameters=28_311_552,
        layers=30,
        width=576,
        feed_forward_width=1536,
        heads=9,
        key_value_heads=3,
        vocabulary=49_152,
        context=8192,
        tied_embeddings=True,
        has_biases=False,
        has_chat_template=True,
        config={"hidden_size": 576, "model_type": "llama", "rope_theta": 100000.0},
        weights_hash="w" * 16,
    )
    return replace(model, **changes)


def sample_dataset(name: str = "colours", **changes: Any) -> DatasetFacts:
    """Facts of a small dataset; `changes` replace fields."""
    dataset = DatasetFacts(
        name=name,
        format="prompt-completion",
        fingerprint=stable_hash(name),
        examples={"train": 400, "validation": 50, "test": 50},
        facts={"histogram_edges": [0, 1, 5], "prompt": {"tokens": {"total": 4150}}, "token_unit": "tokens"},
        meta_features={"mean_prompt_tokens": 12.25, "log_examples": math.log(400)},
        meta_features_version=1,
    )
    return replace(dataset, **changes)


def sample_machine(**changes: Any) -> Machine:
    """A two-core machine without accelerator; `changes` replace fields."""
    machine = Machine(
        "cpu", 2, 2, 8_000_000_000, 8_000_000_000, {"float32": 1.1e11, "bfloat16": 4e10}, 2.2e10
    )
    return replace(machine, **changes)


def sample_slot(**changes: Any) -> Slot:
    """A slot on :func:`sample_machine`; `changes` replace fields of the machine."""
    return Slot(sample_machine(**changes), Versions("0.1.0", "3.11.7", "2.13.0", "5.14.1", "0.20.0"))


def sample_pipeline(method: str = "lora", **hyperparameters: Any) -> Pipeline:
    """A LoRA pipeline; keywords add or replace hyperparameters."""
    usual = {"learning_rate": 3e-4, "per_device_train_batch_size": 4, "lora_r": 16, "lora_alpha": 32}
    chosen = usual if method == "lora" else {"learning_rate": 3e-4, "per_device_train_batch_size": 4}
    return Pipeline(method, chosen | hyperparameters)


def sample_run(number: int = 0, **changes: Any) -> Run:
    """A completed run of seven points; each `number` gives another id and seed, `changes` replace fields."""
    dataset = changes.get("dataset") or sample_dataset()
    model = changes.get("model") or sample_model()
    run = Run(
        id=stable_hash(["sample", number]),
        session="session-1",
        task=Task(dataset.name, model.name),
        pipeline=sample_pipeline(),
        seed=number,
        full_length_tokens=FULL_LENGTH_TOKENS,
        total_steps=STEPS[-1],
        unique_examples=400,
        max_length=256,
        validation_hash="v" * 16,
        dataset=dataset,
        model=model,
        machine=sample_machine(),
        versions=Versions("0.1.0", "3.11.7", "2.13.0", "5.23.0", "0.21.2"),
        dtype="bfloat16",
        trainable_parameters=1_000_000,
        exclusive=False,
        created_at=1_700_000_000.0 + number,
        curve=sample_curve(),
        outcome=Outcome.COMPLETED,
        validation=sample_score(2.1),
        test=sample_score(2.2, loss_low=2.1, loss_high=2.3),
    )
    return replace(run, **changes)


def diverged_run(number: int = 0, **changes: Any) -> Run:
    """A run that ended with a loss that is not a number."""
    curve = (*sample_curve()[:2], sample_point(4, math.inf), sample_point(8, math.nan))
    given = {
        "curve": curve,
        "outcome": Outcome.DIVERGED,
        "error": RunError("FloatingPointError", "loss is nan at step 8"),
        "validation": None,
        "test": None,
    }
    return sample_run(number, **(given | changes))


def score_of(loss: float, metric: float | None = None) -> Score:
    """A score of ten examples."""
    return Score(loss, loss, loss, 10, 100, metric=metric)


def points_with(*scores: tuple[float, float | None]) -> tuple[Point, ...]:
    """Points one step apart, each with a loss and an accuracy, or without one."""
    return tuple(
        sample_point(
            step,
            validation=replace(score_of(loss, accuracy), metric_name="" if accuracy is None else "accuracy"),
        )
        for step, (loss, accuracy) in enumerate(scores, start=1)
    )
