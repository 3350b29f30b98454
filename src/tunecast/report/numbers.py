"""Numbers formatted for people: losses, intervals, durations, amounts, with their units."""

from __future__ import annotations

import math

MISSING = "—"
"""Shown in place of values that were not measured."""


def finite(value: float | None) -> float | None:
    """Return ``value``, or None if it is missing, infinite or NaN."""
    return value if value is not None and math.isfinite(value) else None


def decimal(value: float | None, digits: int = 3) -> str:
    """Format a loss or a metric with fixed decimals, or in words if it is not finite."""
    if value is None:
        return MISSING
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    return f"{value:.{digits}f}" if abs(value) < 1e6 else f"{value:.2e}"


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """Format both ends of an interval; empty if either is missing."""
    low, high = finite(low), finite(high)
    return "" if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"


def with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """Format a value, followed by its interval in brackets if there is one."""
    ends = interval(low, high)
    return f"{decimal(value)} ({ends})" if ends else decimal(value)


def rate(value: float | None) -> str:
    """Format a learning rate with up to three significant digits: ``2e-4``, ``3.75e-5``."""
    if value is None:
        return MISSING
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def significant(value: float, digits: int = 2) -> str:
    """Format a positive number with so many digits, or all before the point: ``0.25``, ``3,910``."""
    return f"{value:,.0f}" if value >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def compact(amount: float | None) -> str:
    """Format an amount with three significant digits and a suffix: ``950``, ``12.4k``, ``1.35M``."""
    if amount is None or not math.isfinite(amount):
        return MISSING
    amount = float(f"{amount:.3g}")  # rounded first, so that it decides the suffix
    for limit, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(amount) >= limit:
            return f"{amount / limit:.3g}{suffix}"
    return f"{amount:.3g}" if amount < 100 else f"{amount:.0f}"


def storage(amount: float | None) -> str:
    """Format bytes in decimal units: ``3.21 GB`` is 3.21 · 10^9 bytes."""
    if amount is None or not math.isfinite(amount):
        return MISSING
    amount = float(f"{amount:.3g}")
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if amount >= limit:
            return f"{amount / limit:.3g} {unit}"
    return f"{amount:.0f} bytes"


def duration(seconds: float | None) -> str:
    """Format a duration in its two largest units: ``4.2 s``, ``5 min 12 s``, ``2 h 5 min``, ``3 d 4 h``."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return _two_units(whole, 60, "min", 1, "s")
    if whole < 172_800:
        return _two_units(whole, 3600, "h", 60, "min")
    return _two_units(whole, 86_400, "d", 3600, "h")


def _two_units(whole: int, large: int, large_name: str, small: int, small_name: str) -> str:
    first, rest = divmod(whole, large)
    second = rest // small
    return f"{first} {large_name} {second} {small_name}" if second else f"{first} {large_name}"
