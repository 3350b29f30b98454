"""Seconds: arithmetic of the roofline, order of methods, and real steps on this machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tunecast.estimate import Workload
from tunecast.estimate.constants import KERNEL_SECONDS
from tunecast.estimate.seconds import StepWork, dry_run_seconds, step_efficiency, step_work
from tunecast.estimate.speed import IDEAL, Speed
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
    arithmetic, traffic = StepWork(((2, 1.0, 0.1),), False), StepWork(((1, 0.1, 1.0),), False)
    assert arithmetic.seconds(IDEAL) == pytest.approx(2.0)
    assert traffic.seconds(IDEAL) == pytest.approx(1.0)
    starts = StepWork(((100, 0.0, 0.0),), False)
    assert starts.seconds(IDEAL) == pytest.approx(100 * KERNEL_SECONDS)


def test_on_cuda_the_host_runs_ahead() -> None:
    """What is bound by the device does not wait for starts, and what is bound by starts does."""
    speed = Speed(arithmetic=0.5, traffic=0.5, start=1e-4)
    bound_by_device = StepWork(((100, 0.01, 0.0),), True)
    assert bound_by_device.seconds(speed) == pytest.approx(2.0, rel=1e-4)
    bound_by_host = StepWork(((1000, 1e-6, 0.0),), True)
    assert bound_by_host.seconds(speed) == pytest.approx(0.1, rel=1e-4)


def test_a_step_takes_its_passes_its_unpacking_and_its_update() -> None:
    speed = Speed(traffic=0.5, unpacking=0.1)
    work = StepWork(((1, 1.0, 0.0),), True, unpacking=0.1, passes=3, update=0.5, products=0.25)
    assert work.update_seconds(speed) == pytest.approx(1.25)
    assert work.seconds(speed) == pytest.approx(3 * 2.0 + 1.25, rel=1e-3)


def test_adapters_under_fsdp_and_slow_links_bind_short_passes() -> None:
    speed = Speed(link=1e10, wrapped=5e-3, reduced=1e-3)
    short = StepWork(((1, 0.01, 0.0),), True)
    assert replace(short, wrapped=200).seconds(speed) == pytest.approx(1.0, rel=1e-3)
    assert replace(short, reduced=200).seconds(speed) == pytest.approx(0.2, rel=1e-3)
    assert replace(short, between_devices=2e10).seconds(speed) == pytest.approx(2.0, rel=1e-3)


def test_a_type_without_a_rate_takes_that_of_its_sibling() -> None:
    old = replace(MACHINE, flops_per_second={"float32": 1e12, "float16": 1e13})
    assert old.rate("bfloat16") == 1e13
    assert old.rate("int64") == 1e12
    assert replace(old, flops_per_second={"float32": 1e12}).rate("bfloat16") == 1e12


def test_four_bits_and_several_devices_cost_seconds() -> None:
    machine = as_machine(find_accelerator("A100"))
    asked = Workload(adapter=LORA, max_length=64, evaluates=False, gradient_checkpointing=True)
    plain = step_work(config(), asked, machine)
    four_bit = step_work(config(), replace(asked, precision="4-bit"), machine)
    assert plain.unpacking == 0 < four_bit.unpacking
    spread = step_work(config(), replace(asked, sharding="fsdp", devices=4), machine)
    assert plain.between_devices == 0 < spread.between_devices
    assert spread.wrapped == 2 * 7 * 4
    fused = step_work(config(), replace(asked, sharding="fsdp", devices=4, kernels="fused"), machine)
    assert (fused.wrapped, fused.reduced) == (0, spread.wrapped)
    assert len(fused.kernels) > 0
    assert sum(times for times, _, _ in fused.kernels) < sum(times for times, _, _ in plain.kernels)


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
