"""The formulas agree with the dry runs that they stand for."""

from __future__ import annotations

from typing import Any

import pytest

from tunecast.methods.memory import adapter_of
from tunecast.models.anatomy import ANATOMIES
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


OWN_NAMES = {
    "falcon": {"intermediate_size": "ffn_hidden_size"},
    "gpt2": {"intermediate_size": "n_inner", "max_position_embeddings": "n_positions"},
    "gpt_bigcode": {"intermediate_size": "n_inner", "max_position_embeddings": "n_positions"},
    "opt": {"intermediate_size": "ffn_dim"},
}
"""What families call the fields that others call as Llama does."""
GROUPED = sorted(set(ANATOMIES) - {"falcon", "gpt2", "gpt_bigcode", "gpt_neox", "opt"})
"""Families that share keys and values among as many heads as is wished."""


def config_of(family: str, shape: tuple[int, ...]) -> Any:
    """A configuration of a family, all layers alike so that a dry run needs but two of them."""
    from transformers import AutoConfig

    width, inner, layers, heads, groups, vocabulary = shape
    own = OWN_NAMES.get(family, {})
    fields: dict[str, Any] = {
        "hidden_size": width,
        own.get("intermediate_size", "intermediate_size"): inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "vocab_size": vocabulary,
        own.get("max_position_embeddings", "max_position_embeddings"): 2048,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if family in GROUPED:
        fields["num_key_value_heads"] = groups
    if family == "opt":
        fields["word_embed_proj_dim"] = width
    if family in ("gemma", "gemma2", "gemma3_text", "glm", "glm4", "helium", "hunyuan_v1_dense"):
        fields["head_dim"] = width // heads
    if family in ("ministral", "seed_oss"):
        fields["head_dim"] = width // heads
    if family == "smollm3":
        fields["no_rope_layers"] = [1] * layers
    if family == "ministral":
        fields["sliding_window"] = 1024
    if family in ("cohere2", "exaone4", "gemma2", "gemma3_text", "ministral", "olmo3", "smollm3"):
        fields["layer_types"] = ["full_attention"] * layers
    return AutoConfig.for_model(family, **fields)


def forms(facts: ModelFacts, device: str, dtype: str) -> list[tuple[Form, Any]]:
    """Finetunings as the formulas and as the dry runs see them."""
    lora = {"lora_r": 32, "lora_alpha": 64, "lora_dropout": 0.0, "target_modules": "all-linear"}
    near = lora | {"target_modules": "attention"}
    pairs, few = lora_parameters(facts, 32), lora_parameters(facts, 32, "attention")
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
        (
            Form("lora", few, rank=32, placed="attention", dtype=dtype, device=device),
            adapter_of(Pipeline("lora", near), facts),
        ),
        (Form("ia3", ia3_parameters(facts), dtype=dtype, device=device), adapter_of(Pipeline("ia3"), facts)),
    ]
    return [(form, None if adapter is None else dict(adapter)) for form, adapter in made]


@pytest.mark.parametrize("family", sorted(ANATOMIES))
def test_bytes_seconds_and_parameters(family: str) -> None:
    # For the time's sake every other family on the same device, and less of those made like an earlier one.
    place = sorted(ANATOMIES).index(family)
    like = [other for other in sorted(ANATOMIES)[:place] if ANATOMIES[other] == ANATOMIES[family]]
    if place % 2:
        agree(config_of(family, WIDTHS[0]), "cuda", "bfloat16", GPU, in_short=bool(like))
    else:
        agree(config_of(family, WIDTHS[1]), "cpu", "float32", CPU, in_short=bool(like))


@pytest.mark.parametrize("shape", WIDTHS)
@pytest.mark.parametrize("machine", [GPU, CPU])
def test_both_shapes_on_both_devices(shape: tuple[int, ...], machine: Machine) -> None:
    agree(config_of("llama", shape), machine.device, "bfloat16" if machine is GPU else "float32", machine)


def agree(config: Any, device: str, dtype: str, machine: Machine, *, in_short: bool = False) -> None:
    """Formula and dry run say about the same of every way of training; ``in_short`` of two."""
    batch, length, labels = 4, 192, 64
    facts = describe_config(config, "x")
    assert is_known(facts)
    for form, adapter in forms(facts, device, dtype):
        if in_short and not form.dropout and form.kind != "ia3":
            continue
        request = MemoryRequest(
            adapter=adapter,
            precision=dtype,  # type: ignore[arg-type]
            batch_size=batch,
            max_length=length,
            label_tokens=labels,
            device=device,  # type: ignore[arg-type]
        )
        exact = estimate_memory(config, request)
        assert form.trainable_parameters == exact.trainable_parameters, form
        held = bytes_held(facts, form, batch=batch, length=length, label_tokens=labels)
        training = sum(exact.training_parts.values()) + FRAMEWORK_BYTES[form.device]
        assert held == pytest.approx(training, rel=0.12), form
        seconds = estimate_seconds(config, request, machine, efficiency=1.0)
        step, scoring = step_seconds(
            facts, form, machine, batch=batch, length=length, label_tokens=labels, efficiency=1.0
        )
        assert step == pytest.approx(seconds.step, rel=0.25), form
        assert scoring == pytest.approx(seconds.scoring_batch, rel=0.3), form


@pytest.mark.parametrize("family", ["falcon", "phi3"])
def test_four_bits(family: str) -> None:
    config = config_of(family, WIDTHS[1])
    facts = describe_config(config, "x")
    lora = {"lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}
    adapter = dict(adapter_of(Pipeline("lora", lora), facts) or {})
    exact = estimate_memory(config, MemoryRequest(adapter, "4-bit", max_length=512, label_tokens=64))
    form = Form("lora", lora_parameters(facts, 16), rank=16, four_bit=True)
    held = bytes_held(facts, form, batch=1, length=512, label_tokens=64)
    assert held == pytest.approx(exact.total_bytes, rel=0.05)


@pytest.mark.parametrize(
    ("family", "fields"), [("gpt_neo", {}), ("mixtral", {}), ("t5", {}), ("falcon", {"alibi": True})]
)
def test_what_no_formula_holds_for_is_left_to_dry_runs(family: str, fields: dict[str, Any]) -> None:
    from transformers import AutoConfig

    assert not is_known(describe_config(AutoConfig.for_model(family, **fields), "x"))


def test_the_framework_counts_alike() -> None:
    assert dict(FRAMEWORK_BYTES) == dict(SAME_BYTES)


def test_four_bits_hold_less_and_attention_alone_too() -> None:
    facts = describe_config(config_of("qwen2", WIDTHS[1]), "x")
    whole = Form("lora", lora_parameters(facts, 16), rank=16)
    packed = Form("lora", lora_parameters(facts, 16), rank=16, four_bit=True)
    less = Form("lora", lora_parameters(facts, 16, "attention"), rank=16, placed="attention")
    sizes = [bytes_held(facts, form, batch=1, length=128, label_tokens=8) for form in (whole, packed, less)]
    assert sizes[1] < 0.6 * sizes[0]
    assert sizes[2] < sizes[0]
