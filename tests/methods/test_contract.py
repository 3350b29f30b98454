"""The contract of every method: a newly registered one is tested here without further ado."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import workshop
from tunecast import models
from tunecast.methods import get_method, pipeline_space
from tunecast.records import Pipeline
from tunecast.training.base_fingerprint import fingerprint
from tunecast.training.compute import Compute
from tunecast.training.evaluate import Evaluator
from tunecast.training.live_trial import LiveTrial
from tunecast.training.losses.completion import CompletionLoss
from tunecast.training.plan import plan_trial

FAMILIES = ("llama", "gpt2", "t5")
DTYPES = ("float32", "bfloat16")
TRAINED_OR_SAVED = (("llama", "float32"), ("llama", "bfloat16"), ("gpt2", "float32"), ("t5", "float32"))
"""Where more is done than to attach a method: what rounding changes there, one family shows."""

OWN_WEIGHTS = ("bias", "top_layers", "mezo", "gmt", "semantic_freezing")
"""Methods that train some or all of the model's own weights, on copies, as full finetuning does."""
STARTS_OFF = {
    ("pissa", "float32"): 1e-5,  # the base gives up what the adapter takes over
    ("pissa", "bfloat16"): 1e-2,
    ("dora", "bfloat16"): 1e-3,  # norms of columns are divided out and multiplied back
    ("full", "bfloat16"): 5e-3,  # layers that autocast leaves alone compute in float32
    ("ln_tuning", "bfloat16"): 1e-2,  # normalisation layers compute in their weights' type
    **{
        (name, dtype): most  # virtual tokens are seen from the start, and change a little by design
        for name, most in (
            ("prompt_tuning", 0.05),
            ("p_tuning", 0.05),
            ("prefix_tuning", 0.2),
            ("mezo_prefix", 0.2),
        )
        for dtype in DTYPES
    },
    **{(name, "bfloat16"): 5e-3 for name in OWN_WEIGHTS},  # as above
}
"""How far attaching may move losses, relatively; not at all where a variant is not listed."""
VIRTUAL_TOKENS = ("prompt_tuning", "prefix_tuning", "p_tuning", "mezo_prefix")
"""Variants that must move them: else their tokens would not be seen."""
ROUNDED_ON_SAVING = {
    "full",  # the weights themselves
    "pissa",  # the weights that attaching changed
    "p_tuning",  # the virtual tokens, which the network made in bfloat16
    "ln_tuning",  # the trained layers, which peft loads in the base's type
    *OWN_WEIGHTS,  # as with full
}
"""Variants whose saved form computes not quite as the trained one did in bfloat16."""
LEAVES_TRACES = {"pissa", "mezo"}
"""Variants after which the base is not what it was, so that a worker loads it again."""

variants = pytest.mark.parametrize("variant", workshop.VARIANTS)
dtypes = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(f"tiny_{request.param}")
    return folder


trained_or_saved = pytest.mark.parametrize(("family", "dtype"), TRAINED_OR_SAVED, indirect=["family"])


@cache
def bench_of(folder: Path) -> Any:
    return workshop.training_task(folder, rows=8)


@cache
def loaded(folder: Path, dtype: str) -> Any:
    return models.load_model(models.resolve(str(folder)), dtype=getattr(torch, dtype), device="cpu")


def base_model(folder: Path, dtype: str) -> Any:
    """A base model of one's own, copied since that is quicker than to load it."""
    return deepcopy(loaded(folder, dtype))


@cache
def space_of(folder: Path) -> Any:
    return pipeline_space(bench_of(folder).facts)


def nats(model: Any, folder: Path, dtype: str) -> torch.Tensor:
    """Losses of a few examples, as a worker measures them."""
    training_task = bench_of(folder)
    compute = Compute("cpu", dtype, training_task.facts.architecture, 0)
    return torch.from_numpy(Evaluator(compute, CompletionLoss()).measure(model, training_task.subset))


def trained(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}


def copies(tensors: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors}


@pytest.fixture
def usable(family: Path, variant: str) -> None:
    """Skips what the method itself says that it cannot serve."""
    reason = get_method(workshop.pipeline(variant).method).applies(bench_of(family).facts)
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def smallest_rate(family: Path, variant: str) -> Pipeline:
    """The variant's pipeline at the smallest learning rate that is searched on the model."""
    own = get_method(workshop.pipeline(variant).method).hyperparameters(bench_of(family).facts)
    lowest = next(parameter.lower for parameter in own if parameter.name == "learning_rate")
    return workshop.pipeline(variant, learning_rate=lowest)


@variants
def test_applies_or_says_why_not(variant: str, family: Path) -> None:
    facts = bench_of(family).facts
    name = workshop.pipeline(variant).method
    reason = get_method(name).applies(facts)
    assert reason is None or reason.strip()
    if reason is None:
        assert f"{name}:learning_rate" in space_of(family)


@pytest.mark.usefixtures("usable")
@variants
@dtypes
def test_trains_float32_from_where_the_base_stands(variant: str, dtype: str, family: Path) -> None:
    base = base_model(family, dtype)
    before = nats(base, family, dtype)
    clean, base_dtype = fingerprint(base), base.dtype
    pipeline = workshop.pipeline(variant)
    method = get_method(pipeline.method)
    generator = torch.random.get_rng_state()

    model = method.attach(base, pipeline, seed=1)

    in_base_type = pipeline.method == "mezo" and dtype == "bfloat16"
    matrices = {torch.bfloat16 if in_base_type else torch.float32}
    assert {tensor.dtype for tensor in trained(model).values() if tensor.ndim > 1} <= matrices
    assert {tensor.dtype for tensor in trained(model).values() if tensor.ndim < 2} <= {torch.float32}
    assert torch.equal(torch.random.get_rng_state(), generator)
    assert sum(map(torch.numel, trained(model).values())) == method.trainable_parameters(
        bench_of(family).facts, pipeline
    )
    tolerance = STARTS_OFF.get((variant, dtype), 0.0)
    after = nats(model, family, dtype)
    torch.testing.assert_close(after, before, rtol=tolerance, atol=0)
    if variant in VIRTUAL_TOKENS:
        assert not (after == before).any()
    restored = method.detach(model)
    assert restored is None or restored.dtype == base_dtype
    assert (restored is not None and fingerprint(restored) == clean) is (variant not in LEAVES_TRACES)


@pytest.mark.usefixtures("usable")
@variants
@trained_or_saved
def test_smallest_learning_rate_moves_what_is_trained_and_nothing_else(
    variant: str, dtype: str, family: Path, smallest_rate: Pipeline
) -> None:
    training_task = bench_of(family)
    compute = Compute("cpu", dtype, training_task.facts.architecture, 0)
    model = get_method(smallest_rate.method).attach(base_model(family, dtype), smallest_rate, seed=1)
    plan = plan_trial(
        [e.tokens for e in training_task.train], smallest_rate, seed=0, full_length_tokens=10**4
    )
    live = LiveTrial(model, smallest_rate, plan, training_task.train, compute, CompletionLoss(), seed=0)
    frozen = copies((n, p) for n, p in model.named_parameters() if not p.requires_grad)
    frozen |= copies(model.named_buffers())
    before = copies(trained(model).items())
    moving = _with_gradient(live)

    live.advance(plan.warmup_steps + 1)

    after = dict(model.state_dict(keep_vars=True))
    assert moving
    assert [name for name in moving if torch.equal(before[name], trained(model)[name])] == []
    assert [name for name, tensor in frozen.items() if not torch.equal(tensor, after.get(name, tensor))] == []


def _with_gradient(live: LiveTrial) -> list[str]:
    """Names of the trained tensors that the first batch gives a gradient."""
    live.model.train()
    live._accumulate(live._batch())
    names = [
        name for name, tensor in trained(live.model).items() if tensor.grad is not None and tensor.grad.any()
    ]
    live._optimizer.zero_grad()
    return names


LOAD = """
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSeq2SeqLM

def logits(folder, delivers, dtype, encoder_decoder):
    AutoTokenizer.from_pretrained(folder)
    classes = {
        ("model", False): AutoModelForCausalLM,
        ("model", True): AutoModelForSeq2SeqLM,
        ("adapter", False): AutoPeftModelForCausalLM,
        ("adapter", True): AutoPeftModelForSeq2SeqLM,
    }
    model = classes[delivers, encoder_decoder].from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    if delivers == "model":
        stored = AutoConfig.from_pretrained(folder).dtype
        assert str(stored) == f"torch.{dtype}", stored
    ids = torch.arange(5, 25)[None]
    extra = {"decoder_input_ids": ids} if encoder_decoder else {}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        return model(input_ids=ids, **extra).logits.float().flatten().tolist()

assert "tunecast" not in __import__("sys").modules
print(json.dumps([logits(*one) for one in arguments[0]]))
"""


@pytest.fixture(scope="module")
def delivered(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[str, str, str], tuple[torch.Tensor, torch.Tensor]]]:
    """Logits of every trained model, here and as one fresh process loads what was saved."""
    here, requests = {}, []
    for family, dtype in TRAINED_OR_SAVED:
        folder = request.getfixturevalue(f"tiny_{family}")
        tokenizer = models.load_tokenizer(str(folder))
        for variant in workshop.VARIANTS:
            if get_method(workshop.pipeline(variant).method).applies(bench_of(folder).facts) is not None:
                continue
            out = tmp_path_factory.mktemp("saved")
            model, pipeline = _shaken(folder, variant, dtype)
            method = get_method(pipeline.method)
            method.save(model, out, str(folder))
            tokenizer.save_pretrained(out)
            here[family, dtype, variant] = _logits(model, folder, dtype)
            requests.append((str(out), method.delivers, dtype, family == "t5"))
    there = workshop.fresh_process(LOAD, requests)
    return {
        key: (logits, torch.tensor(loaded).view_as(logits))
        for (key, logits), loaded in zip(here.items(), there, strict=True)
    }


def _shaken(folder: Path, variant: str, dtype: str) -> tuple[Any, Pipeline]:
    """A model as training would leave it: every trained tensor is off its start."""
    pipeline = workshop.pipeline(variant)
    model = get_method(pipeline.method).attach(base_model(folder, dtype), pipeline, seed=1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in trained(model).values():
            tensor.add_(0.05 * torch.randn(tensor.shape, generator=generator))
    return model.eval(), pipeline


def _logits(model: Any, folder: Path, dtype: str) -> torch.Tensor:
    ids = torch.arange(5, 25)[None]
    extra = {"decoder_input_ids": ids} if bench_of(folder).facts.architecture == "encoder-decoder" else {}
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        logits: torch.Tensor = model(input_ids=ids, **extra).logits.float()
    return logits


@pytest.mark.slow
@variants
@pytest.mark.parametrize(("name", "dtype"), TRAINED_OR_SAVED)
def test_saved_result_loads_without_tunecast(variant: str, dtype: str, name: str, delivered: Any) -> None:
    if (name, dtype, variant) not in delivered:
        pytest.skip("the method does not apply")
    here, there = delivered[name, dtype, variant]
    rounded = dtype == "bfloat16" and variant in ROUNDED_ON_SAVING
    tolerance = 0.02 if rounded else 1e-5
    torch.testing.assert_close(there, here, rtol=0, atol=tolerance * max(1.0, float(here.abs().max())))


def test_saved_adapter_points_where_it_was_told(tiny_llama: Path, tmp_path: Path) -> None:
    model, pipeline = _shaken(tiny_llama, "pissa", "float32")
    get_method("lora").save(model, tmp_path, "../base")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "../base"
    assert config["r"] == 2 * pipeline["lora_r"]
