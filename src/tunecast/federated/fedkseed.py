"""FedKSeed: full finetuning for which seeds and scalars are sent (arXiv 2312.06353).

A zeroth-order step is a seed and a scalar. With K seeds that all sides know, any number of steps of constant
rate adds up to K scalars, from which everyone rebuilds the weights. FedKSeed-Pro draws seeds by the slopes
that were measured along them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from tunecast.federated.method import (
    NUMBER_BYTES,
    Contribution,
    FederatedMethod,
    Joined,
    Traffic,
    derived_seed,
    not_finite,
    pipeline_of,
)
from tunecast.federated.site import Arrays, Site
from tunecast.methods import get_method
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from tunecast.data import EncodedExample
    from tunecast.training.zeroth_order import ZerothOrder

CLIPPED = 1000.0
"""Largest slope that counts in a seed's history, as in the paper's code."""


class FedKSeed(FederatedMethod):
    """Trains all weights; a client receives K float32 and sends a number and a float32 for each step."""

    def start(self, site: Site) -> Arrays:
        """Return K scalars of 0, and empty histories."""
        count = self.settings.seeds
        return {
            "scalars": np.zeros(count),
            "slopes": np.zeros(count),
            "times": np.zeros(count, dtype=np.int64),
        }

    def send(self, state: Arrays, number: int, client: str) -> Arrays:
        """Return the scalars; for Pro also which seeds to use, because drawing here costs fewer bytes."""
        sent = {"scalars": state["scalars"].astype(np.float32)}
        if self.settings.pro:
            draw = np.random.default_rng([derived_seed(self.settings, number, client), 1])
            chances = probabilities(state["slopes"], state["times"])
            sent["drawn"] = draw.choice(self.settings.seeds, self.settings.steps, p=chances).astype(np.uint32)
        return sent

    def train(
        self, site: Site, received: Arrays, examples: Sequence[EncodedExample], number: int, client: str
    ) -> Arrays:
        """Rebuild the weights and take zeroth-order steps; those without finite losses are skipped."""
        draw = np.random.default_rng([derived_seed(self.settings, number, client), 2])
        count, steps = self.settings.seeds, self.settings.steps
        drawn = received.get("drawn", draw.integers(count, size=steps, dtype=np.uint32))
        taken: list[tuple[int, np.float32]] = []
        pipeline = self.pipeline(site.facts)
        with self.installed(site, received) as model:
            optimizer, seeds = self._optimizer(model, pipeline), self.pool()
            for place in drawn:
                batch = [
                    examples[int(i)] for i in draw.integers(len(examples), size=self.settings.batch_size)
                ]
                optimizer.estimate(partial(_loss, site, model, batch, pipeline), int(seeds[place]))
                slope = np.float32(optimizer.slopes[0])
                if not np.isfinite(slope):
                    continue
                optimizer.replay(
                    int(seeds[place]), float(slope)
                )  # of the number that is sent, not a longer one
                taken.append((int(place), slope))
        return {
            "drawn": np.array([place for place, _ in taken], dtype=np.uint32),
            "slopes": np.array([slope for _, slope in taken], dtype=np.float32),
        }

    def refusal(self, site: Site, state: Arrays, reply: Arrays, number: int) -> str:
        """Refuse other seeds than the K, more steps than were asked for, and scalars that are not finite."""
        if reply.keys() != {"drawn", "slopes"}:
            return "it did not send seeds and slopes"
        drawn, slopes = reply["drawn"], reply["slopes"]
        if drawn.ndim != 1 or drawn.shape != slopes.shape or len(drawn) > self.settings.steps:
            return f"it sent {drawn.size} seeds and {slopes.size} slopes for {self.settings.steps} steps"
        if not len(drawn):
            return "none of its losses was finite"
        if drawn.dtype != np.uint32 or slopes.dtype != np.float32 or drawn.max() >= self.settings.seeds:
            return f"it sent seeds that are none of the {self.settings.seeds}"
        return next(not_finite(reply), "")

    def join(self, site: Site, state: Arrays, contributions: Sequence[Contribution], number: int) -> Joined:
        """Add the clients' slopes to the scalars of their seeds. This is exact."""
        joined = {name: array.copy() for name, array in state.items()}
        for one in sorted(contributions, key=lambda one: one.name):
            drawn, slopes = one.arrays["drawn"], one.arrays["slopes"].astype(np.float64)
            np.add.at(joined["scalars"], drawn, one.weight * slopes)
            np.add.at(joined["slopes"], drawn, np.minimum(np.abs(slopes), CLIPPED))
            np.add.at(joined["times"], drawn, 1)
        return Joined(joined)

    def traffic(self, model: ModelFacts, number: int) -> Traffic:
        """Return the bytes of K scalars, and of a number and a slope for each step, whatever the model."""
        drawn = self.settings.steps if self.settings.pro else 0
        return Traffic(NUMBER_BYTES * (self.settings.seeds + drawn), 2 * NUMBER_BYTES * self.settings.steps)

    @contextmanager
    def installed(self, site: Site, state: Arrays) -> Iterator[Any]:
        """Rebuild the weights on a copy of the base, with a step for each scalar that is not 0."""
        pipeline = self.pipeline(site.facts)
        # A copy in float32: MeZO itself would train the base, which the next round starts from.
        model = get_method("full").attach(site.base, pipeline, self.settings.seed).eval()
        optimizer, seeds = self._optimizer(model, pipeline), self.pool()
        scalars = state["scalars"].astype(np.float32)
        for place in np.flatnonzero(scalars):
            optimizer.replay(int(seeds[place]), float(scalars[place]))
        yield model

    def pipeline(self, model: ModelFacts) -> Pipeline:
        """Return MeZO's pipeline, with the settings' rate or its usual one."""
        rate = self.settings.learning_rate or get_method("mezo").central_rate(model)
        return pipeline_of(self.settings, "mezo", rate, perturbation=self.settings.perturbation)

    def pool(self) -> np.ndarray:
        """Return the K seeds, all different, which follow from the federation's seed and are never sent."""
        draw = np.random.default_rng([self.settings.seed, self.settings.seeds])
        seeds = np.unique(draw.integers(1, 1 << 32, size=2 * self.settings.seeds + 64, dtype=np.int64))
        return draw.permutation(seeds)[: self.settings.seeds]

    def _optimizer(self, model: Any, pipeline: Pipeline) -> ZerothOrder:
        from tunecast.training.zeroth_order import ZerothOrder

        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return ZerothOrder(trained, pipeline.number("learning_rate"), self.settings.perturbation)


def probabilities(slopes: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the chances of seeds in FedKSeed-Pro.

    Args:
        slopes: Sums of the seeds' absolute slopes, shape (K,).
        times: How often each was measured, shape (K,). Every history starts with a slope of 0.

    Returns:
        Softmax of the mean slopes, which are scaled to 0 to 1 before; uniform if all are equal.
    """
    importance = slopes / (1 + times)
    width = float(importance.max() - importance.min())
    scaled = (importance - importance.min()) / width if width > 0 else np.zeros(len(importance))
    chances = np.exp(scaled)
    return np.asarray(chances / chances.sum())


def _loss(site: Site, model: Any, batch: Sequence[EncodedExample], pipeline: Pipeline) -> float:
    """Return the loss per label token; NaN rather than an error where it overflows."""
    losses, _ = site.loss.minimised(model, site.loss.collate(batch, site.compute), pipeline)
    total = float(losses.sum())
    return total / max(site.loss.weight(batch), 1) if math.isfinite(total) else math.nan
