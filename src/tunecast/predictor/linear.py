"""Linear models, fitted beside effects that predictions leave out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunecast.arrays import Floats, Ints
from tunecast.predictor.named_arrays import Arrays
from tunecast.predictor.scaling import Scaling
from tunecast.predictor.task_groups import task_group
from tunecast.records import Run, device_kind

PENALTY = 10.0
MIN_RUNS = 10


@dataclass(frozen=True)
class Line:
    """A linear function of scaled features; ``weights`` have shape (1 + features,), the constant first."""

    scaling: Scaling
    weights: Floats

    def __call__(self, features: Floats) -> Floats:
        """Return values, shape (rows,), for features of shape (rows, features)."""
        return np.asarray(self.weights[0] + self.scaling(features) @ self.weights[1:])

    def arrays(self) -> Arrays:
        """Return scaling and weights as arrays."""
        return {**vars(self.scaling), "weights": self.weights}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Line:
        """Rebuild a line from the result of :meth:`arrays`."""
        return cls(Scaling.from_arrays(arrays), np.asarray(arrays["weights"], float))


def fit_line(
    features: Floats, nuisance: Floats, target: Floats, groups: Ints, weight: Floats | None = None
) -> tuple[Line, float]:
    """Fit a line by ridge regression, together with effects that are dropped afterwards.

    Args:
        features: Shape (rows, features).
        nuisance: Columns of the effects to drop, 0 where a prediction applies; shape (rows, effects).
        target: Shape (rows,).
        groups: Group numbers for cross-validation, at least two groups; shape (rows,).
        weight: Weight of each row, shape (rows,); None for equal weights.

    Returns:
        The line, and the root mean square of its errors on held-out groups, given the effects.
    """
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

    scaling = Scaling.of(features)
    columns = np.concatenate([scaling(features), nuisance], axis=1)
    ridge = Ridge(PENALTY)
    weights = {"sample_weight": np.ones(len(target)) if weight is None else weight}
    expected = cross_val_predict(ridge, columns, target, groups=groups, cv=LeaveOneGroupOut(), params=weights)
    found = ridge.fit(columns, target, **weights)
    line = Line(scaling, np.array([found.intercept_, *found.coef_[: features.shape[1]]]))
    return line, float(np.sqrt(((target - expected) ** 2).mean()))


def by_device(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Group runs by the kind of their device, sorted by name.

    Runs of an unknown device are left out, and those that were spread over several.
    """
    found: dict[str, list[Run]] = {}
    for run in runs:
        if run.devices > 1:
            continue
        found.setdefault(device_kind(run.machine.device), []).append(run)
    return {kind: found[kind] for kind in sorted(found) if kind}


def families_of(runs: Sequence[Run]) -> Ints:
    """Return group numbers by the families of the runs' datasets, shape (runs,)."""
    called = {run.dataset.identity: run.task.dataset for run in runs}
    family_of = dict(zip(called, task_group(list(called.values())).tolist(), strict=True))
    return np.array([family_of[run.dataset.identity] for run in runs], dtype=np.int64)


def is_enough(runs: Sequence[Run]) -> bool:
    """Return whether there are enough runs to fit a line and to hold a family of datasets out."""
    return len(runs) >= MIN_RUNS and len(np.unique(families_of(runs))) > 1
