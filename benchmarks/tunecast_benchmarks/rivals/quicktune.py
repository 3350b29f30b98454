"""Runs the authors' package of Quick-Tune-Tool (Rapant et al., AutoML 2024 workshop) in its own process.

The package requires older libraries than Tunecast, so it has an environment of its own. :data:`INTERPRETER`
names the environment's interpreter; ``benchmarks/quicktunetool/install.sh`` makes one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunecast.cache import cache_folder
from tunecast.errors import ConfigurationError
from tunecast.predictor import TaskDescription
from tunecast.predictor.examples import ZeroShotLosses
from tunecast.predictor.features import CURVE, FEATURES, feature_rows
from tunecast.records import Pipeline, Run
from tunecast.search import Context
from tunecast.search.history import rung
from tunecast_benchmarks.rivals.base import MIN_SHARE, Proposal, Rival

INTERPRETER = "TUNECAST_QUICKTUNE_PYTHON"
"""Environment variable with the interpreter of an environment in which ``quicktunetool`` is installed."""
SERVER = Path(__file__).with_name("quicktune_server.py")
FIDELITIES = 1 - rung(MIN_SHARE)
COLUMNS = FEATURES[: len(FEATURES) - len(CURVE)]
"""Its surrogates' features of a pipeline on a task: those of Tunecast's own surrogates, all numbers."""
MIN_RUNS = 20
MAX_SCORE = 0.999
"""To the package, a trial with a score of 1 cannot become better."""


class QuickTuneProcess:
    """The package in its own environment; requests and answers are JSON lines.

    Raises:
        ConfigurationError: There is no such environment, or the package is not in it.
    """

    def __init__(self) -> None:
        interpreter = _check_quicktune()
        self._folder = tempfile.TemporaryDirectory(prefix="tunecast-quicktune-")
        self._errors = Path(self._folder.name) / "errors.txt"
        with self._errors.open("w") as errors:
            try:
                self._process = subprocess.Popen(
                    [interpreter, "-I", str(SERVER)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    # The package keeps one file under the home folder for every process. It also leaves
                    # its trained models behind in temporary folders.
                    env={**os.environ, "HOME": self._folder.name, "TMPDIR": self._folder.name},
                    cwd=self._folder.name,
                )
            except OSError as error:
                raise _unusable(f"{interpreter} cannot be run: {error.strerror}") from None
        self._end = weakref.finalize(self, _end, self._process)
        try:
            self.version = str(self._answer()["version"])
        except ConfigurationError as error:
            raise _unusable(f"{interpreter} cannot run it: {error.what}") from None

    def call(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            ConfigurationError: The process broke down.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # reading the missing answer raises with the reason
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            said = self._errors.read_text(errors="replace").strip().splitlines()
            raise _unusable(f"its process ended with: {said[-1] if said else 'no word'}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class QuickTune(Rival):
    """``QuickOptimizer``, with its own defaults, on meta-trained ``PerfPredictor`` and ``CostPredictor``.

    It chooses among the candidates themselves, one fidelity after the other on the grid from 1/64 to 1. Its
    scores are the fraction by which the loss fell below the zero-shot loss, at least 0. If a candidate's
    first point is later than the grid's, that point also counts for the places before it, in meta-training as
    in the search.

    Args:
        process: A process with meta-trained surrogates.
        context: The task.
        pipelines: The candidates.
        seed: Seed of the package.
        cost_aware: Whether the acquisition is divided by predicted costs.
    """

    def __init__(
        self,
        process: QuickTuneProcess,
        context: Context,
        pipelines: Sequence[Pipeline],
        seed: int,
        *,
        cost_aware: bool,
    ) -> None:
        super().__init__(pipelines, by_index=True)
        self.version = process.version
        self._process = process
        setting = context.with_usual_loss(ZeroShotLosses.of(context.runs).median)
        self._zero_shot = setting.start_loss
        rows = _rows(setting, pipelines)
        self._search = process.call("open", rows=rows, seed=seed, cost_aware=cost_aware)["search"]

    def milliseconds(self) -> tuple[float, float]:
        """Wall and processor milliseconds of its performance surrogate to score the candidates once."""
        found = self._process.call("score", search=self._search)
        return found["milliseconds"], found["busy_milliseconds"]

    def _ask(self) -> Proposal | None:
        found = self._process.call("ask", search=self._search)
        if found["index"] is None:
            return None
        index, fidelity = found["index"], found["fidelity"]
        return Proposal((index, fidelity), index=index, share=2.0 ** (fidelity - FIDELITIES))

    def _tell(self, token: Any, loss: float | None, share: float) -> None:
        index, first = token
        last = max(first, _place(share) + 1) if share > 0 else first  # it may fail before its first point
        score = None if loss is None else _score(loss, self._zero_shot)
        self._process.call("tell", search=self._search, index=index, first=first, last=last, score=score)

    def _drop(self, token: Any, loss: float | None) -> None:
        self._process.call("drop", search=self._search, index=token[0])


def _check_quicktune() -> str:
    """The interpreter of the package's environment.

    Raises:
        ConfigurationError: No interpreter is named, or it does not exist.
    """
    interpreter = os.environ.get(INTERPRETER, "")
    if not interpreter:
        raise _unusable(f"{INTERPRETER} is not set")
    if not Path(interpreter).is_file():
        raise _unusable(f"there is no {interpreter}")
    return interpreter


def meta_trained(context: Context) -> QuickTuneProcess:
    """A process whose surrogates are meta-trained on all runs that a context knows.

    The cost surrogate trains with the package's settings, and the performance surrogate for all its 100
    epochs (see ``quicktune_server.py``). A failure scores 0 at the place of the grid at which it ended.

    Raises:
        ConfigurationError: The package is not installed, or too few runs are known.
    """
    zero_shot = ZeroShotLosses.of(context.runs)
    rows, curves, seconds = [], [], []
    for run in context.runs:
        start = zero_shot.for_run(run)
        curve = _curve(run, start) if start and run.is_candidate else []
        if start is None or not any(score is not None for score in curve):
            continue
        setting = TaskDescription(run.dataset, run.model, run.full_length_tokens, run.unique_examples, start)
        rows += _rows(setting, [run.pipeline])
        curves.append(curve)
        seconds.append(_seconds(run))
    timed = sum(spent is not None for spent in seconds)
    if timed < MIN_RUNS:
        raise ConfigurationError(
            f"--strategies: Quick-Tune-Tool learns from timed runs of other tasks, and {timed} are too few.",
            "Leave it out, or compare on a store with runs of more tasks.",
        )
    process = QuickTuneProcess()
    taught = {"columns": list(COLUMNS), "rows": rows, "curves": curves, "seconds": seconds, "seed": 0}
    process.call("fit", **taught, kept=str(_kept(process.version, taught)))
    return process


def _kept(version: str, taught: dict[str, Any]) -> Path:
    """The cache file of the surrogates trained on this, because training takes minutes."""
    server = SERVER.read_text(encoding="utf-8")
    made_of = hashlib.sha256(json.dumps([version, server, taught]).encode()).hexdigest()
    return cache_folder() / "quicktune" / f"{made_of[:32]}.pickle"


def _unusable(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"--strategies: quicktunetool needs an environment of its own; {why}.",
        f"Make one: benchmarks/quicktunetool/install.sh FOLDER, then set {INTERPRETER}=FOLDER/bin/python.",
    )


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def _rows(setting: TaskDescription, pipelines: Sequence[Pipeline]) -> list[list[float]]:
    found: list[list[float]] = feature_rows(setting, pipelines)[:, : len(COLUMNS)].tolist()
    return found


def _place(share: float) -> int:
    """Place on the grid of fidelities, from 0."""
    return min(max(rung(share) + FIDELITIES - 1, 0), FIDELITIES - 1)


def _score(loss: float, zero_shot: float) -> float:
    return min(max(0.0, 1 - loss / zero_shot), MAX_SCORE) if math.isfinite(loss) else 0.0


def _curve(run: Run, zero_shot: float) -> list[float | None]:
    """Scores on the grid, None after the last one."""
    scores: list[float | None] = []
    for point in run.curve:
        if point.share > 0:
            missing = _place(point.share) + 1 - len(scores)
            scores += [_score(point.validation.loss, zero_shot)] * missing
    if run.outcome.is_failure and len(scores) < FIDELITIES:
        scores.append(0.0)
    return scores + [None] * (FIDELITIES - len(scores))


def _seconds(run: Run) -> float | None:
    """Seconds of the whole trial, extrapolated in proportion if it ended early; None without a point."""
    share = run.curve[-1].share if run.curve else 0.0
    if share <= 0:
        return None
    return sum(point.training.wall + point.evaluation.wall for point in run.curve) / share
