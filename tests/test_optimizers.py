"""The table of optimiser facts against the real optimisers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import workshop
from tunecast.exporters.job import OPTIMIZER_NAMES
from tunecast.methods import get_method
from tunecast.methods.space import DRAWN_OPTIMIZERS
from tunecast.optimizers import OPTIMIZERS, Trained, moved_bytes, state_bytes, step_bytes
from tunecast.training.optimizers import build_optimizer, flatten_state


def trained(model: torch.nn.Module) -> list[Trained]:
    tables = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    return [
        Trained(tuple(p.shape), p.element_size(), id(p) in tables)
        for p in model.parameters()
        if p.requires_grad
    ]


STATEFUL = [
    (name, way) for name in ("adamw", "adafactor", "sgd", "lion", "muon") for way in ("full", "lora", "ia3")
]


@pytest.mark.parametrize(("name", "method"), [*STATEFUL, ("mezo", "mezo")])
def test_optimisers_keep_what_the_table_says(tiny_llama: Path, name: str, method: str) -> None:
    """Muon keeps one tensor for a matrix, as SGD does, and two for what it leaves to AdamW."""
    pipeline = workshop.pipeline(method, optim=name)
    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    model = get_method(pipeline.method).attach(base, pipeline, 0)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    optimizer = build_optimizer(model, pipeline)
    if name == "mezo":
        optimizer.estimate(lambda: 1.0, seed=0)  # type: ignore[union-attr]
    optimizer.step()
    tensors, _ = flatten_state(optimizer)
    kept = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values() if tensor.ndim > 0)
    assert state_bytes(name, trained(model)) == kept


def test_eight_bits_keep_a_scale_per_block() -> None:
    shapes = [Trained((64, 128)), Trained((64,))]
    assert state_bytes("adamw_8bit", shapes) == 2 * (64 * 128 + 4 * 32) + 8 * 64


def test_temporaries_and_traffic_of_a_step() -> None:
    shapes = [Trained((64, 128)), Trained((64,))]
    count = 64 * 128 + 64
    assert step_bytes("adamw", shapes, "foreach") == 4 * count
    assert step_bytes("adamw", shapes, "loop") == 4 * 64 * 128
    assert step_bytes("adamw", shapes, "fused") == 0
    assert step_bytes("adafactor", shapes, "fused") == step_bytes("lion", shapes, "fused") == 4 * 64 * 128
    assert step_bytes("muon", shapes, "fused") == (4 + 4) * 64 * 128 + 4 * 64 * 64
    assert moved_bytes("none", shapes, "fused") == 0
    assert moved_bytes("adamw", shapes, "fused") < moved_bytes("adamw", shapes, "foreach")


def test_every_optimiser_of_a_pipeline_can_be_built_and_priced(tiny_llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    for name in DRAWN_OPTIMIZERS:
        if name != "adamw_8bit":  # it needs CUDA
            build_optimizer(model, workshop.pipeline("full", optim=name))
    assert set(OPTIMIZER_NAMES) == set(DRAWN_OPTIMIZERS) - {"muon"}
    assert set(DRAWN_OPTIMIZERS) < set(OPTIMIZERS)
