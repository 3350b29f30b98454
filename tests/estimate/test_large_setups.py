"""Bytes of large finetunings: mixed precision over several devices, fused kernels, four-bit bases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from transformers import GraniteMoeConfig, LlamaConfig, MixtralConfig

from tunecast.estimate import Workload, cached_dry_run, estimate_memory
from tunecast.estimate.constants import FOUR_BIT_BYTES, MAX_SHARE, MIN_SHARE, SINGLY_QUANTISED_BYTES
from tunecast.estimate.seconds import dry_run_seconds
from tunecast.hardware.accelerators import as_machine, find_accelerator

WIDTH, VOCABULARY = 64, 4000
LORA = {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
TRAINER = Workload(
    batch_size=4,
    max_length=64,
    evaluates=False,
    convention="hf-trainer",
    attention="flash",
    gradient_checkpointing=True,
)


def llama(layers: int = 6, vocabulary: int = VOCABULARY) -> Any:
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=160,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )


def test_fsdp_in_mixed_precision_keeps_trained_weights_in_float32() -> None:
    """Published: Mistral-7B takes 36.2 GB on two devices without mixed precision and 72.4 GB with it."""
    fsdp = replace(TRAINER, sharding="fsdp", devices=2, batch_size=1, max_length=8)
    narrow = estimate_memory(llama(), fsdp).training_parts
    wide = estimate_memory(llama(), replace(fsdp, mixed_precision=True)).training_parts
    for part in ("weights", "gradients", "optimizer_state"):
        assert wide[part] == pytest.approx(2 * narrow[part], rel=0.01), part


def test_deepspeed_keeps_a_float32_copy_beside_16_bits() -> None:
    plain = estimate_memory(llama(), TRAINER)
    spread = estimate_memory(llama(), replace(TRAINER, sharding="zero2"))
    trained = plain.trainable_parameters
    assert plain.training_parts["optimizer_state"] == pytest.approx(4 * trained, rel=0.01)
    assert spread.training_parts["optimizer_state"] == pytest.approx(12 * trained, rel=0.01)
    assert spread.training_parts["weights"] == plain.training_parts["weights"]


def test_nothing_is_gathered_while_the_optimiser_steps() -> None:
    """Nearly all bytes of a small batch are those of the step, which two devices halve."""
    small = replace(TRAINER, batch_size=1, max_length=8)
    model = llama(layers=12, vocabulary=32)
    one = estimate_memory(model, small).training_peak_bytes
    two = estimate_memory(model, replace(small, sharding="fsdp", devices=2)).training_peak_bytes
    assert two == pytest.approx(one / 2, rel=0.02)


def test_frozen_layers_under_fsdp_hold_two_layers_at_once() -> None:
    lora = replace(TRAINER, adapter=LORA, batch_size=32)
    one = estimate_memory(llama(vocabulary=32), lora)
    many = estimate_memory(llama(vocabulary=32), replace(lora, sharding="fsdp", devices=2))
    moments = cached_dry_run(llama(vocabulary=32), lora).observed.training
    one_layer = moments["bottom"].parts["workspace"]
    grown = many.training_parts["workspace"] - one.training_parts["workspace"]
    assert grown == pytest.approx(one_layer, rel=0.5)


def test_fused_kernels_hold_less_and_liger_holds_no_logits() -> None:
    torch_, fused, liger = (
        estimate_memory(llama(), replace(TRAINER, adapter=LORA, kernels=kernels)).training_peak_bytes
        for kernels in ("torch", "fused", "liger")
    )
    assert liger < fused < torch_
    one_copy = 4 * TRAINER.batch_size * TRAINER.max_length * VOCABULARY
    assert torch_ - fused == pytest.approx(one_copy, rel=0.1)
    assert torch_ - liger > 2 * one_copy


def test_liger_does_the_same_work_in_chunks() -> None:
    whole, chunked = (
        cached_dry_run(llama(), replace(TRAINER, kernels=kernels)).observed.work
        for kernels in ("torch", "liger")
    )
    for phase in ("forward", "backward"):
        assert chunked[phase].flops == pytest.approx(whole[phase].flops, rel=0.15), phase


def test_upcast_weights_are_those_outside_of_the_quantised_layers() -> None:
    base = replace(TRAINER, adapter=LORA, precision="4-bit", mixed_precision=True)
    plain, upcast = (
        estimate_memory(llama(), replace(base, upcast_frozen=upcast)).training_parts["weights"]
        for upcast in (False, True)
    )
    assert upcast - plain == pytest.approx(2 * 2 * VOCABULARY * WIDTH, rel=0.02)


def test_single_quantisation_holds_larger_scales() -> None:
    base = replace(TRAINER, adapter=LORA, precision="4-bit")
    double, single = (
        estimate_memory(llama(), replace(base, double_quantised=twice)).training_parts["weights"]
        for twice in (True, False)
    )
    linear = 6 * (2 * WIDTH * WIDTH + 2 * WIDTH * WIDTH // 2 + 3 * WIDTH * 160)
    assert single - double == pytest.approx(linear * (SINGLY_QUANTISED_BYTES - FOUR_BIT_BYTES), rel=0.01)


def test_a_mixture_of_experts_is_priced_from_its_configuration() -> None:
    config = GraniteMoeConfig(
        vocab_size=500,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=8,
        num_experts_per_tok=2,
    )
    machine = as_machine(find_accelerator("A100"))
    assert estimate_memory(config, TRAINER).total_bytes > 0
    estimate = dry_run_seconds(config, TRAINER, machine)
    experts = 4 * 2 * 3 * WIDTH * 32  # those that a token passes
    assert estimate.step_flops > 8 * experts * TRAINER.batch_size * TRAINER.max_length


def mixtral(experts: int = 8) -> Any:
    return MixtralConfig(
        vocab_size=500,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=experts,
        num_experts_per_tok=2,
    )


def test_more_experts_of_which_a_token_passes_as_many_add_the_work_of_the_router_alone() -> None:
    few, many = (cached_dry_run(mixtral(experts), TRAINER) for experts in (8, 16))
    tokens = TRAINER.batch_size * TRAINER.max_length
    work = [run.observed.work["forward"].flops for run in (few, many)]
    assert work[0] > 2 * tokens * 4 * 2 * 3 * WIDTH * 32
    assert work[1] - work[0] == 2 * tokens * 4 * 8 * WIDTH
    assert many.trainable_parameters - few.trainable_parameters == 4 * 8 * (3 * WIDTH * 32 + WIDTH)


def test_adapters_of_experts_are_priced_too() -> None:
    attention, everything = (
        cached_dry_run(mixtral(), replace(TRAINER, adapter=LORA | {"target_modules": targets}))
        for targets in (LORA["target_modules"], "all-linear")
    )
    experts = 4 * 8 * 8 * ((WIDTH + 64) + (32 + WIDTH))
    assert everything.trainable_parameters - attention.trainable_parameters >= experts


def test_the_interval_surrounds_the_peak() -> None:
    estimate = estimate_memory(llama(), TRAINER)
    assert estimate.low_bytes == round(MIN_SHARE * estimate.total_bytes) < estimate.total_bytes
    assert estimate.high_bytes == round(MAX_SHARE * estimate.total_bytes) > estimate.total_bytes
