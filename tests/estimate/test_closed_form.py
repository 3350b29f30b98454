"""The formulas agree with the dry runs that they stand for, at a shape that they were not fitted to."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import workshop
from tunecast.estimate import Workload, coefficients, estimate_bytes, estimate_memory, estimate_seconds
from tunecast.estimate.closed_form import bytes_held, optimizer_seconds, step_seconds
from tunecast.estimate.coefficients import FILE, fitted
from tunecast.estimate.constants import FRAMEWORK_BYTES
from tunecast.estimate.forms import Form, form_of, is_known, lora_parameters
from tunecast.methods import get_method
from tunecast.methods.space import recomputing
from tunecast.methods.workload import workload_of
from tunecast.models.describe import describe_config
from tunecast.models.layer_specs import LAYER_SPECS
from tunecast.records import Machine, Pipeline
from tunecast.training.optimizers import build_optimizer

Compute = tuple[Literal["cpu", "cuda"], Literal["float32", "bfloat16"]]
GPU: Compute = ("cuda", "bfloat16")
PLAIN_CPU: Compute = ("cpu", "float32")
SHORT_CPU: Compute = ("cpu", "bfloat16")
SHAPE = (1024, 4096, 10, 16, 4, 32_000, 64, 64)


@pytest.fixture(scope="module")
def fitting() -> Iterator[ModuleType]:
    """The benchmark that fits the formulas, for its configurations and ways of training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        yield importlib.import_module("closed_form")


FAMILIES = sorted(LAYER_SPECS)
FIRST_WITH_LAYERS = [
    family
    for number, family in enumerate(FAMILIES)
    if LAYER_SPECS[family] not in [LAYER_SPECS[other] for other in FAMILIES[:number]]
]
"""One family for each structure of layers."""


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_bytes_seconds_and_parameters(fitting: ModuleType, family: str) -> None:
    agree(fitting, family, GPU, ("full", "lora"))


@pytest.mark.parametrize(
    "family",
    [
        family if family in FIRST_WITH_LAYERS else pytest.param(family, marks=pytest.mark.soak)
        for family in FAMILIES
    ],
)
def test_other_ways_of_training(fitting: ModuleType, family: str) -> None:
    agree(fitting, family, GPU, ("ia3",))
    agree(fitting, family, PLAIN_CPU, ("dropout", "attention"))


@pytest.mark.parametrize("family", ["gemma2", "gpt2", "gpt_bigcode", "llama", "opt", "seed_oss"])
def test_sixteen_bits_on_a_processor(fitting: ModuleType, family: str) -> None:
    agree(fitting, family, SHORT_CPU, ("full", "lora", "dropout", "ia3"))


@pytest.mark.parametrize("compute", [GPU, PLAIN_CPU, SHORT_CPU])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("layers", [1, 5, 10])
def test_upper_layers_alone(
    fitting: ModuleType, family: str, compute: Compute, layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backward pass ends at the lowest trained layer, and only what is above it is held for it."""
    monkeypatch.setitem(fitting.WAYS, "top", Pipeline("top_layers", {"trained_layers": layers}))
    agree(fitting, family, compute, ("top",))


@pytest.mark.parametrize("compute", [GPU, PLAIN_CPU, SHORT_CPU])
@pytest.mark.parametrize("family", ["gpt2", "phi", "qwen3"])
def test_longer_sequences(fitting: ModuleType, family: str, compute: Compute) -> None:
    agree(fitting, family, compute, ("full", "lora"), length=1024)


@pytest.mark.parametrize("compute", [GPU, PLAIN_CPU, SHORT_CPU])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("length", [192, 1024])
def test_gradient_checkpointing(
    fitting: ModuleType, family: str, compute: Compute, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes keep to the input of each layer and the activations of one; a step runs the layers once more."""
    ways = ("full", "lora", "ia3")
    for way in ways:
        pipeline = recomputing(fitting.WAYS[way])
        monkeypatch.setitem(fitting.WAYS, way, pipeline)
    agree(fitting, family, compute, ways, length=length)


def agree(
    fitting: ModuleType, family: str, compute: Compute, ways: Iterable[str], *, length: int = 192
) -> None:
    """Formula and dry run say about the same of these ways of training."""
    device, dtype = compute
    machine = fitting.MACHINES[device]
    config = fitting.config_of(family, fitting.Shape(*SHAPE))
    facts = describe_config(config, family)
    assert is_known(facts)
    sizes = {"batch_size": 4, "max_length": length, "label_tokens": 64}
    for way in ways:
        workload = workload_of(fitting.WAYS[way], facts, dtype=dtype, device=device, **sizes)
        assert workload is not None
        form = form_of(facts, workload)
        assert form is not None
        exact = estimate_memory(config, workload)
        assert form.trainable_parameters == pytest.approx(
            exact.trainable_parameters, rel=0.001 * (way == "top")
        )
        training = exact.training_peak_bytes + FRAMEWORK_BYTES[device]
        assert estimate_bytes(facts, workload) == pytest.approx(training, rel=0.12), form
        slow, fast = (
            estimate_seconds(facts, workload, machine, efficiency=1.0, config=lambda: config, exact=is_exact)
            for is_exact in (True, False)
        )
        assert fast.step == pytest.approx(slow.step, rel=0.25), form
        assert fast.scoring_batch == pytest.approx(slow.scoring_batch, rel=0.3), form


@pytest.mark.parametrize("family", ["falcon", "phi3"])
def test_four_bits(fitting: ModuleType, family: str) -> None:
    config = fitting.config_of(family, fitting.SHAPES["large"])
    facts = describe_config(config, "x")
    adapter = {"peft_type": "LORA", "r": 16, "target_modules": "all-linear"}
    exact = estimate_memory(config, Workload(adapter, "4-bit", max_length=512, label_tokens=64))
    form = Form("lora", lora_parameters(facts, 16), rank=16, four_bit=True)
    held = bytes_held(facts, form, batch=1, length=512, label_tokens=64)
    assert held == pytest.approx(exact.total_bytes, rel=0.05)


SMALL = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 500,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("cohere", SMALL | {"use_qk_norm": True}),
        ("falcon", SMALL | {"alibi": True}),
        ("gpt_neo", {}),
        ("mixtral", SMALL),
        ("opt", SMALL | {"ffn_dim": 160, "word_embed_proj_dim": 32}),
        ("opt", SMALL | {"ffn_dim": 160, "word_embed_proj_dim": 64, "do_layer_norm_before": False}),
        ("phi", SMALL | {"qk_layernorm": True}),
        ("stablelm", SMALL | {"qk_layernorm": True}),
        ("stablelm", SMALL | {"use_parallel_residual": True}),
        ("t5", {}),
    ],
)
def test_what_no_formula_holds_for_is_left_to_dry_runs(family: str, fields: dict[str, Any]) -> None:
    from transformers import AutoConfig

    assert not is_known(describe_config(AutoConfig.for_model(family, **fields), "x"))


def test_four_bits_hold_less_and_attention_alone_too(fitting: ModuleType) -> None:
    facts = describe_config(fitting.config_of("qwen2", fitting.SHAPES["large"]), "x")
    whole = Form("lora", lora_parameters(facts, 16), rank=16)
    packed = Form("lora", lora_parameters(facts, 16), rank=16, four_bit=True)
    less = Form("lora", lora_parameters(facts, 16, "attention"), rank=16, placed="attention")
    sizes = [bytes_held(facts, form, batch=1, length=128, label_tokens=8) for form in (whole, packed, less)]
    assert sizes[1] < 0.6 * sizes[0]
    assert sizes[2] < sizes[0]


def test_coefficients_stand_as_the_benchmark_writes_them(fitting: ModuleType) -> None:
    file = Path(coefficients.__file__).with_name(FILE)
    assert file.read_text(encoding="utf-8") == fitting.as_json(fitted(), fitting.FITTED_TO)


def test_a_fit_is_close_to_its_own_dry_runs(fitting: ModuleType) -> None:
    cases = [case for case in fitting.cases(["starcoder2"], ["small"]) if case.device == "cuda"]
    seen = [fitting.dry_run(case) for case in cases]
    columns = zip(*fitting.errors(seen, fitting.fit(seen)), strict=True)
    for column, limit in zip(columns, (0.02, 0.1, 0.1), strict=True):
        assert max(map(abs, column)) < limit
    assert "| without, bfloat16 on cuda |" in fitting.report(seen, fitting.fit(seen))


@pytest.mark.parametrize("way", ["full", "lora"])
def test_muons_products_are_those_that_torch_counts(tiny_llama: Path, way: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    config = AutoConfig.from_pretrained(tiny_llama)
    facts = describe_config(config, "tiny")
    pipeline = workshop.pipeline(way, optim="muon")
    model = get_method(way).attach(AutoModelForCausalLM.from_pretrained(tiny_llama), pipeline, 0)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    counter = FlopCounterMode(display=False)
    with counter:
        build_optimizer(model, pipeline).step()
    slow = Machine("cpu", 1, 1, 0, 0, {"float32": 1.0, "bfloat16": 1.0}, 1.0)  # no kernel's start counts
    workload = workload_of(pipeline, facts, dtype="float32", device="cpu")
    assert workload is not None
    form = form_of(facts, workload)
    assert form is not None
    assert optimizer_seconds(facts, form, slow) == pytest.approx(counter.get_total_flops())
    without = replace(form, optimizer="adamw")
    sizes = {"batch": 2, "length": 8, "label_tokens": 4, "efficiency": 1.0}
    both = [step_seconds(facts, one, slow, **sizes).step for one in (form, without)]
    assert both[0] - both[1] == pytest.approx(counter.get_total_flops())
