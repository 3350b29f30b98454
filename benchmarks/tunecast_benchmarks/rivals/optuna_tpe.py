"""Optuna's tree-structured Parzen estimator with its Hyperband pruner."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import optuna

from tunecast.records import Pipeline, Point, Scalar
from tunecast_benchmarks.rivals.base import MIN_SHARE, Proposal, Rival
from tunecast_benchmarks.rivals.space import CandidateSpace

RESOURCE = round(1 / MIN_SHARE)
"""Resource of a whole trial: 64 units, one for the first place of the fidelity grid."""


class OptunaTpe(Rival):
    """``TPESampler`` and ``HyperbandPruner`` through ask and tell, with their own defaults.

    Args:
        pipelines: The candidates.
        seed: Seed of the sampler.
        by_index: Whether it chooses among indices, as one categorical parameter.
    """

    version = f"optuna {optuna.__version__}"

    def __init__(self, pipelines: Sequence[Pipeline], seed: int, *, by_index: bool) -> None:
        super().__init__(pipelines, by_index=by_index)
        self._space = CandidateSpace(pipelines)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            study_name=f"replay-{seed}",  # the pruner draws brackets from this name
            sampler=optuna.samplers.TPESampler(seed=seed),
            pruner=optuna.pruners.HyperbandPruner(min_resource=1, max_resource=RESOURCE),
        )

    def _ask(self) -> Proposal:
        trial = self._study.ask()
        if self._by_index:
            index = trial.suggest_categorical("index", list(range(len(self._pipelines))))
            return Proposal(trial, index=int(index))
        method = str(trial.suggest_categorical("method", self._space.methods))
        values: dict[str, Scalar | None] = {}
        for axis in self._space.axes[method]:
            name = f"{method}:{axis.name}"
            if axis.choices:
                values[axis.name] = trial.suggest_categorical(name, axis.choices)
            else:
                values[axis.name] = trial.suggest_float(name, axis.low, axis.high, log=axis.log)
        return Proposal(trial, self._space.pipeline(method, values))

    def _tell(self, token: Any, loss: float | None, share: float) -> None:
        if loss is None or not math.isfinite(loss):
            # TPE ignores failed trials but learns from the worst possible value.
            loss = math.inf
        self._study.tell(token, loss)

    def _drop(self, token: Any, loss: float | None) -> None:
        self._study.tell(token, state=optuna.trial.TrialState.FAIL)

    def _go_on(self, token: Any, point: Point) -> bool:
        loss = point.validation.loss
        token.report(loss if math.isfinite(loss) else math.inf, max(1, round(point.share * RESOURCE)))
        if not token.should_prune():
            return True
        self._study.tell(token, state=optuna.trial.TrialState.PRUNED)
        return False
