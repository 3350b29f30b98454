"""Virtual tokens: where they stand, what they change, and that labels still belong to their positions."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import workshop
from sample_runs import sample_model
from tunecast import data, models
from tunecast.methods import get_method
from tunecast.training.compute import Compute
from tunecast.training.generate import generate
from tunecast.training.live_trial import _neftune
from tunecast.training.losses.completion import CompletionLoss, example_nats

METHODS = ("prompt_tuning", "prefix_tuning", "p_tuning")
FAMILIES = ("llama", "gpt2", "t5")
NUMBER = 5

methods = pytest.mark.parametrize("method", METHODS)
families = pytest.mark.parametrize("family", FAMILIES)


def shaken(folder: Path, method: str) -> Any:
    """A model that has something to say, with virtual tokens that are large enough to matter."""
    base = models.load_model(models.resolve(str(folder)), dtype=torch.float32, device="cpu")
    model = get_method(method).attach(base, workshop.pipeline(method), seed=1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.3 * torch.randn(tensor.shape, generator=generator))
    return model.eval()


@pytest.fixture
def task(family: str, request: pytest.FixtureRequest) -> Any:
    return workshop.training_task(request.getfixturevalue(f"tiny_{family}"), rows=6)


def folder_of(task: Any) -> Path:
    return Path(task.model.location)


def ragged(task: Any) -> list[Any]:
    """Training examples of different lengths; the first tokens of their prompts are cut off."""
    encoder_decoder = task.facts.architecture == "encoder-decoder"
    return [
        replace(e, input_ids=e.input_ids[2 * i :], labels=e.labels if encoder_decoder else e.labels[2 * i :])
        for i, e in enumerate(task.train)
    ]


def compute_of(task: Any) -> Compute:
    return Compute("cpu", "float32", task.facts.architecture, 3)


def with_prompt(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Embeddings of the virtual tokens and of one text, written out."""
    prompt = model.get_prompt(1)[:, :NUMBER]
    return torch.cat([prompt, model.get_input_embeddings()(ids)], dim=1)


def by_hand(model: Any, example: Any, method: str, encoder_decoder: bool) -> torch.Tensor:
    """Nats of one example alone: no padding, no mask, all logits, the base model called directly."""
    base, ids = model.get_base_model(), torch.tensor([example.input_ids])
    labels = torch.tensor([example.labels])
    prefix = method == "prefix_tuning"
    given: dict[str, Any] = {"past_key_values": model.get_prompt(1)} if prefix else {}
    given |= {"input_ids": ids} if prefix else {"inputs_embeds": with_prompt(model, ids)}
    if encoder_decoder:
        start = torch.tensor([[base.config.decoder_start_token_id, *example.labels[:-1]]])
        logits = base(**given, decoder_input_ids=start).logits
    else:
        if prefix:
            given["position_ids"] = NUMBER + torch.arange(ids.shape[1])[None]
        logits = base(**given).logits[:, -ids.shape[1] : -1]
        labels = labels[:, 1:]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")


@methods
@families
def test_loss_is_the_one_computed_by_hand(method: str, family: str, task: Any) -> None:
    model, examples = shaken(folder_of(task), method), ragged(task)
    together = example_nats(model, CompletionLoss().collate(examples, compute_of(task)))
    alone = torch.stack([by_hand(model, e, method, family == "t5") for e in examples])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-4)
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad).mul_(-1.0)
    apart = example_nats(model, CompletionLoss().collate(examples, compute_of(task)))
    assert not torch.allclose(apart, together, rtol=1e-4)


@methods
@families
def test_gradient_is_the_one_computed_by_hand(method: str, family: str, task: Any) -> None:
    model = shaken(folder_of(task), method)
    trained = [p for p in model.parameters() if p.requires_grad]
    examples = ragged(task)
    together = example_nats(model, CompletionLoss().collate(examples, compute_of(task))).sum()
    alone = torch.stack([by_hand(model, e, method, family == "t5") for e in examples]).sum()
    for one, other in zip(
        torch.autograd.grad(together, trained), torch.autograd.grad(alone, trained), strict=True
    ):
        assert one.abs().sum() > 0
        # Rounding is relative to the largest terms of the sums that small elements are made of, too.
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


@methods
@families
def test_generates_what_each_prompt_gets_alone(method: str, family: str, task: Any) -> None:
    model = shaken(folder_of(task), method)
    tokenizer = models.load_tokenizer(task.model)
    prompts = [
        data.encode_prompt(e, tokenizer, max_length=64, architecture=task.facts.architecture)[3 * i :]
        for i, e in enumerate(task.test_examples[:4])
    ]
    together = generate(model, tokenizer, prompts, compute_of(task), max_new_tokens=6)
    alone = [greedy(model, tokenizer, prompt, method, family == "t5") for prompt in prompts]
    assert together == alone
    assert all(together)
    plain = generate(model.get_base_model(), tokenizer, prompts, compute_of(task), max_new_tokens=6)
    assert plain != together


def greedy(model: Any, tokenizer: Any, prompt: Any, method: str, encoder_decoder: bool) -> str:
    """Greedy decoding of one prompt, every step computed again from the start."""
    written: list[int] = []
    base = model.get_base_model()
    start = [base.config.decoder_start_token_id] if encoder_decoder else list(prompt)
    for _ in range(6):
        side = torch.tensor([[*start, *written]])
        source = torch.tensor([list(prompt)]) if encoder_decoder else side
        prefix = method == "prefix_tuning"
        given: dict[str, Any] = {"past_key_values": model.get_prompt(1)} if prefix else {}
        given |= {"input_ids": source} if prefix else {"inputs_embeds": with_prompt(model, source)}
        if encoder_decoder:
            given["decoder_input_ids"] = side
        elif prefix:
            given["position_ids"] = NUMBER + torch.arange(side.shape[1])[None]
        with torch.inference_mode():
            token = int(base(**given).logits[0, -1].argmax())
        if token == tokenizer.eos_token_id:
            break
        written.append(token)
    return str(tokenizer.decode(written, skip_special_tokens=True)).strip()


@methods
@pytest.mark.parametrize("family", ["llama"])
def test_noise_falls_on_the_text_only(method: str, family: str, task: Any) -> None:
    model = shaken(folder_of(task), method)
    seen: list[torch.Tensor] = []
    handle = model.get_base_model().register_forward_pre_hook(
        lambda _m, _a, named: seen.append(named.get("inputs_embeds")), with_kwargs=True
    )
    batch = CompletionLoss().collate(task.train[:2], compute_of(task))
    quiet = example_nats(model, batch)
    with _neftune(model, 5.0):
        noisy = example_nats(model, batch)
    handle.remove()
    assert not torch.equal(quiet, noisy)
    if method != "prefix_tuning":
        assert torch.equal(seen[0][:, :NUMBER], seen[1][:, :NUMBER])
        assert not torch.equal(seen[0][:, NUMBER:], seen[1][:, NUMBER:])


@pytest.mark.parametrize("family", FAMILIES)
def test_counts(family: str, task: Any) -> None:
    def count(method: str) -> int:
        return get_method(method).trainable_parameters(task.facts, workshop.pipeline(method))

    facts = task.facts
    head = facts.width // facts.heads
    assert count("prompt_tuning") == NUMBER * facts.width
    assert count("prefix_tuning") == 2 * NUMBER * facts.layers * facts.key_value_heads * head
    network = 32 * 16 + 16 + 16 * 16 + 16 + 16 * 32 + 32
    assert count("p_tuning") == NUMBER * facts.width + network


@pytest.mark.parametrize("family", ["llama"])
def test_starts(family: str, task: Any) -> None:
    base = models.load_model(task.model, dtype=torch.float32, device="cpu")
    words = base.get_input_embeddings().weight.detach().clone()
    for method, setting, value in (
        ("prompt_tuning", "prompt_tuning_init", "vocabulary"),
        ("prompt_tuning", "prompt_tuning_init", "random"),
        ("prefix_tuning", "prefix_init", "zero"),
        ("prefix_tuning", "prefix_init", "random"),
        ("prefix_tuning", "prefix_init", "vocabulary"),
    ):
        model = get_method(method).attach(base, workshop.pipeline(method, **{setting: value}), seed=1)
        start = model.prompt_encoder["default"].embedding.weight.detach()
        assert start.any().item() is (value != "zero")
        if method == "prompt_tuning":
            known = (start[:, None] == words[None]).all(-1).any(1)
            assert known.all().item() is (value == "vocabulary")
            assert known.any().item() is (value == "vocabulary")
        base = get_method(method).detach(model)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_prefix_of_words_is_read_like_the_words(family: str, task: Any) -> None:
    """What follows such a prefix has the logits that it has after the words themselves."""
    model, again = (
        get_method("prefix_tuning")
        .attach(
            models.load_model(task.model, dtype=torch.float32, device="cpu"),
            workshop.pipeline("prefix_tuning", prefix_init="vocabulary"),
            seed=3,
        )
        .eval()
        for _ in range(2)
    )
    prefix, same = (one.prompt_encoder["default"].embedding.weight for one in (model, again))
    assert torch.equal(prefix, same), "the seed alone decides"
    base = model.get_base_model()
    words = torch.randint(base.config.vocab_size, (1, NUMBER), generator=torch.Generator().manual_seed(3))
    text = torch.tensor([[5, 9, 12, 7]])
    read = model(input_ids=text, attention_mask=torch.ones_like(text)).logits
    whole = torch.cat([words, text], dim=1)
    with model.disable_adapter():
        expected = model(input_ids=whole, attention_mask=torch.ones_like(whole)).logits[:, NUMBER:]
    assert torch.allclose(read, expected, atol=1e-5)


def test_room_in_the_context() -> None:
    for method in METHODS:
        chosen = get_method(method)
        numbers = {p.name: p for p in chosen.hyperparameters(sample_model(context=200))}
        assert list(numbers["num_virtual_tokens"].sequence) == [10, 20]
        assert "no room" in (chosen.applies(sample_model(context=64)) or "")
    mamba = sample_model(family="mamba")
    assert "attention" in (get_method("prefix_tuning").applies(mamba) or "")


@methods
@pytest.mark.parametrize("family", ["gpt2"])
def test_more_positions_than_the_table_has(method: str, family: str, task: Any) -> None:
    model = shaken(folder_of(task), method)
    ids = torch.full((1, 124), 20)
    with pytest.raises(ValueError, match=r"129 positions .* the model has 128"):
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert math.isfinite(model(input_ids=ids[:, 1:], attention_mask=torch.ones(1, 123)).logits.sum().item())
