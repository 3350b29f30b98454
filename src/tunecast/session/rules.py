"""Rules by which a session, and a replay of one, spends its budget."""

from __future__ import annotations

from tunecast.search import rung

__all__ = ["MOST_PASSED_OVER", "is_probe"]

PROBE_RUNG = -2
"""A quarter of the full length."""
MOST_PASSED_OVER = 8
"""Candidates that a strategy may name in vain before the rest of the budget counts as too small for any."""


def is_probe(share: float) -> bool:
    """Whether a trial that goes on to a share of the full length is only tried out; beyond a quarter it is
    meant to be brought to its end.

    Points lie at the first step that reaches their share, hence hardly ever at a quarter exactly.
    """
    return rung(share) <= PROBE_RUNG
