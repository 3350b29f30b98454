"""Samples pipelines, full lengths, subset sizes and seeds of a plan's runs by a scrambled Sobol sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from tunecast.collect.planfile import Plan
from tunecast.errors import ConfigurationError
from tunecast.methods.rates import adapter_rate, optimizer_rate
from tunecast.methods.registry import get_method
from tunecast.methods.restrictions import Restrictions
from tunecast.methods.space import pipeline_space, sample_pipelines
from tunecast.records import ModelFacts, Pipeline, stable_hash

if TYPE_CHECKING:
    from ConfigSpace import ConfigurationSpace
    from numpy.typing import NDArray

T = TypeVar("T")

DIMENSIONS = 5
"""Method, learning rate, full length, unique examples, seed."""


@dataclass(frozen=True)
class Drawn:
    """A sample for a run; ``unique_level`` is a place between 0 and 1 among the plan's subset sizes."""

    pipeline: Pipeline
    full_length_tokens: int
    unique_level: float
    seed: int


class Drawing:
    """Samples for one base model.

    The same number gives the same quantiles for every model, so that runs of different models can be compared
    one to one although their ranges of learning rates differ.

    Raises:
        ConfigurationError: A method of the plan cannot be used on the model.
    """

    def __init__(self, plan: Plan, model: ModelFacts) -> None:
        for method in plan.methods:
            if reason := get_method(method).applies(model):
                raise ConfigurationError(
                    f"The method {method} of the plan {plan.name} cannot be used on {model.name}: {reason}.",
                    "Give this base model a plan of its own, without the method.",
                )
        self._plan = plan
        self._model = model
        self._spaces: dict[str, ConfigurationSpace] = {}

    def draw(self, stream: str, number: int) -> Drawn:
        """Return the sample ``number`` of a stream; the samples of a stream are balanced among themselves."""
        place = sobol_points(self._plan.seed, stream)[number]
        method = _chosen(self._plan.methods, place[0])
        return Drawn(
            pipeline=self._pipeline(method, float(place[1]), stream, number),
            full_length_tokens=_chosen(self._plan.full_lengths, place[2]),
            unique_level=float(place[3]),
            seed=_nth(self._plan.seeds, float(place[4])),
        )

    def _pipeline(self, method: str, quantile: float, stream: str, number: int) -> Pipeline:
        """Sample a pipeline, with its learning rate at a quantile of the range's logarithm."""
        if method not in self._spaces:
            ranges = self._ranges(method)
            self._spaces[method] = pipeline_space(self._model, Restrictions((method,), ranges=ranges))
        space = self._spaces[method]
        space.seed(int(stable_hash([self._plan.seed, stream, number], 7), 16))
        sampled = sample_pipelines(space, 1)[0]
        rate = space[f"{method}:learning_rate"]
        value = rate.lower * (rate.upper / rate.lower) ** quantile
        value = optimizer_rate(str(sampled.hyperparameters.get("optim", "")), value)
        return Pipeline(method, {**sampled.hyperparameters, "learning_rate": float(f"{value:.4g}")})

    def _ranges(self, method: str) -> dict[str, tuple[float, float]]:
        multiples = self._plan.learning_rates.get(method)
        if multiples is None:
            return {}
        low, high = (float(f"{adapter_rate(self._model) * multiple:.3g}") for multiple in multiples)
        return {"learning_rate": (low, high)}


@cache
def sobol_points(seed: int, stream: str) -> NDArray[np.float64]:
    """Return the points of a stream, shape (65,536, 5), in the unit cube; every prefix is well spread."""
    from scipy.stats import qmc

    generator = np.random.default_rng(int(stable_hash([seed, stream], 15), 16))
    points: NDArray[np.float64] = qmc.Sobol(DIMENSIONS, scramble=True, seed=generator).random_base2(16)
    return points


def _chosen(weights: Mapping[T, float], quantile: float) -> T:
    names = list(weights)
    ends = np.cumsum([weights[name] for name in names])
    return names[min(int(np.searchsorted(ends, quantile * ends[-1], side="right")), len(names) - 1)]


def _nth(values: Sequence[T], quantile: float) -> T:
    return values[min(int(quantile * len(values)), len(values) - 1)]
