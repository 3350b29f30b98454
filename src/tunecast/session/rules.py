"""Rules by which a session, and a replay of one, spends its budget."""

from __future__ import annotations

__all__ = ["EARLY_SHARE", "MOST_PASSED_OVER"]

EARLY_SHARE = 0.25
"""Up to this share of the full length a trial is a probe; beyond it is meant to be brought to its end."""
MOST_PASSED_OVER = 8
"""Candidates that a strategy may name in vain before the rest of the budget counts as too small for any."""
