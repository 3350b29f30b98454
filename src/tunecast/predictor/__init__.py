"""The predictor: a trial's final loss, costs and chance of failure, learned from earlier finetunings."""

from tunecast.predictor.memory import WorkerCapacity
from tunecast.predictor.prediction import Prediction
from tunecast.predictor.prior import Prior, load_prior, prior_at, read_prior, shipped_prior
from tunecast.predictor.task import TaskDescription

__all__ = [
    "Prediction",
    "Prior",
    "TaskDescription",
    "WorkerCapacity",
    "load_prior",
    "prior_at",
    "read_prior",
    "shipped_prior",
]
