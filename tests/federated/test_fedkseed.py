"""FedKSeed: what is sent is enough to rebuild the weights, and no more than the paper says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tunecast.federated.fedkseed import FedKSeed, probabilities
from tunecast.federated.method import Contribution

from .conftest import Workshop

SMALL = {"method": "fedkseed", "seeds": 16, "steps": 6, "learning_rate": 1e-4, "batch_size": 2}


def weights(method: FedKSeed, federation: Workshop, state: dict[str, Any]) -> torch.Tensor:
    with method.installed(federation.site, state) as model:
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_the_weights_that_scalars_rebuild_are_those_of_training_step_by_step(
    federation: Workshop, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, client = FedKSeed(settings(**SMALL)), federation.client(settings(**SMALL), "north")
    trained: list[torch.Tensor] = []
    install = method.installed

    def watched(site: Any, state: Any) -> Any:
        from contextlib import contextmanager

        @contextmanager
        def inner() -> Any:
            with install(site, state) as model:
                yield model
                trained.append(torch.cat([p.detach().flatten() for p in model.parameters()]))

        return inner()

    start = method.start(federation.site)
    with monkeypatch.context() as patched:
        patched.setattr(method, "installed", watched)
        sent = method.send(start, 1, "north")
        reply = method.train(federation.site, sent, client.examples, 1, "north")
    joined = method.join(federation.site, start, [Contribution("north", 1.0, reply)], 1)
    rebuilt = weights(method, federation, joined.state)
    base = weights(method, federation, start)
    assert torch.linalg.norm(rebuilt - trained[0]) <= 1e-3 * torch.linalg.norm(rebuilt - base)
    torch.testing.assert_close(rebuilt, trained[0], rtol=1e-5, atol=1e-6)


def test_the_defaults_send_17984_bytes_and_pro_the_drawn_seeds_too(
    federation: Workshop, settings: Any
) -> None:
    full = settings(method="fedkseed")
    assert (full.seeds, full.steps) == (4096, 200)
    for chosen, down in ((full, 16_384), (replace(full, pro=True), 16_384 + 800)):
        method = FedKSeed(chosen)
        sent = method.send(method.start(federation.site), 1, "north")
        reply = {"drawn": np.zeros(200, np.uint32), "slopes": np.ones(200, np.float32)}
        assert method.refusal(federation.site, {}, reply, 1) == ""
        assert sum(array.nbytes for array in sent.values()) == down
        assert sum(array.nbytes for array in reply.values()) == 1_600


def test_a_client_sends_a_pair_for_each_step(federation: Workshop, settings: Any) -> None:
    record = federation.run(settings(**SMALL)).records[1]
    assert (record.down_bytes, record.up_bytes) == (3 * 4 * 16, 3 * 8 * 6)
    assert record.counted == ("north", "south", "west")


def test_one_seed_moves_along_one_line(federation: Workshop, settings: Any) -> None:
    chosen = settings(**SMALL | {"seeds": 1, "rounds": 1})
    method = FedKSeed(chosen)
    base = weights(method, federation, method.start(federation.site))
    moved = weights(method, federation, federation.run(chosen).state) - base
    direction = weights(method, federation, {"scalars": np.ones(1)}) - base
    assert torch.cosine_similarity(moved, direction, dim=0).abs() > 1 - 1e-4


def test_steps_without_finite_losses_are_neither_taken_nor_sent(
    federation: Workshop, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, client = FedKSeed(settings(**SMALL)), federation.client(settings(**SMALL), "north")
    monkeypatch.setattr("tunecast.federated.fedkseed._loss", lambda *_: float("nan"))
    sent = method.send(method.start(federation.site), 1, "north")
    reply = method.train(federation.site, sent, client.examples, 1, "north")
    assert not len(reply["drawn"])
    assert "finite" in method.refusal(federation.site, {}, reply, 1)


def test_the_order_of_clients_does_not_matter(federation: Workshop, settings: Any) -> None:
    method = FedKSeed(settings(**SMALL))
    draw = np.random.default_rng(0)
    replies = [
        Contribution(
            name,
            1 / 3,
            {
                "drawn": draw.integers(16, size=6).astype(np.uint32),
                "slopes": draw.normal(size=6).astype(np.float32),
            },
        )
        for name in "abc"
    ]
    start = method.start(federation.site)
    one = method.join(federation.site, start, replies, 1).state
    other = method.join(federation.site, start, replies[::-1], 1).state
    assert all((one[name] == other[name]).all() for name in one)
    assert not start["scalars"].any()


@pytest.mark.parametrize(
    ("drawn", "slopes", "reason"),
    [
        ([16], [1.0], "none of the 16"),
        ([1] * 7, [1.0] * 7, "for 6 steps"),
        ([1, 2], [1.0], "2 seeds and 1 slopes"),
        ([1], [np.inf], "not finite"),
    ],
)
def test_replies_that_no_client_would_send_are_refused(
    federation: Workshop, settings: Any, drawn: list[int], slopes: list[float], reason: str
) -> None:
    reply = {"drawn": np.array(drawn, np.uint32), "slopes": np.array(slopes, np.float32)}
    assert reason in FedKSeed(settings(**SMALL)).refusal(federation.site, {}, reply, 1)


def test_chances_are_equal_without_slopes_and_larger_for_steeper_seeds() -> None:
    equal = probabilities(np.zeros(5), np.zeros(5, dtype=np.int64))
    assert equal == pytest.approx([0.2] * 5)
    chances = probabilities(np.array([0.0, 1.0, 8.0]), np.array([0, 1, 1]))
    assert chances.sum() == pytest.approx(1)
    assert chances[2] / chances[0] == pytest.approx(np.e)
    assert chances[0] < chances[1] < chances[2]


def test_seeds_differ_and_follow_from_the_federations_seed(settings: Any) -> None:
    pool = FedKSeed(settings(method="fedkseed")).pool()
    assert len(set(pool.tolist())) == 4096
    assert pool.max() < 1 << 32
    assert (pool == FedKSeed(settings(method="fedkseed")).pool()).all()
    assert (pool != FedKSeed(settings(method="fedkseed", seed=1)).pool()).any()
