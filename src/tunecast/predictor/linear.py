"""A line in features, and how one is learned beside effects that predictions leave out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tunecast.predictor.regressors.base import Arrays, Scaling
from tunecast.predictor.task_groups import task_group
from tunecast.records import Run, device_kind

if TYPE_CHECKING:
    from numpy.typing import NDArray

PENALTY = 10.0
FEWEST_RUNS = 10


@dataclass(frozen=True)
class Line:
    """A linear function of scaled features.

    Args:
        scaling: Of the features.
        weights: Shape (1 + features,), the constant first.
    """

    scaling: Scaling
    weights: NDArray[np.float64]

    def __call__(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values, shape (rows,), of features of shape (rows, features)."""
        return np.asarray(self.weights[0] + self.scaling(features) @ self.weights[1:])

    def arrays(self) -> Arrays:
        """Scaling and weights."""
        return {"mean": self.scaling.mean, "stretch": self.scaling.stretch, "weights": self.weights}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Line:
        """Put together what :meth:`arrays` took apart."""
        found = {name: np.asarray(values, float) for name, values in arrays.items()}
        return cls(Scaling(found["mean"], found["stretch"]), found["weights"])


def fit_line(
    features: NDArray[np.float64],
    nuisance: NDArray[np.float64],
    target: NDArray[np.float64],
    groups: NDArray[np.int64],
    weight: NDArray[np.float64] | None = None,
) -> tuple[Line, float]:
    """Learn a line by ridge regression, with effects that are told apart from it and then dropped.

    Args:
        features: Shape (rows, features).
        nuisance: Columns of these effects, 0 where a prediction is to hold; shape (rows, effects).
        target: What to learn, shape (rows,).
        groups: Numbers of groups that are left out whole, at least two; shape (rows,).
        weight: What rows count for, shape (rows,); None for all alike.

    Returns:
        The line, and the root mean square of what it misses where groups are left out, effects known.
    """
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

    scaling = Scaling.of(features)
    columns = np.concatenate([scaling(features), nuisance], axis=1)
    ridge = Ridge(PENALTY)
    told = {"sample_weight": np.ones(len(target)) if weight is None else weight}
    expected = cross_val_predict(ridge, columns, target, groups=groups, cv=LeaveOneGroupOut(), params=told)
    found = ridge.fit(columns, target, **told)
    line = Line(scaling, np.array([found.intercept_, *found.coef_[: features.shape[1]]]))
    return line, float(np.sqrt(((target - expected) ** 2).mean()))


def by_device(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by the kind of their device, in the order of its name; those of which it is not known are left
    out.
    """
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(device_kind(run.machine.device), []).append(run)
    return {kind: found[kind] for kind in sorted(found) if kind}


def families_of(runs: Sequence[Run]) -> NDArray[np.int64]:
    """Numbers of the families of the runs' datasets, which are left out whole; shape (runs,)."""
    called = {run.dataset.identity: run.task.dataset for run in runs}
    family_of = dict(zip(called, task_group(list(called.values())).tolist(), strict=True))
    return np.array([family_of[run.dataset.identity] for run in runs], dtype=np.int64)


def is_enough(runs: Sequence[Run]) -> bool:
    """Whether runs suffice to learn a line and to leave a family of datasets out of them."""
    return len(runs) >= FEWEST_RUNS and len(np.unique(families_of(runs))) > 1
