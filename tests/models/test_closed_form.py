"""The formulas agree with the dry runs that they stand for."""

from __future__ import annotations

from typing import Any

import pytest

from tunecast.methods.memory import adapter_of
from tunecast.models.closed_form import FRAMEWORK_BYTES as SAME_BYTES
from tunecast.models.closed_form import (
    Form,
    bytes_held,
    ia3_parameters,
    is_known,
    lora_parameters,
    step_seconds,
)
from tunecast.models.describe import describe_config
from tunecast.models.memory import FRAMEWORK_BYTES, MemoryRequest, estimate_memory
from tunecast.models.seconds import estimate_seconds
from tunecast.records import Machine, ModelFacts, Pipeline

GPU = Machine("cuda", 8, 8, 64 * 10**9, 85 * 10**9, {"float32": 67e12, "bfloat16": 989e12}, 3.35e12)
CPU = Machine("cpu", 2, 2, 25 * 10**9, 25 * 10**9, {"float32": 1e11, "bfloat16": 2.2e11}, 3e10)
WIDTHS = [(576, 1536, 30, 9, 3, 49_152), (3584, 18_944, 28, 28, 4, 152_064)]


def qwen(width: int, inner: int, layers: int, heads: int, groups: int, vocabulary: int) -> Any:
    from transformers import Qwen2Config

    return Qwen2Config(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        vocab_size=vocabulary,
        tie_word_embeddings=width < 3000,
    )


def forms(facts: ModelFacts, device: str, dtype: str) -> list[tuple[Form, Any]]:
    """Finetunings as the formulas and as the dry runs see them."""
    lora = {"lora_r": 32, "lora_alpha": 64, "lora_dropout": 0.0, "target_modules": "all-linear"}
    pairs = lora_parameters(facts, 32)
    made = [
        (Form("full", facts.parameters, dtype=dtype, device=device), None),
        (
            Form("lora", pairs, rank=32, dtype=dtype, device=device),
            adapter_of(Pipeline("lora", lora), facts),
        ),
        (
            Form("lora", pairs, rank=32, dropout=True, dtype=dtype, device=device),
            adapter_of(Pipeline("lora", lora | {"lora_dropout": 0.1}), facts),
        ),
        (Form("ia3", ia3_parameters(facts), dtype=dtype, device=device), adapter_of(Pipeline("ia3"), facts)),
    ]
    return [(form, None if adapter is None else dict(adapter)) for form, adapter in made]


@pytest.mark.parametrize("shape", WIDTHS)
@pytest.mark.parametrize(("device", "dtype"), [("cuda", "bfloat16"), ("cpu", "float32")])
def test_bytes_seconds_and_parameters(shape: tuple[int, ...], device: str, dtype: str) -> None:
    config = qwen(*shape)
    facts = describe_config(config, "x")
    assert is_known(facts)
    machine = GPU if device == "cuda" else CPU
    for form, adapter in forms(facts, device, dtype):
        for batch, length, labels in ((4, 192, 64),):
            request = MemoryRequest(
                adapter=adapter,
                precision=dtype,  # type: ignore[arg-type]
                batch_size=batch,
                max_length=length,
                label_tokens=labels,
                evaluates=False,
                device=device,  # type: ignore[arg-type]
            )
            exact = estimate_memory(config, request)
            assert form.trainable_parameters == exact.trainable_parameters
            held = bytes_held(facts, form, batch=batch, length=length, label_tokens=labels)
            assert held == pytest.approx(exact.total_bytes, rel=0.12), (form, batch)
            scored = MemoryRequest(**{**vars(request), "evaluates": True})
            seconds = estimate_seconds(config, scored, machine, efficiency=1.0)
            step, scoring = step_seconds(
                facts, form, machine, batch=batch, length=length, label_tokens=labels, efficiency=1.0
            )
            assert step == pytest.approx(seconds.step, rel=0.25), (form, batch)
            assert scoring == pytest.approx(seconds.scoring_batch, rel=0.35), (form, batch)


def test_the_framework_counts_alike() -> None:
    assert dict(FRAMEWORK_BYTES) == dict(SAME_BYTES)


def test_four_bits_hold_less_and_attention_alone_too() -> None:
    facts = describe_config(qwen(*WIDTHS[1]), "x")
    whole = Form("lora", lora_parameters(facts, 16), rank=16)
    packed = Form("lora", lora_parameters(facts, 16), rank=16, four_bit=True)
    less = Form("lora", lora_parameters(facts, 16, "attention"), rank=16, placed="attention")
    sizes = [bytes_held(facts, form, batch=1, length=128, label_tokens=8) for form in (whole, packed, less)]
    assert sizes[1] < 0.6 * sizes[0]
    assert sizes[2] < sizes[0]
