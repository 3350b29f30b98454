"""Serves Quick-Tune-Tool by JSON lines in the package's own environment; Tunecast never imports it.

It reads one request per line from the standard input and answers each with one line. ``fit`` meta-trains both
surrogates and keeps them, ``open`` begins a search on a table of candidates, ``ask`` and ``tell`` are its
optimiser's own, and ``score`` times its performance surrogate. Surrogates and acquisition are those of the
package, version 0.0.4. Their settings are the package's too, except those in :data:`LONGER`.

It works around these faults of the package:

- it imports torchvision for helpers that read images: an empty module takes its place if it is missing;
- its loaders start four processes per epoch, which takes longer than the epoch: here they start none;
- fitting costs divides by zero while logging if there are fewer than ten batches;
- its cost surrogate answers in the standardised units of its training; the optimiser clips them at 1e-6 and
divides by them, so it hardly ever chooses a pipeline above the mean cost: here costs are in seconds again;
- it ends a search once every candidate was tried once: here it goes on while a candidate is unfinished.
"""

# ruff: noqa: E402 - torchvision has to be replaced before the package is imported

from __future__ import annotations

import contextlib
import json
import os
import pickle
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any


def _without_vision() -> None:
    """Put an empty module in place of torchvision; only a name is imported from it."""
    if find_spec("torchvision") is None:
        vision, datasets = types.ModuleType("torchvision"), types.ModuleType("torchvision.datasets")
        datasets.__dict__["ImageFolder"] = object
        sys.modules.update({"torchvision": vision, "torchvision.datasets": datasets})


_without_vision()

import numpy as np
import pandas as pd
from ConfigSpace import ConfigurationSpace
from qtt.optimizers import QuickOptimizer
from qtt.predictors import CostPredictor, PerfPredictor, cost, perf
from torch.utils.data import DataLoader

OWN_BATCH_SIZE = 2048
MIN_BATCH_SIZE = 64
UPDATES_PER_EPOCH = 16
LONGER = {"early_stop": False, "patience": None, "learning_rate_init": 0.005}
"""Fit parameters of the performance surrogate that are not the package's own. With the package's own, it
stops early on some hundred runs, while its noise is still a multiple of all differences, and predicts a
constant."""


class _Logger(cost.MetricLogger):
    """The package's logger, fixed for fewer than ten batches."""

    def log_every(self, iterable: Any, print_freq: int, *others: Any) -> Iterator[Any]:
        return super().log_every(iterable, max(1, print_freq), *others)


class _Cost(CostPredictor):
    """The package's cost surrogate, with answers in the units of its training targets."""

    def _predict(self, **options: Any) -> Any:
        standardised = np.reshape(super()._predict(**options), (-1, 1))
        return self.label_scaler.inverse_transform(standardised)[:, 0]


def _loader(*arguments: Any, **options: Any) -> Any:
    return DataLoader(*arguments, **{**options, "num_workers": 0})


perf.DataLoader = _loader
cost.MetricLogger = _Logger


def _batch_size(points: int) -> int:
    """Points of a batch: the package's own 2,048 if that leaves sixteen updates per epoch, else fewer.

    With its own size on a small meta-dataset, every epoch is a single update, and a hundred updates leave it
    untrained.
    """
    fewer = 2 ** int(np.log2(max(1, points // UPDATES_PER_EPOCH)))
    return min(OWN_BATCH_SIZE, max(MIN_BATCH_SIZE, fewer))


class _Search:
    """One search on a table of candidates.

    Args:
        optimizer: The package's optimiser, set up.
    """

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self.asked: set[int] = set()

    def ask(self) -> dict[str, Any]:
        """The candidate and the fidelity that the acquisition chooses; None if no candidate is left."""
        own = self.optimizer
        waiting = self.asked - own.failed
        left = set(range(own.N)) - own.failed - own.stoped - waiting
        if not left:
            return {"index": None}
        if not left - own.evaled:
            own.init_random_search_steps = 0  # no new candidate is left
        own.finished = False
        own.failed |= waiting  # the package asks for one trial at a time and has no other way to wait
        try:
            found = own.ask()
        finally:
            own.failed -= waiting
        self.asked.add(int(found["config-id"]))
        return {"index": int(found["config-id"]), "fidelity": int(found["fidelity"])}

    def tell(self, index: int, first: int, last: int, score: float | None) -> dict[str, Any]:
        """Tell a candidate's scores at fidelities from the first to the last, None for a failure."""
        self.asked.discard(index)
        for fidelity in range(first, last + 1) if score is not None else (first,):
            told = {"config-id": index, "fidelity": fidelity, "score": score, "status": score is not None}
            self.optimizer.tell(told)
        return {}

    def drop(self, index: int) -> dict[str, Any]:
        """Forget the request for a candidate."""
        self.asked.discard(index)
        return {}


class Server:
    """The requests; every public method answers the request of its name."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="quicktunetool-")
        self.searches: list[_Search] = []

    def fit(
        self, columns: list[str], rows: list[list[float]], curves: list[list[float | None]],
        seconds: list[float | None], seed: int, kept: str,
    ) -> dict[str, Any]:  # fmt: skip
        """Meta-train the surrogates; a curve is None where it was not measured.

        The surrogates are kept in a file, and read from it if they were trained before.
        """
        started = time.perf_counter()
        self.columns, self.fidelities = columns, len(curves[0])
        if not self._found(kept):
            self._train(pd.DataFrame(rows, columns=columns), curves, seconds, seed)
            self._keep(kept)
        return {"seconds": time.perf_counter() - started, **self.performance.fit_params}

    def _train(
        self, table: Any, curves: list[list[float | None]], seconds: list[float | None], seed: int
    ) -> None:
        measured = sum(score is not None for curve in curves for score in curve)
        options = {**LONGER, "batch_size": _batch_size(measured)}
        self.performance = PerfPredictor(options, path=self._path("performance"), seed=seed, verbosity=0)
        # Copies: the package drops columns of one value in place.
        self.performance.fit(table.copy(), np.array(curves, dtype=float))
        spent = np.array(seconds, dtype=float)
        known = np.isfinite(spent)
        self.cost = _Cost(path=self._path("cost"), seed=seed, verbosity=0)
        self.cost.fit(table[known].reset_index(drop=True), spent[known, None])

    def _found(self, kept: str) -> bool:
        try:
            with open(kept, "rb") as file:
                self.performance, self.cost = pickle.load(file)
        except (OSError, EOFError, pickle.UnpicklingError):  # missing, or cut off while it was written
            return False
        return True

    def _keep(self, kept: str) -> None:
        with contextlib.suppress(OSError):  # it is trained again next time
            os.makedirs(os.path.dirname(kept), exist_ok=True)
            unfinished = f"{kept}.{os.getpid()}"
            with open(unfinished, "wb") as file:
                pickle.dump((self.performance, self.cost), file)
            os.replace(unfinished, kept)

    def open(self, rows: list[list[float]], seed: int, cost_aware: bool) -> dict[str, Any]:
        """Begin a search; the answer is its number."""
        optimizer = QuickOptimizer(
            ConfigurationSpace(), self.fidelities, self.performance, self.cost if cost_aware else None,
            cost_aware=cost_aware, path=self._path("optimizer"), seed=seed, verbosity=0,
        )  # fmt: skip
        optimizer.setup_pandas(pd.DataFrame(rows, columns=self.columns))
        self.searches.append(_Search(optimizer))
        return {"search": len(self.searches) - 1}

    def ask(self, search: int) -> dict[str, Any]:
        """See :meth:`_Search.ask`."""
        return self.searches[search].ask()

    def tell(self, search: int, **told: Any) -> dict[str, Any]:
        """See :meth:`_Search.tell`."""
        return self.searches[search].tell(**told)

    def drop(self, search: int, index: int) -> dict[str, Any]:
        """See :meth:`_Search.drop`."""
        return self.searches[search].drop(index)

    def score(self, search: int) -> dict[str, Any]:
        """Milliseconds that the performance surrogate takes for all candidates of a search."""
        own = self.searches[search].optimizer
        started, working = time.perf_counter(), time.process_time()
        self.performance.predict(X=own.pipelines, curve=own.curves)
        wall, busy = time.perf_counter() - started, time.process_time() - working
        return {"milliseconds": 1e3 * wall, "busy_milliseconds": 1e3 * busy}

    def _path(self, name: str) -> str:
        return tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder)


def main() -> None:
    """Answer requests until the standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever the package prints must not look like an answer
    server = Server()
    ready = {"version": f"quicktunetool {version('quicktunetool')}"}
    print(json.dumps(ready), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(server, request.pop("do"))(**request)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
