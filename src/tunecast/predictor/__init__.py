"""The predictor: what earlier finetunings say of how a trial ends, what it takes, and whether it fails."""

from tunecast.predictor.features import Setting
from tunecast.predictor.memory import WorkerCapacity
from tunecast.predictor.prediction import Prediction
from tunecast.predictor.prior import (
    Prior,
    PriorPredictions,
    load_prior,
    prior_at,
    read_prior,
    shipped_prior,
)

__all__ = [
    "Prediction",
    "Prior",
    "PriorPredictions",
    "Setting",
    "WorkerCapacity",
    "load_prior",
    "prior_at",
    "read_prior",
    "shipped_prior",
]
