"""Surrogates: what earlier finetunings say of how a trial will end, what it takes, and whether it fails."""

from tunecast.predictor.features import Setting
from tunecast.predictor.memory import WorkerCapacity
from tunecast.predictor.prior import Prediction, Prior, load_prior, prior_at, read_prior, shipped_prior

__all__ = [
    "Prediction",
    "Prior",
    "Setting",
    "WorkerCapacity",
    "load_prior",
    "prior_at",
    "read_prior",
    "shipped_prior",
]
