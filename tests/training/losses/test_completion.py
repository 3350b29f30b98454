"""The loss with logits only where there are labels, against the plain loss of transformers."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tunecast import models
from tunecast.data import EncodedExample
from tunecast.training.compute import Compute
from tunecast.training.losses.completion import Batch, collate, example_nats, pooled_score, smoothed_nats

FAMILIES = ("llama", "gpt2", "t5")
PAD = 3
EXAMPLES = (np.array([6.0, 2.0, 4.0]), np.array([3, 1, 4]), np.array([12, 5, 13]))


def decoder_only(length: int, *spans: tuple[int, int]) -> EncodedExample:
    """An example whose tokens in the spans are trained."""
    ids = tuple((7 * length + 13 * i) % 380 + 10 for i in range(length))
    labels = tuple(ids[i] if any(a <= i < b for a, b in spans) else -100 for i in range(length))
    return EncodedExample(1, ids, labels, completion_bytes=1, truncated=False)


def encoder_decoder(length: int, completion: int) -> EncodedExample:
    ids = tuple((5 * length + 11 * i) % 380 + 10 for i in range(length))
    labels = tuple((3 * length + 17 * i) % 380 + 10 for i in range(completion))
    return EncodedExample(1, ids, labels, 1, False, "encoder-decoder")


MASKS = {
    "ragged": [decoder_only(20, (15, 20)), decoder_only(7, (5, 7)), decoder_only(31, (10, 31))],
    "several turns": [decoder_only(24, (4, 8), (15, 18), (22, 24)), decoder_only(13, (2, 3), (9, 13))],
    "running text": [decoder_only(12, (0, 12)), decoder_only(5, (0, 5))],
    "an untrained end": [decoder_only(20, (3, 6)), decoder_only(9, (6, 9))],
    "prompt only among others": [decoder_only(11), decoder_only(9, (6, 9))],
    "one": [decoder_only(16, (9, 16))],
}
PAIRS = [encoder_decoder(12, 5), encoder_decoder(4, 9), encoder_decoder(20, 1)]
CASES = [(f, m) for f in ("llama", "gpt2") for m in MASKS] + [("t5", "ragged")]


def examples_of(family: str, mask: str) -> list[EncodedExample]:
    return PAIRS if family == "t5" else MASKS[mask]


@pytest.fixture(scope="module")
def loaded(request: pytest.FixtureRequest) -> dict[str, Any]:
    folders: dict[str, Path] = {name: request.getfixturevalue(f"tiny_{name}") for name in FAMILIES}
    return {
        name: models.load_model(models.resolve(str(folder)), dtype=torch.float32, device="cpu")
        for name, folder in folders.items()
    }


def batch_of(family: str, examples: list[EncodedExample]) -> Batch:
    architecture = "encoder-decoder" if family == "t5" else "decoder-only"
    return collate(examples, Compute("cpu", "float32", architecture, PAD))  # type: ignore[arg-type]


def plain_loss(model: Any, examples: list[EncodedExample]) -> torch.Tensor:
    """Mean nats of all labels: padded on the right, all logits, the model's own loss."""

    def padded(rows: list[tuple[int, ...]], fill: int) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(list(map(torch.tensor, rows)), True, fill)

    ids = padded([example.input_ids for example in examples], PAD)
    mask = padded([(1,) * len(example.input_ids) for example in examples], 0)
    labels = padded([example.labels for example in examples], -100)
    loss: torch.Tensor = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    return loss


def gradients(model: Any, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(
        torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True, allow_unused=True)
    )


@pytest.mark.parametrize(("family", "mask"), CASES)
def test_equals_the_plain_loss_and_its_gradient(family: str, mask: str, loaded: dict[str, Any]) -> None:
    model, examples = loaded[family].requires_grad_(True), examples_of(family, mask)
    batch = batch_of(family, examples)
    assert batch.label_tokens == sum(example.label_tokens for example in examples)
    ours = example_nats(model, batch).sum() / batch.label_tokens
    plain = plain_loss(model, examples)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)
    for one, other in zip(gradients(model, ours), gradients(model, plain), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * max(1.0, float(other.abs().max())))


@pytest.mark.parametrize(("family", "mask"), CASES)
def test_padding_is_neutral(family: str, mask: str, loaded: dict[str, Any]) -> None:
    model, examples = loaded[family].requires_grad_(False), examples_of(family, mask)
    together = example_nats(model, batch_of(family, examples))
    alone = torch.cat([example_nats(model, batch_of(family, [example])) for example in examples])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_only_the_needed_logits_are_asked_for() -> None:
    assert batch_of("llama", MASKS["ragged"]).kept == 22
    assert batch_of("llama", MASKS["one"]).kept == 8
    assert batch_of("llama", MASKS["running text"]).kept == 12


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_without_labels_there_is_no_loss_and_no_gradient(family: str, loaded: dict[str, Any]) -> None:
    model = loaded[family].requires_grad_(True)
    nats = example_nats(model, batch_of(family, [decoder_only(8), decoder_only(5)]))
    assert nats.tolist() == [0.0, 0.0]
    assert not any(gradient.any() for gradient in gradients(model, nats.sum()))


@pytest.mark.parametrize("family", FAMILIES)
def test_autocast_stays_close_and_returns_float32(family: str, loaded: dict[str, Any]) -> None:
    model, batch = loaded[family].requires_grad_(False), batch_of(family, examples_of(family, "ragged"))
    exact = example_nats(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        nats = example_nats(model, batch)
    assert nats.dtype == torch.float32
    torch.testing.assert_close(nats, exact, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_smoothing_is_that_of_transformers(family: str, loaded: dict[str, Any]) -> None:
    from transformers.trainer_pt_utils import LabelSmoother

    model, examples = loaded[family].requires_grad_(True), examples_of(family, "ragged")
    batch = batch_of(family, examples)
    smoothed, plain = smoothed_nats(model, batch, 0.1)
    assert torch.equal(plain, example_nats(model, batch))
    assert not plain.requires_grad
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(e.input_ids) for e in examples], True, PAD)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(e.input_ids)).long() for e in examples], True, 0)
    labels = torch.nn.utils.rnn.pad_sequence([torch.tensor(e.labels) for e in examples], True, -100)
    outputs = model(input_ids=ids, attention_mask=mask, labels=labels)
    theirs = LabelSmoother(epsilon=0.1)(outputs, labels, shift_labels=family != "t5")
    torch.testing.assert_close(smoothed.sum() / batch.label_tokens, theirs, rtol=1e-5, atol=1e-5)


def test_pools_by_the_formulas() -> None:
    score = pooled_score(*EXAMPLES)
    assert score.loss == 12.0 / 8
    assert score.nats_per_completion == 12.0 / 3
    assert score.bits_per_byte == pytest.approx(12.0 / math.log(2) / 30)
    assert (score.examples, score.label_tokens) == (3, 8)
    assert score.loss_low is score.loss_high is None


def test_interval_holds_the_loss_and_narrows_with_more_examples() -> None:
    draw = np.random.default_rng(0)

    def scored(count: int) -> tuple[float, float, float]:
        tokens = draw.integers(1, 20, count)
        score = pooled_score(tokens * draw.normal(2.0, 0.5, count), tokens, tokens, interval_seed=1)
        assert score.loss_low is not None
        assert score.loss_high is not None
        return score.loss_low, score.loss, score.loss_high

    (low, loss, high), (close_low, close_loss, close_high) = scored(50), scored(5000)
    assert low < loss < high
    assert close_low < close_loss < close_high
    assert close_high - close_low == pytest.approx((high - low) / 10, rel=0.4)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(3)
    tokens = np.full(80, 4)
    hits = 0
    for _ in range(200):
        score = pooled_score(4 * draw.normal(2.0, 1.0, 80), tokens, tokens, interval_seed=0)
        hits += score.loss_low < 2.0 < score.loss_high  # type: ignore[operator]
    assert 0.89 < hits / 200 < 0.985


def test_interval_draws_as_if_all_at_once() -> None:
    draw = np.random.default_rng(5)
    tokens = draw.integers(1, 9, 37)
    nats = tokens * draw.normal(2.0, 0.5, 37)
    score = pooled_score(nats, tokens, tokens, interval_seed=7)
    chosen = np.random.default_rng(7).integers(0, 37, (1000, 37))
    losses = nats[chosen].sum(1) / tokens[chosen].sum(1)
    assert (score.loss_low, score.loss_high) == pytest.approx(tuple(np.quantile(losses, [0.025, 0.975])))


def test_interval_takes_no_memory_for_all_draws() -> None:
    tokens = np.full(20_000, 4)
    tracemalloc.start()
    pooled_score(4 * np.ones(20_000), tokens, tokens, interval_seed=0)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_interval_is_seeded() -> None:
    assert pooled_score(*EXAMPLES, interval_seed=4) == pooled_score(*EXAMPLES, interval_seed=4)
