"""DEHB by its authors' package: differential evolution with Hyperband (Awad et al., arXiv 2105.09821)."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from dehb import DEHB

from tunecast.records import Pipeline
from tunecast_benchmarks.rivals.base import MIN_SHARE, Proposal, Rival
from tunecast_benchmarks.rivals.space import CandidateSpace

WORST = 1e6
"""Loss of a failure in nats; the package accepts no infinite fitness."""


class DehbPackage(Rival):
    """``dehb.DEHB`` through ask and tell, with its own defaults, on vectors of the unit cube.

    A pipeline is a vector: the method's place, then every method's axes. The axes of other methods have no
    effect. Fidelities are shares of the full length, from 1/64 to 1.

    Args:
        pipelines: The candidates.
        seed: Seed of the package.
        by_index: Whether it chooses among indices along one dimension. Candidates of one method are adjacent
            in the order of their learning rates; in any other order, neighbours would have nothing in common.
    """

    version = f"dehb {version('dehb')}"

    def __init__(self, pipelines: Sequence[Pipeline], seed: int, *, by_index: bool) -> None:
        super().__init__(pipelines, by_index=by_index)
        self._space = CandidateSpace(pipelines)
        self._in_order = sorted(range(len(pipelines)), key=lambda index: _method_and_rate(pipelines[index]))
        self._worst_measured: float | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="tunecast-dehb-")
        self._dehb = DEHB(
            f=None,
            cs=None,
            dimensions=1 if by_index else self._space.dimensions,
            min_fidelity=MIN_SHARE,
            max_fidelity=1.0,
            n_workers=1,
            seed=seed,
            save_freq="end",
            output_path=self._folder.name,
            log_level="ERROR",
        )

    def _ask(self) -> Proposal:
        job = self._dehb.ask()
        vector, share = [float(place) for place in job["config"]], float(job["fidelity"])
        if self._by_index:
            count = len(self._pipelines)
            return Proposal(job, index=self._in_order[min(int(vector[0] * count), count - 1)], share=share)
        return Proposal(job, self._space.from_vector(vector), share=share)

    def _tell(self, token: Any, loss: float | None, share: float) -> None:
        fitness = WORST
        if loss is not None and math.isfinite(loss):
            fitness = loss
            self._worst_measured = max(loss, self._worst_measured or loss)
        self._end(token, fitness)

    def _drop(self, token: Any, loss: float | None) -> None:
        # The package can end a job only by its fitness. If every candidate of a method was tried, maybe
        # because it is the best method, a failure's fitness would mark the method as a catastrophe.
        if loss is None:
            loss = self._worst_measured
        self._end(token, loss if loss is not None and math.isfinite(loss) else WORST)

    def _end(self, token: Any, fitness: float) -> None:
        self._dehb.tell(token, {"fitness": fitness, "cost": float(token["fidelity"])})


def _method_and_rate(pipeline: Pipeline) -> tuple[str, float]:
    return pipeline.method, pipeline.number("learning_rate")
