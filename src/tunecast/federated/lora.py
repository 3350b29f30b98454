"""Federated LoRA: clients train adapters, the server joins them (FedAvg), with two remedies for its bias.

The mean of the products ``B A`` is not the product of the means. ``freeze-a`` trains only B, for which the
mean is exact (FFA-LoRA); ``product`` averages the products and cuts the sum to the adapter's rank again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from tunecast.federated.method import (
    NUMBER_BYTES,
    Contribution,
    FederatedMethod,
    Joined,
    Traffic,
    derived_seed,
    mean,
    pipeline_of,
    train_locally,
    wrong_arrays,
)
from tunecast.federated.site import Arrays, Site
from tunecast.methods import get_method
from tunecast.methods.lora import Lora
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from tunecast.data import EncodedExample

FACTOR_A, FACTOR_B = ".lora_A.", ".lora_B."


class FedAvgLora(FederatedMethod):
    """Sends a whole adapter both ways, or only B if A is frozen and follows from the seed."""

    sends_all = False
    """Whether clients get A although it is frozen, because it does not follow from the seed."""

    def start(self, site: Site) -> Arrays:
        """Return peft's start of the adapter: random A by the seed, B = 0."""
        with self._attached(site) as model:
            return {name: _array(parameter) for name, parameter in _trained(model).items()}

    def send(self, state: Arrays, number: int, client: str) -> Arrays:
        """Return the adapter, without an A that clients know."""
        return state if self.sends_all else self._moving(state)

    def train(
        self, site: Site, received: Arrays, examples: Sequence[EncodedExample], number: int, client: str
    ) -> Arrays:
        """Train the adapter on a client's examples and return it, without a frozen A."""
        with self.installed(site, received) as model:
            trained = _trained(model)
            for name, parameter in trained.items():
                parameter.requires_grad_(name in self._moving(trained))
            seed = derived_seed(self.settings, number, client)
            train_locally(site, model, self.pipeline(site.facts), examples, self.settings.local_epochs, seed)
            return {name: _array(parameter) for name, parameter in self._moving(trained).items()}

    def refusal(self, site: Site, state: Arrays, reply: Arrays, number: int) -> str:
        """Refuse other names and shapes than the adapter's."""
        return wrong_arrays(reply, {name: array.shape for name, array in self._moving(state).items()})

    def join(self, site: Site, state: Arrays, contributions: Sequence[Contribution], number: int) -> Joined:
        """Average the factors, or their products."""
        if not contributions:
            return Joined(state)
        full = [Contribution(one.name, one.weight, {**state, **one.arrays}) for one in contributions]
        joined = {name: mean(full, name) for name in state}
        if self.settings.aggregation == "product":
            for first, second in _pairs(state):
                joined[first], joined[second] = mean_product(full, first, second)
        return Joined(joined, bias(joined, full))

    def traffic(self, model: ModelFacts, number: int) -> Traffic:
        """Return the bytes of the adapter both ways, without an A that is not sent."""
        pairs = adapted_matrices(model, self.pipeline(model))
        first, second = (NUMBER_BYTES * self.settings.lora_r * sum(side) for side in zip(*pairs, strict=True))
        frozen = self.settings.aggregation == "freeze-a"
        up = second + (0 if frozen else first)
        return Traffic(up + (first if frozen and self.sends_all else 0), up)

    @contextmanager
    def installed(self, site: Site, state: Arrays) -> Iterator[Any]:
        """Attach the adapter to the base, and take it off again."""
        import torch

        with self._attached(site) as model:
            for name, parameter in _trained(model).items():
                if name in state:
                    parameter.data.copy_(torch.from_numpy(np.ascontiguousarray(state[name])))
            yield model.eval()

    @contextmanager
    def _attached(self, site: Site) -> Iterator[Any]:
        pipeline = self.pipeline(site.facts)
        method = get_method(pipeline.method)
        model = method.attach(site.base, pipeline, self.settings.seed)
        try:
            yield model
        finally:
            method.detach(model)

    def pipeline(self, model: ModelFacts) -> Pipeline:
        """Return LoRA's pipeline, with the settings' rate or its usual one."""
        rate = self.settings.learning_rate or get_method("lora").central_rate(model)
        chosen = self.settings
        return pipeline_of(chosen, "lora", rate, lora_r=chosen.lora_r, lora_alpha=chosen.lora_alpha)

    def _moving(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """Return what clients train and send."""
        frozen = self.settings.aggregation == "freeze-a"
        return {name: array for name, array in arrays.items() if not (frozen and FACTOR_A in name)}


def adapted_matrices(model: ModelFacts, pipeline: Pipeline) -> list[tuple[int, int]]:
    """Return inputs and outputs of every matrix that LoRA adapts: by formula, else from a skeleton."""
    from tunecast.estimate.forms import is_known
    from tunecast.models.layer_specs import matrices

    if is_known(model):
        return [*matrices(model).of("all-linear")] * model.layers
    skeleton = Lora().without_weights(model, pipeline)
    shapes = {name: tuple(parameter.shape) for name, parameter in _trained(skeleton).items()}
    return [(shapes[first][1], shapes[second][0]) for first, second in _pairs(shapes)]


def mean_product(
    contributions: Sequence[Contribution], first: str, second: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return A and B of the best approximation of the mean of the products, of the clients' rank.

    The mean is itself a product of stacked factors, so two QR decompositions and a small SVD are enough.
    """
    ordered = sorted(contributions, key=lambda one: one.name)
    rank = ordered[0].arrays[first].shape[0]
    tall = np.concatenate([one.weight * one.arrays[second].astype(np.float64) for one in ordered], axis=1)
    wide = np.concatenate([one.arrays[first].astype(np.float64) for one in ordered], axis=0)
    left, upper = np.linalg.qr(tall)
    right, lower = np.linalg.qr(wide.T)
    u, sizes, v = np.linalg.svd(upper @ lower.T)
    return split_product(left @ u, sizes, v @ right.T, rank)


def split_product(
    u: np.ndarray, sizes: np.ndarray, v: np.ndarray, rank: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return A (rank, in) and B (out, rank) of equal norms from a singular value decomposition."""
    kept = min(rank, len(sizes))
    roots = np.sqrt(sizes[:kept])
    first, second = np.zeros((rank, v.shape[1])), np.zeros((u.shape[0], rank))
    first[:kept], second[:, :kept] = roots[:, None] * v[:kept], u[:, :kept] * roots
    return first.astype(np.float32), second.astype(np.float32)


def bias(joined: Arrays, contributions: Sequence[Contribution]) -> float:
    """Return the norm of ``B A - mean(B_c A_c)`` over that of the mean, all matrices together."""
    off = size = 0.0
    for first, second in _pairs(joined):
        tall = [-one.weight * one.arrays[second].astype(np.float64) for one in contributions]
        wide = [one.arrays[first].astype(np.float64) for one in contributions]
        size += _squared_norm(tall, wide)
        off += _squared_norm(
            [joined[second].astype(np.float64), *tall], [joined[first].astype(np.float64), *wide]
        )
    return float(np.sqrt(max(off, 0.0) / size)) if size else 0.0


def _squared_norm(tall: Sequence[np.ndarray], wide: Sequence[np.ndarray]) -> float:
    """Return the squared Frobenius norm of a sum of products, without building it."""
    left, right = np.concatenate(tall, axis=1), np.concatenate(wide, axis=0)
    return float(np.sum((left.T @ left) * (right @ right.T)))


def _pairs(names: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the names of A and B of every adapted matrix."""
    return [(name, name.replace(FACTOR_A, FACTOR_B)) for name in sorted(names) if FACTOR_A in name]


def _trained(model: Any) -> dict[str, Any]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _array(parameter: Any) -> np.ndarray:
    return np.array(parameter.detach().cpu().numpy())
