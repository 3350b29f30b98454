"""The space spanned by recorded pipelines, for libraries that propose freely in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tunecast.records import Pipeline, Scalar

DISTINCT = 6
"""A hyperparameter with more different numbers than this is a range, otherwise categories."""
LOGARITHMIC = 10.0
"""A range that spans this factor or more is searched by its logarithm."""


@dataclass(frozen=True)
class Axis:
    """A hyperparameter of one method: a range of numbers, or categories.

    Args:
        name: The hyperparameter.
        low: Lower end of a range.
        high: Upper end of a range.
        log: Whether the range is searched by its logarithm.
        choices: The categories; None as a category leaves the hyperparameter out. Empty for a range.
    """

    name: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Scalar | None, ...] = ()

    def at(self, place: float) -> Scalar | None:
        """The value at a place between 0 and 1."""
        if self.choices:
            return self.choices[min(int(place * len(self.choices)), len(self.choices) - 1)]
        if self.log:
            return self.low * (self.high / self.low) ** place
        return self.low + (self.high - self.low) * place


class CandidateSpace:
    """The methods of some pipelines, and for each method the axes along which its pipelines differ.

    Args:
        pipelines: The candidates.
    """

    def __init__(self, pipelines: Sequence[Pipeline]) -> None:
        self.methods = tuple(sorted({pipeline.method for pipeline in pipelines}))
        self._constants: dict[str, dict[str, Scalar]] = {}
        self.axes: dict[str, tuple[Axis, ...]] = {}
        for method in self.methods:
            own = [pipeline for pipeline in pipelines if pipeline.method == method]
            names = sorted({name for pipeline in own for name in pipeline.hyperparameters})
            axes = [_axis(name, [pipeline.hyperparameters.get(name) for pipeline in own]) for name in names]
            self._constants[method] = {
                axis.name: axis.choices[0]
                for axis in axes
                if len(axis.choices) == 1 and axis.choices[0] is not None
            }
            self.axes[method] = tuple(axis for axis in axes if len(axis.choices) != 1)

    @property
    def dimensions(self) -> int:
        """Length of a pipeline's vector."""
        return 1 + sum(len(axes) for axes in self.axes.values())

    def pipeline(self, method: str, values: dict[str, Scalar | None]) -> Pipeline:
        """A pipeline from the values along a method's axes."""
        given = {name: value for name, value in values.items() if value is not None}
        return Pipeline(method, {**self._constants[method], **given})

    def from_vector(self, vector: Sequence[float]) -> Pipeline:
        """A pipeline from a vector of numbers between 0 and 1: the method, then every method's axes."""
        method = self.methods[min(int(vector[0] * len(self.methods)), len(self.methods) - 1)]
        start = 1
        for other in self.methods[: self.methods.index(method)]:
            start += len(self.axes[other])
        own = self.axes[method]
        return self.pipeline(method, {axis.name: axis.at(vector[start + i]) for i, axis in enumerate(own)})


def _axis(name: str, values: Sequence[Scalar | None]) -> Axis:
    distinct = set(values)
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values) and len(distinct) > DISTINCT and all(map(math.isfinite, numbers)):
        low, high = float(min(numbers)), float(max(numbers))
        return Axis(name, low, high, log=low > 0 and high / low >= LOGARITHMIC)
    return Axis(name, choices=tuple(sorted(distinct, key=_category_order)))


def _category_order(value: Scalar | None) -> tuple[bool, float, str]:
    """Sort key: numbers by size, then words, then None."""
    number = float(value) if isinstance(value, int | float) else math.inf
    return value is None, number, str(value)
