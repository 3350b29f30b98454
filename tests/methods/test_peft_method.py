"""What methods on peft share: a base that comes back bare, and files that ask no hub."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

import workshop
from tunecast import models
from tunecast.methods import get_method


def test_detached_base_can_be_adapted_again_without_a_trace(tiny_gpt2: Path) -> None:
    base = models.load_model(models.resolve(str(tiny_gpt2)), dtype=torch.float32, device="cpu")
    attributes = set(vars(base))
    modules = [type(module) for module in base.modules()]
    for variant in ("lora", "ia3", "dora"):
        pipeline = workshop.pipeline(variant)
        method = get_method(pipeline.method)
        base = method.detach(method.attach(base, pipeline, seed=0))
        assert set(vars(base)) == attributes
        assert [type(module) for module in base.modules()] == modules


def test_nothing_that_peft_reads_warns_the_user(tiny_llama: Path) -> None:
    base = models.load_model(models.resolve(str(tiny_llama)), dtype=torch.float32, device="cpu")
    pipeline = workshop.pipeline("lora")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        get_method(pipeline.method).attach(base, pipeline, seed=0)
