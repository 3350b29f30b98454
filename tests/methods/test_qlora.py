"""QLoRA: what it needs, and, where bitsandbytes is installed, that the base comes back bit by bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import workshop
from sample_runs import sample_model
from tunecast import models
from tunecast.methods import get_method, qlora
from tunecast.training.base_fingerprint import fingerprint
from tunecast.training.compute import Compute
from tunecast.training.live_trial import LiveTrial
from tunecast.training.losses.completion import CompletionLoss

QLORA = get_method("qlora")


def test_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qlora, "has_accelerator", lambda: False)
    assert "no CUDA device" in (QLORA.applies(sample_model()) or "")
    monkeypatch.setattr(qlora, "has_accelerator", lambda: True)
    monkeypatch.setattr(qlora, "find_spec", lambda name: None)
    assert "bitsandbytes" in (QLORA.applies(sample_model()) or "")
    monkeypatch.setattr(qlora, "find_spec", lambda name: "found")
    assert QLORA.applies(sample_model()) is None
    assert "Conv1D" in (QLORA.applies(sample_model(family="gpt2")) or "")


def test_searches_what_lora_does_but_for_what_reads_weights() -> None:
    own = {parameter.name for parameter in QLORA.hyperparameters(sample_model())}
    loras = {parameter.name for parameter in get_method("lora").hyperparameters(sample_model())}
    assert loras - own == {"use_dora", "init_lora_weights"}
    assert own <= loras


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_trains_over_four_bits_and_gives_the_base_back(dtype: str, tiny_llama: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    task, pipeline = workshop.training_task(tiny_llama, rows=24), workshop.pipeline("lora")
    base = models.load_model(task.model, dtype=getattr(torch, dtype), device="cpu")
    clean = fingerprint(base)
    model = QLORA.attach(base, pipeline, seed=1)
    frozen = [module.base_layer.weight for module in model.modules() if hasattr(module, "lora_A")]
    assert {weight.dtype for weight in frozen} == {torch.uint8}
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == QLORA.trainable_parameters(
        task.facts, pipeline
    )
    live = LiveTrial(
        model,
        pipeline,
        task.plan(workshop.spec(task, pipeline)),
        task.train,
        Compute("cpu", dtype, "decoder-only", 3),
        CompletionLoss(),
        seed=0,
    )
    assert live.advance(1).train_loss > live.advance(6).train_loss
    QLORA.save(model, tmp_path, "base")
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "LORA"
    restored = QLORA.detach(model)
    assert fingerprint(restored) == clean
