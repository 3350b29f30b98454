"""The factors X of a joint law: which ones a table can tell apart, and which curves share its constants.

A joint law describes a *family*: curves that differ only in its X and, as a consequence, in the model's name.
In arXiv 2402.17193 a family is one task and one method. Factors that are not X must be equal within a family,
unless they vary together with an X: then no table of this design can tell the two apart, and the exponent
stands for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunecast.arrays import Floats, Ints
from tunecast.errors import ConfigurationError
from tunecast.scaling.table import FACTORS, Curve, LossTable

MIN_VALUES = 3
"""Values in one family from which a factor is an X without being named."""

CONFOUNDED = 0.95
"""Share of a factor's variance within families, in logarithms, that other factors may explain at most."""


@dataclass(frozen=True)
class JointFactors:
    """The X of a joint law in one table.

    Args:
        names: The X, in the order of :data:`~tunecast.scaling.table.FACTORS` or as named.
        together: For an X, further factors that vary together with it.
    """

    names: tuple[str, ...]
    together: tuple[tuple[str, str], ...] = ()

    @property
    def note(self) -> str:
        """What a reader of the exponents must know; empty if nothing."""
        return " ".join(
            f"{other} varies together with {name}, so alpha_{name} stands for both."
            for name, other in self.together
        )


def factor_names(names: Sequence[str]) -> tuple[str, ...]:
    """Check names of factors that a user gave.

    Raises:
        ConfigurationError: A name is not that of a factor, or it is there twice.
    """
    for name in names:
        if name not in FACTORS:
            raise ConfigurationError(
                f"There is no factor {name!r}.", f"The factors are {', '.join(FACTORS)}."
            )
    if len(set(names)) < len(names):
        raise ConfigurationError(f"A factor is named twice: {', '.join(names)}.")
    return tuple(names)


def joint_factors(table: LossTable) -> JointFactors | None:
    """Return the X of a joint law: the table's named factors, or all that it can tell apart.

    A factor that is not named needs three values in some family. None if the table has no factor.

    Raises:
        ConfigurationError: A named factor takes one value in every family, or two of them vary together.
    """
    return _named(table, table.factors) if table.factors else _all(table)


def families(curves: Sequence[Curve], factors: JointFactors) -> Ints:
    """Return the index of each curve's family, shape (curves,)."""
    keys = [_family_key(curve, factors) for curve in curves]
    order = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    return np.array([order[key] for key in keys], dtype=np.intp)


def factor_values(curves: Sequence[Curve], names: Sequence[str], family: Ints) -> Floats:
    """Return ln X, shape (curves, factors); NaN where it is unknown or the curve's family has one value."""
    known = np.array([[curve.factors.get(name, np.nan) for name in names] for curve in curves])
    values = np.log(known.reshape(len(curves), len(names)))
    for index in range(int(family.max()) + 1):
        members = family == index
        constant = np.ptp(values[members], axis=0) == 0
        values[np.ix_(members, constant)] = np.nan
    return values


def _family_key(curve: Curve, factors: JointFactors) -> tuple[object, ...]:
    free = {*factors.names, *(other for _, other in factors.together)}
    unused = {"model"}
    if "recipe" in curve.labels:  # the pipeline without what follows from the model and the PEFT size
        unused |= {"pipeline", "peft_size"} if "peft_parameters" in free else {"pipeline"}
        free.add("peft_parameters")
    labels = tuple(sorted((name, value) for name, value in curve.labels.items() if name not in unused))
    fixed = tuple(curve.factors.get(name) for name in FACTORS if name not in free)
    return (labels, fixed, *(name in curve.factors for name in factors.names))


def _all(table: LossTable) -> JointFactors | None:
    chosen: list[str] = []
    together: list[tuple[str, str]] = []
    candidates = JointFactors(tuple(name for name in FACTORS if any(name in c.factors for c in table.curves)))
    family = families(table.curves, candidates)
    for name in candidates.names:
        if _most_values(table.curves, name, family) >= MIN_VALUES:
            rival = _confounded_with(table.curves, [*chosen, name], family)
            if rival is None:
                chosen.append(name)
            else:
                together.append((rival, name))
    return JointFactors(tuple(chosen), tuple(together)) if chosen else None


def _named(table: LossTable, names: tuple[str, ...]) -> JointFactors:
    others = [other for other in FACTORS if other not in names]
    together = tuple((names[0], other) for other in others if not _can_be_fixed(table, names, other, others))
    factors = JointFactors(names, together)
    family = families(table.curves, factors)
    for name in names:
        if _most_values(table.curves, name, family) < 2:
            raise ConfigurationError(
                f"{name} takes one value in {table.source} where all else is equal.",
                "Measure it at two or more values, or name another --factor.",
            )
    rival = _confounded_with(table.curves, list(names), family)
    if rival is not None:
        raise ConfigurationError(
            f"{names[-1]} and {rival} vary together in {table.source}: no fit can tell them apart.",
            "Name one of them with --factor; its exponent then stands for both.",
        )
    return factors


def _can_be_fixed(table: LossTable, names: tuple[str, ...], other: str, others: list[str]) -> bool:
    """Whether the named factors still vary within families of one value of another factor."""
    free = tuple((names[0], name) for name in others if name != other)
    family = families(table.curves, JointFactors(names, free))
    return all(_most_values(table.curves, name, family) >= 2 for name in names)


def _most_values(curves: Sequence[Curve], name: str, family: Ints) -> int:
    """Return the largest number of values of a factor in one family."""
    values: dict[int, set[float]] = {}
    for curve, of in zip(curves, family, strict=True):
        if name in curve.factors:
            values.setdefault(int(of), set()).add(curve.factors[name])
    return max((len(found) for found in values.values()), default=0)


def _confounded_with(curves: Sequence[Curve], names: list[str], family: Ints) -> str | None:
    """Return the factor that explains the last of ``names`` within families, if the others do."""
    values = factor_values(curves, names, family)
    centred = np.nan_to_num(values)
    for index in range(int(family.max()) + 1):
        members = family == index
        centred[members] -= centred[members].mean(axis=0)
    others, last = centred[:, :-1], centred[:, -1]
    if not others.any() or not last.any():
        return None
    left = last - others @ np.linalg.lstsq(others, last, rcond=None)[0]
    if 1 - (left @ left) / (last @ last) <= CONFOUNDED:
        return None
    return names[int(np.argmax(np.abs(others.T @ last) / np.linalg.norm(others, axis=0).clip(1e-12)))]
