"""SLoRA: federated LoRA that starts from what a sparse finetuning of few rounds found (arXiv 2308.06522).

Stage 1 trains few entries of each matrix, at places that follow from a seed. Their change is split into the
first factors of an adapter by a singular value decomposition. Stage 2 trains that adapter on the unchanged
base.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tunecast.federated.lora import FACTOR_A, FACTOR_B, FedAvgLora, adapted_matrices, split_product
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
from tunecast.federated.settings import FederatedSettings
from tunecast.federated.site import Arrays, Site
from tunecast.methods import get_method
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from torch import Tensor

    from tunecast.data import EncodedExample

WRAPPED = "base_model.model."
"""What peft puts before the names of the base model's modules."""


class SLora(FederatedMethod):
    """Sends the values of the chosen entries both ways in stage 1, and an adapter in stage 2."""

    def __init__(self, settings: FederatedSettings) -> None:
        super().__init__(settings)
        self._adapters = FedAvgLora(settings)
        self._adapters.sends_all = True

    @property
    def first_delivered(self) -> int:
        """The first round of stage 2."""
        return self.settings.first_rounds + 1

    def start(self, site: Site) -> Arrays:
        """Return a change of 0 at the chosen entries, by the names of the matrices' adapters."""
        names = [name for name in self._adapters.start(site) if FACTOR_A in name]
        sizes = {name: len(self.places(name, matrix(site, name).numel())) for name in names}
        return {name: np.zeros(size, dtype=np.float32) for name, size in sizes.items()}

    def send(self, state: Arrays, number: int, client: str) -> Arrays:
        """Return the values, or the adapter."""
        return self._adapters.send(state, number, client)

    def train(
        self, site: Site, received: Arrays, examples: Sequence[EncodedExample], number: int, client: str
    ) -> Arrays:
        """Train the chosen entries, or the adapter."""
        if not self._is_sparse(number):
            return self._adapters.train(site, received, examples, number, client)
        with self._changed(site, received) as model:
            start = {name: matrix(site, name).detach() for name in received}
            for parameter in model.parameters():
                parameter.requires_grad_(False)
            for name in received:
                trained = model.get_parameter(_weight(name)).requires_grad_(True)
                trained.register_hook(partial(_masked, self._mask(name, trained)))
            seed = derived_seed(self.settings, number, client)
            train_locally(
                site, model, self._sparse_pipeline(site.facts), examples, self.settings.local_epochs, seed
            )
            changes = {name: model.get_parameter(_weight(name)).detach() - start[name] for name in received}
            return {
                name: change.cpu().numpy().reshape(-1)[self.places(name, change.numel())]
                for name, change in changes.items()
            }

    def refusal(self, site: Site, state: Arrays, reply: Arrays, number: int) -> str:
        """Refuse other names and shapes than the stage's."""
        if self._is_sparse(number):
            return wrong_arrays(reply, {name: array.shape for name, array in state.items()})
        return self._adapters.refusal(site, state, reply, number)

    def join(self, site: Site, state: Arrays, contributions: Sequence[Contribution], number: int) -> Joined:
        """Average the values or join the adapters; the last sparse round also changes the stage."""
        if not self._is_sparse(number):
            return self._adapters.join(site, state, contributions, number)
        joined = {name: mean(contributions, name) for name in state} if contributions else state
        return Joined(self._factors(site, joined) if number == self.settings.first_rounds else joined)

    def traffic(self, model: ModelFacts, number: int) -> Traffic:
        """Return the bytes of the chosen entries in stage 1, of the adapter in stage 2."""
        if not self._is_sparse(number):
            return self._adapters.traffic(model, number)
        pairs = adapted_matrices(model, self.pipeline(model))
        moved = NUMBER_BYTES * sum(self._number_of_places(inputs * outputs) for inputs, outputs in pairs)
        return Traffic(moved, moved)

    def installed(self, site: Site, state: Arrays) -> AbstractContextManager[Any]:
        """Yield the base with changed entries, or with the adapter."""
        adapted = any(FACTOR_B in name for name in state)
        return self._adapters.installed(site, state) if adapted else self._changed(site, state)

    def pipeline(self, model: ModelFacts) -> Pipeline:
        """Return the pipeline of stage 2, whose result is delivered."""
        return self._adapters.pipeline(model)

    def places(self, name: str, entries: int) -> np.ndarray:
        """Return the chosen entries of a flat matrix, ascending. Every side derives them from the seed."""
        draw = np.random.default_rng([self.settings.seed, zlib.crc32(name.encode())])
        return np.sort(draw.choice(entries, self._number_of_places(entries), False, shuffle=False))

    def _number_of_places(self, entries: int) -> int:
        return max(1, round(self.settings.density * entries))

    def _is_sparse(self, number: int) -> bool:
        return number <= self.settings.first_rounds

    def _sparse_pipeline(self, model: ModelFacts) -> Pipeline:
        rate = self.settings.sparse_rate or get_method("full").central_rate(model)
        return pipeline_of(self.settings, "full", rate)

    @contextmanager
    def _changed(self, site: Site, state: Arrays) -> Iterator[Any]:
        """Yield a copy of the base with changed entries."""
        import torch

        model = get_method("full").attach(site.base, self._sparse_pipeline(site.facts), self.settings.seed)
        with torch.no_grad():
            for name in state:
                weight = model.get_parameter(_weight(name))
                weight.add_(self._dense(name, state, weight))
        yield model.eval()

    def _dense(self, name: str, state: Arrays, like: Tensor) -> Tensor:
        """Return a change as a matrix, 0 outside of the chosen entries."""
        import torch

        flat = np.zeros(like.numel(), dtype=np.float32)
        flat[self.places(name, like.numel())] = state[name]
        return torch.from_numpy(flat).view(like.shape).to(like.device)

    def _mask(self, name: str, like: Tensor) -> Tensor:
        return self._dense(name, {name: np.ones(1, dtype=np.float32)}, like)

    def _factors(self, site: Site, state: Arrays) -> Arrays:
        """Return the adapter whose ``s * B @ A`` approximates the changes best, with ``s = alpha / r``."""
        scale = self.settings.lora_alpha / self.settings.lora_r
        factors: Arrays = {}
        for name in state:
            weight = matrix(site, name)
            change = self._dense(name, state, weight).cpu().numpy().astype(np.float64) / scale
            if _is_transposed(site, name):
                change = change.T
            first, second = split_product(*np.linalg.svd(change, full_matrices=False), self.settings.lora_r)
            factors[name], factors[name.replace(FACTOR_A, FACTOR_B)] = first, second
        return factors


def matrix(site: Site, name: str) -> Tensor:
    """Return the base's matrix to which the A of that name belongs."""
    found: Tensor = site.base.get_parameter(_weight(name))
    return found


def _weight(name: str) -> str:
    return f"{name.removeprefix(WRAPPED).partition(FACTOR_A)[0]}.weight"


def _is_transposed(site: Site, name: str) -> bool:
    """Whether the layer keeps its matrix as (in, out), as GPT-2 does."""
    module = site.base.get_submodule(_weight(name).removesuffix(".weight"))
    return type(module).__name__ == "Conv1D"


def _masked(mask: Tensor, gradient: Tensor) -> Tensor:
    return gradient * mask
