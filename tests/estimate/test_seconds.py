"""Seconds: arithmetic of the roofline, order of methods, and real steps on this machine."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tunecast.estimate import Workload
from tunecast.estimate.constants import KERNEL_SECONDS
from tunecast.estimate.ledger import Work
from tunecast.estimate.seconds import dry_run_seconds, step_efficiency, work_seconds
from tunecast.hardware.accelerators import as_machine, find_accelerator
from tunecast.hardware.machine import measure_machine, seconds_of
from tunecast.records import Machine

LORA = {"peft_type": "LORA", "r": 8, "target_modules": "all-linear"}
MACHINE = Machine("cuda", 1, 1, 10**9, 10**9, {"float32": 1e12, "bfloat16": 1e13}, 1e11)


def config(layers: int = 4, width: int = 256) -> Any:
    return LlamaConfig(
        vocab_size=1000,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )


def test_each_kernel_is_bound_by_its_slowest_resource() -> None:
    arithmetic = Work(Counter({(10**12, 8, "float32"): 2}))
    assert work_seconds(arithmetic, MACHINE) == pytest.approx(2.0)
    low = Work(Counter({(10**12, 8, "bfloat16"): 1}))
    assert work_seconds(low, MACHINE) == pytest.approx(0.1)
    traffic = Work(Counter({(8, 10**11, "float32"): 1}))
    assert work_seconds(traffic, MACHINE) == pytest.approx(1.0)
    starts = Work(Counter({(1, 1, "int64"): 100}))
    assert work_seconds(starts, MACHINE) == pytest.approx(100 * KERNEL_SECONDS)


def test_flops_are_six_and_four_per_parameter_and_token() -> None:
    """Full finetuning 6N, an adapter 4N per token; attention and the adapter itself come on top."""
    model, tokens = config(width=512), 4 * 64
    parameters = sum(p.numel() for p in LlamaForCausalLM(model).parameters()) - 1000 * 512
    asked = Workload(
        precision="float32", batch_size=4, max_length=64, convention="hf-trainer", attention="flash"
    )
    full = dry_run_seconds(model, asked, MACHINE).step_flops
    adapted = dry_run_seconds(model, replace(asked, adapter=LORA), MACHINE).step_flops
    assert full == pytest.approx(6 * parameters * tokens, rel=0.05)
    assert adapted == pytest.approx(4 * parameters * tokens, rel=0.10)


def test_more_work_takes_longer() -> None:
    machine = as_machine(find_accelerator("L4"))
    asked = Workload(adapter=LORA, batch_size=4, max_length=512, max_new_tokens=16)
    plain = dry_run_seconds(config(width=1024), asked, machine)
    assert plain.generated_token is not None
    assert plain.optimizer_step < plain.step
    for change in ({"batch_size": 64}, {"max_length": 8192}, {"gradient_checkpointing": True}):
        assert dry_run_seconds(config(width=1024), replace(asked, **change), machine).step > plain.step
    faster = as_machine(find_accelerator("H200"))
    assert dry_run_seconds(config(width=1024), asked, faster).step < plain.step
    assert dry_run_seconds(config(width=1024), asked, machine, efficiency=0.4).step > plain.step


def test_prediction_of_a_real_step_is_of_the_right_size() -> None:
    """Within a factor of three of what its threads compute on a busy machine; idle it is within a third."""
    machine = measure_machine("cpu", torch.get_num_threads(), ("float32",))
    efficiency = step_efficiency(machine)
    assert 0.05 < efficiency < 1.5
    assert step_efficiency(machine) == efficiency
    asked = Workload(
        precision="float32",
        optimizer="none",
        batch_size=4,
        max_length=64,
        convention="hf-trainer",
        device="cpu",
    )
    predicted = dry_run_seconds(config(), asked, machine, efficiency=efficiency).step
    model = LlamaForCausalLM(config())
    tokens = torch.zeros(4, 64, dtype=torch.long)

    def step() -> None:
        model(input_ids=tokens, labels=tokens).loss.backward()

    fastest = seconds_of(step, "cpu", least_repeats=5, least_seconds=0.0)
    assert fastest / 3 < predicted < 3 * fastest
