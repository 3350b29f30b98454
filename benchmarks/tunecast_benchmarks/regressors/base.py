"""The interface of a family of regressors: one class fits, the other predicts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

from tunecast.arrays import Floats
from tunecast.predictor.examples import Examples
from tunecast.predictor.named_arrays import Arrays


class Fitted(Protocol):
    """A fitted regressor."""

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """Predict mean and positive variance of the target, each of shape (rows,)."""


class Regressor(ABC):
    """A fitted regressor that is made of ``arrays``: everything that was learned, by name."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = dict(arrays)

    @abstractmethod
    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """See :class:`Fitted`."""


class Family(ABC):
    """A family of regressors, which fits them to examples."""

    name: ClassVar[str]

    @abstractmethod
    def fit(self, examples: Examples, seed: int) -> Fitted:
        """Fit a regressor to at least one row."""
