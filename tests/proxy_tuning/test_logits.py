"""The sums of proxy-tuning: what they must equal, by the ways a model reads tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from tunecast.proxy_tuning.logits import ProxyLogits, Reader, combined
from tunecast.proxy_tuning.model import SteeredModel

PROMPTS = ("the apple is red and the house is blue", "Which colour has the river?", "a")
Models = tuple[Any, Any, Any]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """A larger base, and a small expert that differs from the small anti-expert; one tokenizer."""
    from transformers import AutoModelForCausalLM

    found = []
    for width, layers, seed in ((48, 3, 1), (32, 2, 2), (32, 2, 3)):
        folder = tiny.build_llama(tmp_path_factory.mktemp(f"m{seed}"), width=width, layers=layers, seed=seed)
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        # Untrained models repeat the last token; with a head of its own and larger weights each differs.
        torch.manual_seed(seed)
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
        with torch.no_grad():
            for parameter in model.model.layers.parameters():
                if parameter.ndim == 2:
                    parameter.mul_(10)
        found.append(model)
    return found[0], found[1], found[2]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny.build_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def inputs(tokenizer: Any) -> Any:
    return tokenizer(list(PROMPTS), return_tensors="pt", padding=True, padding_side="left")


def generated(base: Any, inputs: Any, steer: ProxyLogits | None, **options: Any) -> torch.Tensor:
    """New tokens of a greedy generation unless options say otherwise."""
    found: torch.Tensor = base.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        logits_processor=[steer] if steer else None,
        **{"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 3, **options},
    )
    return found[:, inputs["input_ids"].shape[1] :]


def steer(expert: Any, anti: Any, alpha: float, inputs: Any, **more: Any) -> ProxyLogits:
    return ProxyLogits(expert, anti, alpha, attention_mask=inputs["attention_mask"], **more)


def test_alpha_zero_and_equal_small_models_leave_the_base(models: Models, inputs: Any) -> None:
    base, expert, anti = models
    alone = generated(base, inputs, None)
    assert torch.equal(generated(base, inputs, steer(expert, anti, 0.0, inputs)), alone)
    assert torch.equal(generated(base, inputs, steer(expert, expert, 1.7, inputs)), alone)
    assert not torch.equal(generated(base, inputs, steer(expert, anti, 1.0, inputs)), alone)


def test_a_base_that_is_the_anti_expert_becomes_the_expert(models: Models, inputs: Any) -> None:
    _, expert, anti = models
    assert torch.equal(
        generated(anti, inputs, steer(expert, anti, 1.0, inputs)), generated(expert, inputs, None)
    )


def test_a_padded_batch_generates_as_single_prompts_do(models: Models, tokenizer: Any, inputs: Any) -> None:
    base, expert, anti = models
    batch = generated(base, inputs, steer(expert, anti, 1.0, inputs))
    for row, prompt in enumerate(PROMPTS):
        one = tokenizer(prompt, return_tensors="pt")
        assert torch.equal(generated(base, one, steer(expert, anti, 1.0, one))[0], batch[row])


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"do_sample": True, "temperature": 0.7, "top_p": 0.9}])
def test_beams_and_samples_are_of_the_combined_distribution(
    models: Models, inputs: Any, options: dict[str, Any]
) -> None:
    """Base = anti-expert makes the combined distribution the expert's, so both must choose the same."""
    _, expert, anti = models
    torch.manual_seed(5)
    steered = generated(anti, inputs, steer(expert, anti, 1.0, inputs), **options)
    torch.manual_seed(5)
    assert torch.equal(steered, generated(expert, inputs, None, **options))


def test_every_model_has_its_own_prompt(models: Models, tokenizer: Any) -> None:
    """A longer prompt of the expert shifts only the expert's positions."""
    base, expert, anti = models
    plain = tokenizer([PROMPTS[0], PROMPTS[1]], return_tensors="pt", padding=True, padding_side="left")
    asked = [f"<|im_start|>user\n{text}<|im_end|>\n" for text in PROMPTS[:2]]
    own = tokenizer(asked, return_tensors="pt", padding=True, padding_side="left")
    found = generated(base, plain, steer(expert, anti, 1.0, plain, expert_inputs=own))
    for row in range(2):
        tokens: list[int] = []
        for step in range(found.shape[1]):
            logits = []
            for model, text in zip(models, (PROMPTS[row], asked[row], PROMPTS[row]), strict=True):
                ids = torch.tensor([[*tokenizer(text).input_ids, *tokens]])
                logits.append(model(ids).logits[0, -1])
            tokens.append(int(combined(*logits, 1.0, 400).argmax()))
            assert tokens[-1] == int(found[row, step]), f"row {row}, token {step}"


def test_cached_logits_are_those_of_a_whole_pass(models: Models, inputs: Any) -> None:
    steered = SteeredModel(*models, 1.5, 400, stop=2)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    with torch.inference_mode():
        whole = steered(ids, mask).logits
        first = steered(ids[:, :-3], mask[:, :-3], use_cache=True)
        rest = steered(ids[:, -3:], mask, past_key_values=first.past_key_values)
    assert rest.logits.shape == (3, 3, 400)
    torch.testing.assert_close(rest.logits[:2], whole[:2, -3:], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        steered(ids, mask, logits_to_keep=torch.arange(-2, 0)).logits[:2],
        whole[:2, -2:],
        atol=1e-4,
        rtol=1e-4,
    )


@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PrefixTuningConfig"])
def test_a_model_with_virtual_tokens_reads_again_and_padding_changes_nothing(
    models: Models, tokenizer: Any, inputs: Any, kind: str
) -> None:
    import copy

    import peft

    _, expert, anti = models
    torch.manual_seed(0)
    config = getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=4)
    tuned = peft.get_peft_model(copy.deepcopy(expert), config).eval()
    assert not Reader(tuned).keeps_cache
    steered = generated(anti, inputs, steer(tuned, anti, 1.0, inputs), max_new_tokens=6)
    for row, prompt in enumerate(PROMPTS):
        one = tokenizer(prompt, return_tensors="pt")
        alone = tuned.generate(**one, max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=3)
        assert torch.equal(steered[row], alone[0, one["input_ids"].shape[1] :])


def test_sums_are_float32_without_padded_rows_and_shifts_change_nothing() -> None:
    torch.manual_seed(0)
    base, expert, anti = torch.randn(2, 12), torch.randn(2, 10), torch.randn(2, 11)
    found = combined(base.bfloat16(), expert.bfloat16(), anti.bfloat16(), 2.0, 9)
    assert (found.shape, found.dtype) == ((2, 9), torch.float32)
    wanted = base.bfloat16()[:, :9].double() + 2 * (
        expert.bfloat16()[:, :9].double() - anti.bfloat16()[:, :9].double()
    )
    torch.testing.assert_close(found.double(), wanted, atol=1e-6, rtol=0)
    plain = combined(base, expert, anti, 1.3, 9).softmax(-1)
    shifted = combined(base + 3, expert - 2, anti + 5, 1.3, 9).softmax(-1)
    torch.testing.assert_close(plain, shifted)


def test_rows_that_are_not_shared_are_never_chosen(models: Models, inputs: Any) -> None:
    _, expert, anti = models
    scores = torch.zeros(3, 400)
    scores[:, 350:] = 1e4
    found = steer(expert, anti, 1.0, inputs, vocabulary=350)(inputs["input_ids"], scores)
    assert found.shape == scores.shape
    assert torch.isneginf(found[:, 350:]).all()
    assert torch.isfinite(found[:, :350]).all()


def test_the_file_stands_alone() -> None:
    """It is handed over with models, where Tunecast is not installed."""
    import tunecast.proxy_tuning.logits as logits

    text = Path(logits.__file__).read_text(encoding="utf-8")
    assert "import tunecast" not in text
    assert "from tunecast" not in text
