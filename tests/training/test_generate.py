"""Batched greedy generation against transformers on one prompt at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import workshop
from tunecast import data, models
from tunecast.training.compute import Compute
from tunecast.training.generate import generate

NEW_TOKENS = 12


class Writer:
    """A model made less monotonous, its tokenizer, and a few prompts of unequal length."""

    def __init__(self, folder: Path) -> None:
        resolved = models.resolve(str(folder))
        self.architecture = models.describe(resolved).architecture
        self.tokenizer = models.load_tokenizer(resolved)
        self.model = models.load_model(resolved, dtype=torch.float32, device="cpu")
        torch.manual_seed(1)
        with torch.no_grad():
            for weight in self.model.parameters():
                weight.add_(0.2 * torch.randn_like(weight))
        self.compute = Compute("cpu", "float32", self.architecture, self.tokenizer.pad_token_id)
        self.prompts = [
            data.encode_prompt(example, self.tokenizer, max_length=length, architecture=self.architecture)
            for length, example in zip((60, 15, 9), workshop.toy_examples(3), strict=True)
        ]

    def ids(self, prompt: tuple[int, ...]) -> list[int]:
        """What transformers writes after one prompt, without padding; it stops at no token."""
        output = self.model.generate(
            torch.tensor([prompt]),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )[0].tolist()
        return output[1:] if self.architecture == "encoder-decoder" else output[len(prompt) :]  # type: ignore[no-any-return]

    def text(self, ids: list[int]) -> str:
        """The ids up to the end-of-turn token, as text."""
        end = ids.index(self.tokenizer.eos_token_id) if self.tokenizer.eos_token_id in ids else len(ids)
        decoded: str = self.tokenizer.decode(ids[:end], skip_special_tokens=True)
        return decoded.strip()

    def batched(self, **options: Any) -> list[str]:
        return generate(
            self.model, self.tokenizer, self.prompts, self.compute, max_new_tokens=NEW_TOKENS, **options
        )


@pytest.fixture(params=["llama", "gpt2", "t5"])
def writer(request: pytest.FixtureRequest) -> Writer:
    return Writer(request.getfixturevalue(f"tiny_{request.param}"))


def test_equals_transformers_on_single_prompts(writer: Writer) -> None:
    expected = [writer.text(writer.ids(prompt)) for prompt in writer.prompts]
    assert len({len(prompt) for prompt in writer.prompts}) == 3
    assert len(set(expected)) == 3
    assert writer.batched() == expected
    assert writer.batched(batch_tokens=1) == expected


def test_stops_at_the_end_of_turn_of_its_tokenizer(writer: Writer) -> None:
    written = writer.ids(writer.prompts[0])
    specials = set(writer.tokenizer.all_special_ids)
    end = next(i for i, token in enumerate(written) if i and token not in {*specials, *written[:i]})
    writer.tokenizer.eos_token = writer.tokenizer.convert_ids_to_tokens(written[end])
    expected: str = writer.tokenizer.decode(written[: end + 1], skip_special_tokens=True)
    assert writer.batched()[0] == expected.strip()
