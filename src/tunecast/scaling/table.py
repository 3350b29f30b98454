"""A table of end points, to which laws are fitted.

Only losses at the end of complete learning-rate schedules belong here, because points in the middle of a
schedule follow another curve. Sizes are numbers of unique training examples. Losses are in nats per token, or
any positive loss that falls towards a floor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tunecast.arrays import Floats
from tunecast.errors import DataError

FACTORS = ("model_parameters", "pretraining_tokens", "peft_parameters")
"""Numeric descriptors that can be the factor X of a joint law, in order of preference."""

LABELS = ("model", "method", "task", "pipeline")
"""Descriptors that are names. Tables from stores have ``recipe`` and ``peft_size`` too, see :mod:`stored`."""

Group = Mapping[str, str | float]


@dataclass(frozen=True)
class LossRow:
    """One measured end point with its descriptors; ``data_size`` 0 is the model before finetuning.

    ``seconds`` are those of its training, None if unknown; ``metric`` is the score in the table's metric.
    """

    loss: float
    data_size: float
    labels: Mapping[str, str] = field(default_factory=dict)
    factors: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    metric: float | None = None


@dataclass(frozen=True, eq=False)
class Curve:
    """The end points of one setting (model, method, task, ...), smallest size first.

    Args:
        group: Descriptors that distinguish this curve from the others of its table.
        factors: All its numeric descriptors.
        data_sizes: Unique examples, ascending, above 0; a size measured with several seeds is repeated.
        losses: The loss at each size, same shape.
        zero_shot: The loss at size 0, None if not measured. Never a fitted point.
        seconds_per_example: Median over its runs of seconds by unique example, None if unknown.
        metrics: The table's metric at each size, NaN if unknown, same shape; empty in a table without one.
    """

    group: Group
    labels: Mapping[str, str]
    factors: Mapping[str, float]
    data_sizes: Floats
    losses: Floats
    zero_shot: float | None = None
    seconds_per_example: float | None = None
    metrics: Floats = field(default_factory=lambda: np.zeros(0))

    @property
    def name(self) -> str:
        """The group as one short text."""
        return group_name(self.group)

    @property
    def distinct_sizes(self) -> int:
        """Number of different sizes that were measured."""
        return len(np.unique(self.data_sizes))

    def up_to(self, data_size: float) -> Curve:
        """Return the curve without the points above ``data_size``."""
        keep = self.data_sizes <= data_size
        metrics = self.metrics[keep] if self.metrics.size else self.metrics
        return replace(self, data_sizes=self.data_sizes[keep], losses=self.losses[keep], metrics=metrics)


@dataclass(frozen=True, eq=False)
class LossTable:
    """Curves to fit together, and their source for messages.

    Args:
        factors: The X of joint laws; if empty, all that the table can tell apart.
        signed: Whether the exponents of X may be negative.
        metric: Name of the metric that the curves have beside the loss, empty if none was asked for.
    """

    curves: tuple[Curve, ...]
    source: str = "table"
    factors: tuple[str, ...] = ()
    signed: bool = False
    metric: str = ""

    def up_to(self, data_size: float) -> LossTable:
        """Return the table without the points above ``data_size`` and without curves that have no other."""
        curves = (curve.up_to(data_size) for curve in self.curves)
        return replace(self, curves=tuple(curve for curve in curves if curve.data_sizes.size))

    def without_zero_shot(self) -> LossTable:
        """Return the table without the losses before finetuning."""
        return replace(self, curves=tuple(replace(curve, zero_shot=None) for curve in self.curves))

    def pools(self) -> tuple[LossTable, ...]:
        """Return the table split by task, because losses of different tasks share no structure."""
        tasks = dict.fromkeys(curve.labels.get("task", "") for curve in self.curves)
        return tuple(
            replace(self, curves=tuple(c for c in self.curves if c.labels.get("task", "") == task))
            for task in tasks
        )

    @property
    def largest_size(self) -> float:
        """The largest data size of any curve."""
        return max(float(curve.data_sizes[-1]) for curve in self.curves)

    def varying_factors(self) -> tuple[str, ...]:
        """Return the factors that every curve has and that differ between curves."""
        return tuple(
            name
            for name in FACTORS
            if all(name in curve.factors for curve in self.curves)
            and len({curve.factors[name] for curve in self.curves}) > 1
        )


def group_name(group: Group) -> str:
    """Return a curve's group as one short text."""
    values = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in group.values())
    return ", ".join(values) or "all"


def build_table(rows: Iterable[LossRow], by: Sequence[str] = (), source: str = "table") -> LossTable:
    """Group rows into curves.

    Rows that agree in *every* descriptor form a curve. Its ``group`` shows the columns in ``by`` and, if
    several curves have the same values there, further descriptors that distinguish them. Without ``by`` the
    group shows the descriptors that vary.

    Raises:
        DataError: No row is above size 0, or no row has one of the columns in ``by``.
    """
    by_key: dict[tuple[tuple[str, str | float], ...], list[LossRow]] = {}
    for row in rows:
        described: dict[str, str | float] = {**row.labels, **row.factors}
        key = tuple(sorted(described.items(), key=lambda item: item[0]))
        by_key.setdefault(key, []).append(row)
    members = {key: group for key, group in by_key.items() if any(row.data_size > 0 for row in group)}
    if not members:
        raise DataError(f"{source} has no row with data_size above 0.", "Measure at least three data sizes.")
    descriptors = [dict(key) for key in members]
    for column in by:
        if not any(column in descriptor for descriptor in descriptors):
            hint = f"Its descriptors are {_names(descriptors)}."
            raise DataError(f"{source} has no column {column!r} to group by.", hint)
    groups = _groups(descriptors, tuple(by))
    curves = tuple(_curve(group, rows) for group, rows in zip(groups, members.values(), strict=True))
    return LossTable(curves, source)


def table_of_points(
    data_sizes: Sequence[float], losses: Sequence[float], source: str = "points"
) -> LossTable:
    """Build a table of a single curve, such as one pipeline measured on parts of its dataset."""
    return build_table(
        [LossRow(loss, size) for size, loss in zip(data_sizes, losses, strict=True)], source=source
    )


def _curve(group: Group, rows: Sequence[LossRow]) -> Curve:
    measured = sorted((row for row in rows if row.data_size > 0), key=lambda row: row.data_size)
    zero = [row.loss for row in rows if row.data_size == 0]
    paces = [row.seconds / row.data_size for row in measured if row.seconds is not None]
    return Curve(
        group,
        dict(rows[0].labels),
        dict(rows[0].factors),
        np.array([row.data_size for row in measured], dtype=np.float64),
        np.array([row.loss for row in measured], dtype=np.float64),
        float(np.mean(zero)) if zero else None,
        float(np.median(paces)) if paces else None,
        np.array([np.nan if row.metric is None else row.metric for row in measured], dtype=np.float64),
    )


def _groups(descriptors: list[dict[str, str | float]], by: tuple[str, ...]) -> list[Group]:
    """Group by the columns in ``by``, then by one further column after another until all curves differ."""
    shown = list(by)
    columns = [column for column in (*LABELS, *FACTORS) if column not in shown]
    columns += sorted({column for descriptor in descriptors for column in descriptor} - {*columns, *shown})
    for column in columns:
        if len({_values(descriptor, shown) for descriptor in descriptors}) == len(descriptors):
            break
        finer = [*shown, column]
        if len({_values(d, finer) for d in descriptors}) > len({_values(d, shown) for d in descriptors}):
            shown = finer
    return [{column: d[column] for column in shown if column in d} for d in descriptors]


def _values(descriptor: Mapping[str, str | float], columns: Sequence[str]) -> tuple[str | float | None, ...]:
    return tuple(descriptor.get(column) for column in columns)


def _names(descriptors: list[dict[str, str | float]]) -> str:
    return ", ".join(sorted({column for descriptor in descriptors for column in descriptor})) or "none"
