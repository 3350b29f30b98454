"""Memory arithmetic against real training steps on a CPU, exact parameter counts, and its own invariants."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, LlamaConfig

from tunecast.errors import ConfigurationError, ModelError
from tunecast.estimate import Workload, cached_dry_run, estimate_memory, what_would_fit
from tunecast.estimate.depth import names_layers
from tunecast.estimate.dryrun import dry_run
from tunecast.estimate.skeleton import base_skeleton, made_trainable, peft_config_from, without_data

LORA = {"peft_type": "LORA", "r": 8, "target_modules": "all-linear"}
DORA = {**LORA, "use_dora": True, "lora_dropout": 0.1}
PREFIX = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 10}
BATCH, LENGTH = 4, 64


def small_llama(layers: int = 4) -> Any:
    return LlamaConfig(
        vocab_size=500,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
    )


def llama_3b() -> Any:
    return LlamaConfig(
        vocab_size=128_256,
        hidden_size=3072,
        intermediate_size=8192,
        num_hidden_layers=28,
        num_attention_heads=24,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
    )


def real_model(config: Any, request: Workload) -> Any:
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = auto.from_config(config, attn_implementation="sdpa")
    if request.adapter is not None:
        import peft

        model = model.to(getattr(torch, request.precision))
        model = peft.get_peft_model(
            model, peft_config_from(request.adapter, encoder_decoder=config.is_encoder_decoder)
        )
    if request.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def profiled_peak(work: Callable[[], None]) -> int:
    """Highest sum of what torch's profiler saw allocated and freed: a count independent of ours."""
    import gc

    from torch.profiler import ProfilerActivity, profile

    gc.collect()  # garbage freed meanwhile would count as less memory
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    live = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


ADAPTERS = {"full": None, "lora": LORA, "dora": DORA, "prefix": PREFIX}
CASES = [
    *((model, kind, "tunecast") for model in ("llama", "gpt2", "t5") for kind in ("full", "lora")),
    *((model, kind, "hf-trainer") for model in ("gpt2", "t5") for kind in ("full", "lora")),
    *(("llama", kind, "hf-trainer") for kind in ADAPTERS),
    *((model, "lora", "checkpointed") for model in ("llama", "gpt2", "t5")),
    ("llama", "full", "checkpointed"),
    ("llama", "dora", "tunecast"),
]


@pytest.mark.parametrize(
    ("family", "kind", "convention"), [pytest.param(*case, id="-".join(case)) for case in CASES]
)
def test_parts_match_real_steps(
    family: str, kind: str, convention: str, request: pytest.FixtureRequest
) -> None:
    """Statics exactly, everything that a step allocates within 10% (in fact within 3%)."""
    adapter = ADAPTERS[kind]
    autocast = convention == "tunecast"
    asked = Workload(
        adapter=adapter,
        precision="bfloat16" if autocast else "float32",
        batch_size=BATCH,
        max_length=LENGTH,
        convention="tunecast" if autocast else "hf-trainer",
        gradient_checkpointing=convention == "checkpointed",
        device="cpu",
    )
    config = AutoConfig.from_pretrained(request.getfixturevalue(f"tiny_{family}"))
    warnings.simplefilter("ignore")
    estimate = estimate_memory(config, asked)
    model = real_model(config, asked)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=autocast)
    tokens = torch.zeros(BATCH, LENGTH, dtype=torch.long)
    mask = torch.ones_like(tokens)
    mask[0, LENGTH - 4 :] = 0

    def loss_of_labels() -> Any:
        given = {"labels": tokens} if config.is_encoder_decoder else {}
        logits = model(input_ids=tokens, attention_mask=mask, **given).logits
        labelled = torch.ones(BATCH, LENGTH, dtype=torch.bool)
        return torch.nn.functional.cross_entropy(logits[labelled].float(), tokens[labelled])

    def step() -> None:
        if autocast:
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of_labels()
            loss.backward()
        else:
            # As transformers' Trainer does, whose compute_loss lets the output go.
            model(input_ids=tokens, attention_mask=mask, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    state = sum(v.numel() * v.element_size() for s in optimizer.state.values() for v in s.values())
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    weights += sum(b.numel() * b.element_size() for b in model.buffers())
    if adapter is None and autocast:
        weights += sum(p.numel() * 2 for p in trained)  # the worker's own bfloat16 copy
    parts = dict(estimate.training_parts)
    held = parts.pop("weights") + parts.pop("adapters", 0)
    assert held == pytest.approx(weights, rel=0.01)
    assert parts.pop("optimizer_state") == pytest.approx(state, rel=0.01)
    assert sum(parts.values()) == pytest.approx(profiled_peak(step), rel=0.10)
    assert estimate.trainable_parameters == sum(parameter.numel() for parameter in trained)


def test_gradients_are_those_of_what_is_trained() -> None:
    asked = Workload(batch_size=1, max_length=8, convention="hf-trainer", precision="float32", device="cpu")
    run = cached_dry_run(small_llama(), asked)
    assert run.observed.training["step"].parts["gradients"] == 4 * run.trainable_parameters


@pytest.mark.parametrize(
    ("adapter", "trained"),
    [
        (None, 3_212_749_824),
        ({"peft_type": "LORA", "r": 32, "target_modules": ["q_proj", "v_proj"]}, 9_175_040),
        ({"peft_type": "LORA", "r": 32, "use_dora": True, "target_modules": ["q_proj", "v_proj"]}, 9_289_728),
        ({"peft_type": "LORA", "r": 64, "init_lora_weights": "pissa", "use_rslora": True}, 18_350_080),
        ({"peft_type": "IA3"}, 286_720),
        ({"peft_type": "ADALORA", "init_r": 64, "target_r": 32, "total_step": 5000}, 18_353_664),
        ({"peft_type": "VERA", "r": 256, "target_modules": ["q_proj", "v_proj"]}, 129_024),
        ({"peft_type": "LOHA", "r": 32, "target_modules": ["q_proj", "v_proj"]}, 18_350_080),
        ({"peft_type": "OFT", "r": 32, "target_modules": ["q_proj", "v_proj"]}, 8_171_520),
        ({"peft_type": "LN_TUNING"}, 175_104),
        ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 200}, 614_400),
        ({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 200}, 11_468_800),
        ({"peft_type": "P_TUNING", "num_virtual_tokens": 20, "encoder_hidden_size": 3072}, 28_382_208),
    ],
    ids=lambda value: str(value.get("peft_type", value)) if isinstance(value, dict) else str(value),
)
def test_trained_parameters_are_exact(adapter: dict[str, Any] | None, trained: int) -> None:
    """Counts of the published finetunings of Llama-3.2-3B."""
    with without_data():
        request = Workload(adapter=adapter, convention="hf-trainer")
        model = made_trainable(base_skeleton(llama_3b(), request), request)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trained


PUBLISHED = {
    "lora": ({"peft_type": "LORA", "r": 32, "target_modules": ["q_proj", "v_proj"]}, 22.29),
    "ln_tuning": ({"peft_type": "LN_TUNING"}, 21.2),
    "unilora": (
        {"peft_type": "UNILORA", "r": 32, "theta_d_length": 256, "target_modules": ["q_proj", "v_proj"]},
        22.31,
    ),
    "boft": (
        {"peft_type": "BOFT", "boft_block_size": 4, "boft_block_num": 0, "boft_n_butterfly_factor": 1},
        24.43,
    ),
}
"""Adapters of Llama-3.2-3B with the GB that PEFT's own comparison measured on an L40S (MetaMathQA, batches of
4 sequences of at most 768 tokens, bfloat16 without autocast)."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_peaks_of_a_3b_model(name: str) -> None:
    adapter, measured = PUBLISHED[name]
    asked = Workload(adapter=adapter, batch_size=4, max_length=768, convention="hf-trainer")
    predicted = estimate_memory(llama_3b(), asked).training_peak_bytes / 1e9
    assert predicted == pytest.approx(measured, rel=0.08)


DTYPES = {
    "lora": {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "ln_tuning": {"peft_type": "LN_TUNING"},
    "ia3": {"peft_type": "IA3"},
    "boft": {"peft_type": "BOFT", "boft_block_size": 4, "target_modules": ["q_proj"]},
    "unilora": {"peft_type": "UNILORA", "r": 4, "theta_d_length": 16, "target_modules": ["q_proj"]},
}


@pytest.mark.parametrize("name", DTYPES)
def test_a_trainers_adapter_has_the_types_that_peft_gives_it(name: str) -> None:
    """Float32 for what peft adds, the base's own type for what it copies: norms, saved modules."""
    asked = Workload(adapter=DTYPES[name], convention="hf-trainer")
    with without_data():
        empty = made_trainable(base_skeleton(small_llama(2), asked), asked)
    real = real_model(small_llama(2), asked)
    wanted = {n: (p.dtype, p.shape) for n, p in real.named_parameters() if p.requires_grad}
    assert {n: (p.dtype, p.shape) for n, p in empty.named_parameters() if p.requires_grad} == wanted
    tuned = replace(asked, convention="tunecast")
    with without_data():
        ours = made_trainable(base_skeleton(small_llama(2), tuned), tuned)
    assert {p.dtype for p in ours.parameters() if p.requires_grad} == {torch.float32}


@pytest.mark.parametrize("adapter", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_equal_layers_are_extended_exactly(adapter: Mapping[str, Any] | None, checkpointing: bool) -> None:
    asked = Workload(
        adapter=adapter, batch_size=2, max_length=32, max_new_tokens=8, gradient_checkpointing=checkpointing
    )
    quick = dry_run(small_llama(9), asked).observed
    whole = dry_run(small_llama(9), asked, every_layer=True).observed
    assert quick.training == whole.training
    assert quick.evaluation == whole.evaluation
    assert quick.work == whole.work


DORA_ON_SOME = {**DORA, "target_modules": ["q_proj", "down_proj"]}


@pytest.mark.parametrize("adapter", [None, LORA, DORA_ON_SOME], ids=["full", "lora", "dora"])
@pytest.mark.parametrize("precision", ["bfloat16", "4-bit"])
def test_layers_that_are_not_built_count(adapter: Mapping[str, Any] | None, precision: Any) -> None:
    if adapter is None and precision == "4-bit":
        pytest.skip("full finetuning trains no quantised weights")
    asked = Workload(adapter=adapter, precision=precision, batch_size=2, max_length=16)
    quick = dry_run(small_llama(7), asked)
    whole = dry_run(small_llama(7), asked, every_layer=True)
    assert sorted(quick.trained) == sorted(whole.trained)
    assert replace(quick, trained=()) == replace(whole, trained=())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"target_modules": "all-linear"}, False),
        ({"target_modules": ["fc2", "dense_4h_to_h"], "layers_to_transform": None}, False),
        ({"target_modules": ["q_proj"], "layers_to_transform": [1]}, True),
        ({"target_modules": ["layers.0.q_proj"]}, True),
        ({"target_modules": r".*\.[0-3]\.q_proj"}, True),
        ({"target_modules": ["q_proj"], "rank_pattern": {"layers.1.q_proj": 8}}, True),
        ({"target_modules": ["q_proj"], "exclude_modules": ["layers.2.q_proj"]}, True),
        ({"adapter_layers": 4}, True),
    ],
)
def test_adapters_that_may_tell_layers_apart_are_known(fields: dict[str, Any], expected: bool) -> None:
    assert (
        names_layers({"peft_type": "LORA", "r": 8, "base_model_name_or_path": "m-3.2", **fields}) == expected
    )


def test_without_evaluation_only_training_counts() -> None:
    asked = Workload(adapter=LORA, batch_size=1, max_length=16, eval_batch_size=64)
    both, alone = (estimate_memory(small_llama(), replace(asked, evaluates=flag)) for flag in (True, False))
    assert alone.training_parts == both.training_parts
    assert alone.evaluation_peak_bytes == 0
    assert alone.total_bytes < both.total_bytes


def test_layers_that_differ_are_all_run() -> None:
    some = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], "layers_to_transform": [0, 5]}
    asked = Workload(adapter=some, batch_size=2, max_length=16)
    assert dry_run(small_llama(6), asked) == dry_run(small_llama(6), asked, every_layer=True)


def test_a_longer_generation_has_a_larger_cache() -> None:
    """Two tensors of (batch, kv heads, tokens, head size) in bfloat16 per layer; one layer's is copied."""
    asked = Workload(adapter=LORA, batch_size=1, max_length=16, eval_batch_size=8, prompt_length=100)
    for new_tokens in (50, 100):
        run = cached_dry_run(small_llama(), replace(asked, max_new_tokens=new_tokens))
        cache = run.observed.evaluation["token"].parts["kv_cache"]
        one_tensor = 8 * 2 * (100 + new_tokens) * 16 * 2
        assert cache == pytest.approx(9 * one_tensor, rel=0.02)


def test_savings_save() -> None:
    base = Workload(adapter=LORA, batch_size=8, max_length=128)
    plain = estimate_memory(llama_3b(), base)
    for change in (
        {"gradient_checkpointing": True},
        {"precision": "4-bit"},
        {"precision": "8-bit"},
        {"attention": "flash"},
        {"label_tokens": 16},
        {"batch_size": 4, "eval_batch_size": 4},
        {"sharding": "zero3", "devices": 4},
    ):
        assert estimate_memory(llama_3b(), replace(base, **change)).total_bytes < plain.total_bytes, change
    eager = estimate_memory(llama_3b(), replace(base, attention="eager"))
    assert eager.total_bytes > plain.total_bytes


def test_sharding_divides_what_it_names() -> None:
    base = Workload(batch_size=1, max_length=16, convention="hf-trainer", precision="float32")
    whole = estimate_memory(small_llama(), base).training_parts
    zero1 = estimate_memory(small_llama(), replace(base, sharding="zero1", devices=4)).training_parts
    assert zero1["optimizer_state"] == whole["optimizer_state"] // 4
    assert zero1["weights"] == whole["weights"]
    zero3 = estimate_memory(small_llama(), replace(base, sharding="zero3", devices=4)).training_parts
    assert zero3["weights"] == -(-whole["weights"] // 4)


def test_parts_add_up_and_fits_follows_memory() -> None:
    asked = Workload(adapter=LORA, batch_size=2, max_length=32)
    estimate = estimate_memory(small_llama(), asked)
    assert sum(estimate.parts.values()) == estimate.total_bytes
    assert estimate.fits is None
    enough = replace(asked, device_memory_bytes=estimate.total_bytes)
    assert estimate_memory(small_llama(), enough).fits
    assert not estimate_memory(small_llama(), replace(enough, device_memory_bytes=1)).fits


def test_advice_names_what_would_fit() -> None:
    asked = Workload(adapter=LORA, batch_size=8, max_length=512)
    tight = estimate_memory(llama_3b(), replace(asked, batch_size=1)).total_bytes
    advice = what_would_fit(llama_3b(), replace(asked, device_memory_bytes=round(1.1 * tight)))
    assert advice[0].startswith("micro-batches of one example")
    on_cpu = replace(asked, device="cpu", precision="float32")
    whole = estimate_memory(llama_3b(), on_cpu).parts["weights"]
    advice = what_would_fit(llama_3b(), replace(on_cpu, device_memory_bytes=round(0.9 * whole)))
    assert len(advice) == 1
    assert advice[0].startswith("a base model in bfloat16")
    devices = what_would_fit(llama_3b(), replace(asked, adapter=None, device_memory_bytes=3_000_000_000))
    assert devices == [] or "devices" in devices[-1] or "4-bit" in devices[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "int3"}, "precision 'int3' is unknown"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"max_new_tokens": -1}, "max_new_tokens must be at least 0"),
        ({"adapter": None, "precision": "4-bit"}, "cannot train 4-bit"),
        ({"adapter": {"r": 8}}, "peft_type '' is unknown"),
        ({"adapter": {"peft_type": "LORA", "target_modules": ["nowhere"]}}, "does not suit this model"),
        ({"adapter": {"peft_type": "FROD", "target_modules": ["q_proj"]}}, "cannot be built without weights"),
        ({"optimizer": "adam"}, "optimizer 'adam' is unknown"),
        (
            {"adapter": {"peft_type": "LORA", "target_modules": "(["}},
            "does not suit this model: unterminated",
        ),
        ({"adapter": {**LORA, "rank_pattern": {"([": 4}}}, "does not suit this model: unterminated"),
        ({"adapter": {**LORA, "r": 10**900}}, "r must be at most 1,000,000, not 1000"),
        (
            {"adapter": {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 10**8}},
            "must be at most 1,000,000",
        ),
        (
            {"adapter": {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 900_000}},
            "fill the model's context",
        ),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        estimate_memory(small_llama(), replace(Workload(adapter=LORA), **change))


def test_a_model_that_writes_no_text_is_refused() -> None:
    from transformers import ViTConfig

    with pytest.raises(ModelError, match="does not generate text"):
        estimate_memory(ViTConfig(), Workload())


def test_the_callers_configuration_is_untouched(tiny_llama: Path) -> None:
    config = AutoConfig.from_pretrained(tiny_llama)
    before = config.to_dict()
    estimate_memory(config, Workload(adapter=LORA, max_length=16))
    assert config.to_dict() == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
@pytest.mark.parametrize("adapter", [None, LORA, DORA], ids=["full", "lora", "dora"])
def test_peak_on_an_accelerator(adapter: Mapping[str, Any] | None) -> None:
    config = small_llama()
    asked = Workload(adapter=adapter, batch_size=16, max_length=256, convention="hf-trainer")
    held = _held_by_cublas()
    model = real_model(config, asked).to("cuda", torch.bfloat16 if adapter is None else None)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    tokens = torch.zeros(16, 256, dtype=torch.long, device="cuda")
    mask = torch.ones_like(tokens)
    mask[0, -4:] = 0
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        model(input_ids=tokens, attention_mask=mask, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    measured = torch.cuda.max_memory_allocated() - held
    assert estimate_memory(config, asked).training_peak_bytes == pytest.approx(measured, rel=0.10)


def _held_by_cublas() -> int:
    """Bytes of the workspaces of both threads, which the estimate counts separately."""
    torch.nn.Linear(64, 64, device="cuda")(torch.ones(64, 64, device="cuda")).sum().backward()
    return torch.cuda.memory_allocated()
