"""Surrogates: what earlier finetunings say of how a trial will end, what it takes, and whether it fails."""

from tunecast.surrogates.features import Setting
from tunecast.surrogates.memory import Room
from tunecast.surrogates.prior import Prediction, Prior, load_prior, prior_at, read_prior, shipped_prior

__all__ = [
    "Prediction",
    "Prior",
    "Room",
    "Setting",
    "load_prior",
    "prior_at",
    "read_prior",
    "shipped_prior",
]
