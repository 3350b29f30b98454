"""What methods state of themselves, against real trials of tiny models: parameters, bytes and passes."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM

import workshop
from tunecast.estimate import cached_dry_run, estimate_bytes, estimate_memory, estimate_seconds
from tunecast.estimate.forms import form_of
from tunecast.methods import get_method
from tunecast.methods.workload import workload_of
from tunecast.models.describe import describe_config
from tunecast.records import Machine, Pipeline
from tunecast.training.optimizers import build_optimizer

BATCH, LENGTH = 4, 64
SLOW = Machine("cpu", 1, 1, 10**9, 10**9, {"float32": 1.0, "bfloat16": 1.0}, 1e15)
"""Nothing but floating-point operations takes time on it, one second each."""
PIPELINES = {
    "full": workshop.pipeline("full"),
    "lora": workshop.pipeline("lora"),
    "gmt": workshop.pipeline("gmt"),
    "mezo": workshop.pipeline("mezo"),
    "top_layers": workshop.pipeline("top_layers", trained_layers=1),
    "semantic_freezing": workshop.pipeline("semantic_freezing", trained_layers=2, frozen_layers=3),
    "bias": workshop.pipeline("bias"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of four layers, which has biases; wide enough that matrices outweigh the rest."""
    config = AutoConfig.for_model(
        "gpt2",
        n_layer=4,
        n_embd=96,
        n_head=4,
        vocab_size=500,
        n_positions=128,
        bos_token_id=1,
        eos_token_id=2,
    )
    folder = tmp_path_factory.mktemp("gpt2")
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def step_of(model: Any, pipeline: Pipeline) -> Callable[[], None]:
    """A training step as a live trial takes it."""
    method, optimizer = get_method(pipeline.method), build_optimizer(model, pipeline)
    tokens = torch.zeros(BATCH, LENGTH, dtype=torch.long)

    def loss() -> Any:
        logits = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits.flatten(0, 1)
        rows = torch.ones(BATCH * LENGTH, dtype=torch.bool)
        return torch.nn.functional.cross_entropy(
            logits[rows].float(), tokens.flatten(), reduction="none"
        ).sum()

    def step() -> None:
        if pipeline.method == "mezo":
            model.eval()
            optimizer.estimate(lambda: no_gradients(loss), 0)  # type: ignore[union-attr]
        else:
            loss().backward()
        method.before_update(model, 1e-3)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def no_gradients(loss: Callable[[], Any]) -> float:
    with torch.no_grad():
        return float(loss())


def profiled_peak(work: Callable[[], None]) -> int:
    """Highest sum of what torch's profiler saw allocated and freed."""
    from torch.profiler import ProfilerActivity, profile

    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    live = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


@pytest.mark.parametrize("name", PIPELINES)
def test_a_method_holds_what_it_states(folder: Path, name: str) -> None:
    warnings.simplefilter("ignore")
    pipeline, config = PIPELINES[name], AutoConfig.from_pretrained(folder)
    facts = describe_config(config, "tiny")
    workload = workload_of(
        pipeline, facts, dtype="float32", device="cpu", batch_size=BATCH, max_length=LENGTH, evaluates=False
    )
    assert workload is not None
    estimate = estimate_memory(config, workload)
    base = AutoModelForCausalLM.from_pretrained(folder).eval().requires_grad_(False)
    model = get_method(name).attach(base, pipeline, 0).train()

    step = step_of(model, pipeline)
    step()

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert estimate.trainable_parameters == sum(p.numel() for p in trained)
    held = {
        tensor.data_ptr(): tensor.nbytes
        for one in (base, model)
        for tensor in (*one.parameters(), *one.buffers())
    }
    parts = dict(estimate.training_parts)
    assert parts.pop("weights") + parts.pop("adapters", 0) == pytest.approx(sum(held.values()), rel=0.02)
    parts.pop("optimizer_state", None)
    assert sum(parts.values()) == pytest.approx(profiled_peak(step), rel=0.10)


@pytest.mark.parametrize("name", PIPELINES)
def test_a_method_computes_what_it_states(folder: Path, name: str) -> None:
    """Two forward passes of MeZO, a backward pass that ends at the lowest trained layer."""
    pipeline, config = PIPELINES[name], AutoConfig.from_pretrained(folder)
    facts = describe_config(config, "tiny")
    how = {"batch_size": BATCH, "max_length": LENGTH, "evaluates": False, "attention": "eager"}
    workload = workload_of(pipeline, facts, dtype="float32", device="cpu", **how)
    assert workload is not None
    base = (
        AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval().requires_grad_(False)
    )
    model = get_method(name).attach(base, pipeline, 0).train()
    step = step_of(model, pipeline)
    with FlopCounterMode(display=False) as counter:
        step()
    found = estimate_seconds(facts, workload, SLOW, efficiency=1.0, exact=True)
    assert found.step_flops == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_unlike_methods_are_not_priced_alike(folder: Path) -> None:
    facts = describe_config(AutoConfig.from_pretrained(folder), "tiny")
    found = {}
    for name, pipeline in PIPELINES.items():
        workload = workload_of(pipeline, facts, dtype="float32", device="cpu", max_length=8)
        assert workload is not None
        found[name] = estimate_bytes(facts, workload)
    assert found["gmt"] > found["full"] > found["top_layers"] > found["bias"]
    assert found["full"] > found["mezo"]
    assert len(set(found.values())) == len(found) - 1  # semantic freezing trains one layer here too
    assert found["semantic_freezing"] == found["top_layers"]


def test_mezo_has_no_gradients_and_no_formula(folder: Path) -> None:
    config = AutoConfig.from_pretrained(folder)
    facts = describe_config(config, "tiny")
    workload = workload_of(PIPELINES["mezo"], facts, dtype="float32", device="cpu")
    assert workload is not None
    assert form_of(facts, workload) is None
    run = cached_dry_run(config, workload)
    assert "backward" not in run.observed.work
    assert not any("gradients" in moment.parts for moment in run.observed.training.values())
    assert "gradients" not in estimate_memory(config, workload).parts


@pytest.mark.parametrize("exact", [True, False])
def test_without_evaluation_there_are_no_seconds_of_scoring(folder: Path, exact: bool) -> None:
    config = AutoConfig.from_pretrained(folder)
    facts = describe_config(config, "tiny")
    workload = workload_of(PIPELINES["lora"], facts, dtype="float32", device="cpu", evaluates=False)
    assert workload is not None
    found = estimate_seconds(facts, workload, SLOW, exact=exact)
    assert found.step > 0
    assert (found.scoring_batch is None) == exact
