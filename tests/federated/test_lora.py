"""Federated LoRA: the bias of averaging both factors, and what its remedies leave of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tunecast.federated.lora import FedAvgLora, bias, mean_product
from tunecast.federated.method import Contribution, weights

from .conftest import Workshop

A, B = "layer.lora_A.default.weight", "layer.lora_B.default.weight"


def two_clients(rank: int = 2) -> list[Contribution]:
    draw = np.random.default_rng(0)
    return [
        Contribution(
            name,
            share,
            {
                A: draw.normal(size=(rank, 7)).astype(np.float32),
                B: draw.normal(size=(5, rank)).astype(np.float32),
            },
        )
        for name, share in (("a", 0.25), ("b", 0.75))
    ]


def product_mean(clients: list[Contribution]) -> np.ndarray:
    return np.asarray(sum(one.weight * one.arrays[B].astype(float) @ one.arrays[A] for one in clients))


def test_the_bias_is_what_separates_the_product_of_means_from_the_mean_of_products() -> None:
    clients = two_clients()
    joined = {name: sum(one.weight * one.arrays[name] for one in clients) for name in (A, B)}
    expected = product_mean(clients)
    direct = np.linalg.norm(joined[B] @ joined[A] - expected) / np.linalg.norm(expected)
    assert direct > 0.3
    assert bias(joined, clients) == pytest.approx(direct, rel=1e-5)


def test_the_mean_product_is_the_best_one_of_its_rank() -> None:
    clients = two_clients()
    first, second = mean_product(clients, A, B)
    expected = product_mean(clients)
    sizes = np.linalg.svd(expected, compute_uv=False)
    error = np.linalg.norm(second.astype(float) @ first - expected)
    assert error == pytest.approx(np.linalg.norm(sizes[2:]), rel=1e-4)


def test_equal_clients_are_joined_without_bias() -> None:
    one = two_clients()[0]
    clients = [Contribution(name, 0.5, one.arrays) for name in "ab"]
    assert bias(one.arrays, clients) < 1e-6


def test_a_frozen_a_is_joined_exactly_and_never_sent(federation: Workshop, settings: Any) -> None:
    both = federation.run(settings(rounds=1))
    frozen_settings = settings(rounds=1, aggregation="freeze-a")
    method = FedAvgLora(frozen_settings)
    start = method.start(federation.site)
    sent = method.send(start, 1, "north")
    reply = federation.client(frozen_settings, "north").train(1, sent)
    assert reply.problem == ""
    assert sent.keys() == reply.arrays.keys()
    assert not any("lora_A" in name for name in sent)
    assert any("lora_A" in name for name in start)
    contributions = [Contribution("north", 0.5, reply.arrays), Contribution("south", 0.5, sent)]
    assert method.join(federation.site, start, contributions, 1).bias < 1e-6  # type: ignore[operator]
    assert both.records[1].bias is not None
    assert both.records[1].bias > 1e-4


def test_the_base_is_left_as_it_was(federation: Workshop, settings: Any) -> None:
    before = federation.site.score(federation.site.base, federation.client(settings(), "north").examples)
    names = [name for name, _ in federation.site.base.named_parameters()]
    federation.run(settings(rounds=1))
    after = federation.site.score(federation.site.base, federation.client(settings(), "north").examples)
    assert after == before
    assert names == [name for name, _ in federation.site.base.named_parameters()]


def test_training_lowers_the_loss_and_counts_its_bytes(federation: Workshop, settings: Any) -> None:
    records = federation.run(settings()).records
    assert records[-1].validation_loss < records[0].validation_loss - 0.1
    parameters = sum(array.size for array in FedAvgLora(settings()).start(federation.site).values())
    assert records[1].down_bytes == records[1].up_bytes == 3 * 4 * parameters


def test_shares_follow_the_examples_or_are_equal_and_sum_to_one(settings: Any) -> None:
    assert weights({"a": 1, "b": 3}, settings()) == {"a": 0.25, "b": 0.75}
    assert weights({"a": 1, "b": 3}, settings(weighting="equal")) == {"a": 0.5, "b": 0.5}
