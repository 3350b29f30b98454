"""Replays of several strategies on the same candidates, in the same order, with the same budgets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from tunecast.arrays import Floats
from tunecast.errors import ConfigurationError, did_you_mean
from tunecast.plugins import check_library
from tunecast.predictor.examples import teaching_runs
from tunecast.predictor.task_groups import dataset_families, task_group
from tunecast.predictor.train import MIN_GROUPS
from tunecast.progress import Progress, Silent
from tunecast.records import Pipeline, Run, stable_hash
from tunecast.replay.cases import Candidate, Case
from tunecast.replay.folds import Fold, context_of
from tunecast.replay.machine import Replayed, replay
from tunecast.replay.priors import kept_prior
from tunecast.search import (
    Context,
    Policy,
    find_strategy,
    fixed,
    get_strategy,
    strategies,
)

BUDGETS = (2.0, 3.0, 4.0, 8.0, 16.0)
"""Budgets in baseline trials at full length. Training the baseline takes the first of them."""
SLACK = 0.1
"""Baseline trials on top of every budget: seconds scatter from run to run, and a strategy should not miss a
budget by the millisecond that it thinks.
"""
SUBSET = 0.7
ANYTIME_POINTS = 60
THINKING_REPLAYS = 3
MIN_ORDINARY = 100_000_000
"""With fewer parameters, 2e-4 and 3e-4 are far too low as learning rates."""


Maker = Callable[[Sequence[Pipeline], int], Policy]
"""Builds a strategy for the pipelines behind the baseline, and a seed."""
Contestant = Callable[[Context], Maker]
"""Prepares a strategy of the caller's own for one case, from the runs that may be known there."""


@dataclass
class Usage:
    """Answers of a strategy over all its replays; seconds on this computer, and charged for each."""

    asks: int = 0
    thinking_seconds: float = 0.0
    charged_seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Comparison:
    """The outcome of all replays.

    Args:
        regrets: Normalised regret on the test split, shape (strategies, cases, seeds, budgets).
        grid: Times in baseline trials.
        anytime: Normalised regret over time under the largest budget, shape (strategies, cases, grid), mean
            over seeds.
        exhausted: Share of the replays in which every candidate came to its end, shape (strategies, budgets).
        usage: Answers and their cost, by strategy.
        fold: The runs that were kept from strategies.
    """

    strategies: tuple[str, ...]
    cases: tuple[Case, ...]
    family_of: dict[str, str]
    budgets: tuple[float, ...]
    regrets: Floats
    grid: Floats
    anytime: Floats
    exhausted: Floats
    usage: dict[str, Usage]
    fold: Fold

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, sorted."""
        return tuple(sorted({case.task for case in self.cases}))

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return self.regrets.shape[2]

    def by_task(self) -> Floats:
        """Return the regret by task, averaged over cases and seeds; shape (strategies, tasks, budgets)."""
        return self._over_cases(self.regrets.mean(axis=2))

    def anytime_by_task(self) -> Floats:
        """Return the regret over time by task; shape (strategies, tasks, grid)."""
        return self._over_cases(self.anytime)

    def _over_cases(self, values: Floats) -> Floats:
        own = [[index for index, case in enumerate(self.cases) if case.task == task] for task in self.tasks]
        return np.stack([values[:, places].mean(axis=1) for places in own], axis=1)


def default_strategies(cases: Sequence[Case], *, surrogates: bool) -> tuple[str, ...]:
    """Return the names of Tunecast's own strategies that can be replayed on these cases.

    Strategies that train a fixed pipeline are left out unless all cases have recorded it, and on base models
    that are too small for its learning rate. With ``surrogates``, a prior can be trained on every case
    (:func:`why_no_surrogates`).
    """
    return tuple(
        one.name
        for one in strategies()
        if not one.library
        and (surrogates or not one.predicts)
        and (one.fixed_pipeline is None or not (tiny_models(cases) or without_fixed(one.name, cases)))
    )


def tiny_models(cases: Sequence[Case]) -> list[str]:
    """Return the names of the base models for which 2e-4 and 3e-4 are far too low."""
    return sorted({case.model.name for case in cases if case.model.parameters < MIN_ORDINARY})


def without_fixed(name: str, cases: Sequence[Case]) -> list[Case]:
    """Find the cases without a recorded run of a strategy's fixed pipeline."""
    return [case for case in cases if _fixed_place(name, case.candidates) is None]


def why_no_surrogates(cases: Sequence[Case], runs: Sequence[Run], fold: Fold = Fold.TASK) -> str:
    """Say why no prior can be trained on the runs outside a case's fold; empty if one can on every case."""
    all_families = _families(cases, runs)
    # A fold leaves out all runs of a task on a model together, so the other runs teach as much without them.
    teaching = {run.id for run in teaching_runs(runs)}
    for case in cases:
        known = context_of(case, runs, fold, all_families).runs
        called = {run.dataset.identity: run.task.dataset for run in known if run.id in teaching}
        found = len(set(task_group(list(called.values()))))
        if found < MIN_GROUPS:
            return (
                f"for {case.name} there are runs of {found} families of tasks to learn from, and "
                f"{MIN_GROUPS} are needed"
            )
    return ""


def compare_strategies(
    cases: Sequence[Case],
    runs: Sequence[Run],
    strategies: Sequence[str],
    *,
    seeds: int = 10,
    budgets: Sequence[float] = BUDGETS,
    fold: Fold = Fold.TASK,
    workers: int = 1,
    thinking_seconds: float | None = None,
    own: Mapping[str, Contestant] | None = None,
    watch: Callable[[str, Policy], None] | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Replay every strategy on every case, with every seed, at every budget.

    Args:
        runs: All recorded runs; each fold's strategies learn from a part of them.
        seeds: Number of seeds: each is the baseline, and a random 70% of the candidates in a random order.
        budgets: In baseline trials at full length, ascending; each is granted with a tenth of one on top.
        fold: The runs to keep from strategies.
        thinking_seconds: Charge for each answer of a strategy. None charges the seconds of an answer on this
            computer, measured once per strategy and rounded up to a power of two of milliseconds.
        watch: Called after every replay with the strategy's name and the strategy.

    Raises:
        ConfigurationError: A strategy is unknown or cannot be replayed on these runs.
    """
    progress = progress or Silent()
    all_families = _families(cases, runs)
    own = own or {}
    _check_all([name for name in strategies if name not in own], cases, runs, fold)
    regrets = np.empty((len(strategies), len(cases), seeds, len(budgets)))
    grid = np.geomspace(1 / 8, budgets[-1] + SLACK, ANYTIME_POINTS)
    anytime = np.zeros((len(strategies), len(cases), len(grid)))
    exhausted = np.zeros((len(strategies), len(budgets)))
    usage = {name: Usage(charged_seconds=thinking_seconds or 0.0) for name in strategies}
    progress.start("Replaying", len(cases), "cases")
    for c, case in enumerate(cases):
        build = _Builder(context_of(case, runs, fold, all_families), own)
        for s, name in enumerate(strategies):
            used = usage[name]
            if c == 0 and thinking_seconds is None:
                used.charged_seconds = _thinking(case, name, build, budgets[-1] * case.baseline_seconds)
            for seed in range(seeds):
                ends = list(_replays(case, name, build, seed, budgets, workers, used, watch))
                regrets[s, c, seed] = [done.regret for done in ends]
                exhausted[s] += np.array([done.exhausted for done in ends]) / (len(cases) * seeds)
                anytime[s, c] += _over_time(ends[-1], grid * case.baseline_seconds) / seeds
        progress.advance(note=case.name)
    progress.finish()
    return Comparison(
        strategies=tuple(strategies),
        cases=tuple(cases),
        family_of={case.task: all_families[case.task] for case in cases},
        budgets=tuple(budgets),
        regrets=regrets,
        grid=grid,
        anytime=anytime,
        exhausted=exhausted,
        usage=usage,
        fold=fold,
    )


def _check_all(names: Sequence[str], cases: Sequence[Case], runs: Sequence[Run], fold: Fold) -> None:
    """Refuse strategies that are unknown or cannot be replayed on these runs."""
    for name in names:
        _check(name, cases)
    surrogates = [name for name in names if get_strategy(name).predicts]
    if surrogates and (reason := why_no_surrogates(cases, runs, fold)):
        raise ConfigurationError(
            f"--strategies: {' and '.join(surrogates)} cannot be replayed: {reason}.", "Leave it out."
        )


def _replays(
    case: Case,
    name: str,
    build: _Builder,
    seed: int,
    budgets: Sequence[float],
    workers: int,
    used: Usage,
    watch: Callable[[str, Policy], None] | None,
) -> Iterator[Replayed]:
    """Replay a strategy with one seed at every budget, and count its answers."""
    candidates = draw(case, seed)
    for budget in budgets:
        strategy = build(name, candidates, seed)
        done = replay(
            case,
            candidates,
            strategy,
            (budget + SLACK) * case.baseline_seconds,
            workers=workers,
            thinking_seconds=used.charged_seconds,
        )
        used.asks += done.asks
        used.thinking_seconds += done.thinking_seconds
        if watch is not None:
            watch(name, strategy)
        yield done


def draw(case: Case, seed: int, share: float = SUBSET) -> list[Candidate]:
    """Draw a seed's candidates: the baseline, then others in random order, always with that at 3e-4."""
    generator = np.random.default_rng([seed, int(stable_hash(case.name, 15), 16)])
    pinned = {i for one in strategies() if (i := _fixed_place(one.name, case.candidates)) is not None}
    order = [int(index) for index in generator.permutation(len(case.candidates))]
    first = next(index for index, candidate in enumerate(case.candidates) if candidate is case.baseline)
    pinned.add(first)
    others = [index for index in order if index not in pinned]
    free = max(0, round(share * len(order)) - len(pinned))
    chosen = (pinned | set(others[:free])) - {first}
    return [case.baseline, *(case.candidates[index] for index in order if index in chosen)]


class _Builder:
    """Builds strategies for one case; those that are pure functions are built once."""

    def __init__(self, context: Context, own: Mapping[str, Contestant]) -> None:
        self._context = context
        self._own = own
        self._makers: dict[str, Maker] = {}

    def __call__(self, name: str, candidates: Sequence[Candidate], seed: int) -> Policy:
        if name not in self._own and (place := _fixed_place(name, candidates)) is not None:
            return fixed(place)
        if name not in self._makers:
            contestant = self._own.get(name) or built_once(partial(_built, name))
            self._makers[name] = contestant(self._context)
        return self._makers[name]([candidate.pipeline for candidate in candidates[1:]], seed)


def _built(name: str, context: Context) -> Policy:
    strategy = get_strategy(name)
    prior = kept_prior(context.runs) if strategy.predicts else None
    return strategy.policy(replace(context, prior=prior))


def built_once(build: Callable[[Context], Policy]) -> Contestant:
    """Make a contestant of a strategy that is a pure function: built once for each case."""

    def prepared(context: Context) -> Maker:
        strategy = build(context)
        return lambda pipelines, seed: strategy

    return prepared


def _fixed_place(name: str, candidates: Sequence[Candidate]) -> int | None:
    """Find the recorded run of the fixed pipeline that a strategy trains; None if there is neither."""
    strategy = find_strategy(name)
    target = None if strategy is None else strategy.fixed_pipeline
    if target is None:
        return None
    return next((index for index, candidate in enumerate(candidates) if candidate.is_like(target)), None)


def _families(cases: Sequence[Case], runs: Sequence[Run]) -> dict[str, str]:
    return dataset_families([*(run.task.dataset for run in runs), *(case.task for case in cases)])


def check_name(name: str) -> None:
    """Refuse the name of a strategy that is unknown or cannot be replayed.

    Raises:
        ConfigurationError: There is no such strategy.
    """
    known = [one.name for one in strategies()]
    if name in known:
        return
    if find_strategy(name) is not None:
        raise ConfigurationError(f"--strategies: {name} cannot be replayed.", "Use fixed-best.")
    raise ConfigurationError(
        f"--strategies: there is no strategy {name!r}.",
        f"{did_you_mean(name, known)}Known ones: {', '.join(known)}.",
    )


def _check(name: str, cases: Sequence[Case]) -> None:
    check_name(name)
    strategy = get_strategy(name)
    check_library(name, strategy.library, strategy.installation, flag="--strategies")
    if strategy.fixed_pipeline is not None and (lacking := without_fixed(name, cases)):
        raise ConfigurationError(
            f"--strategies: {name} has no recorded run of its pipeline for {lacking[0].name}.",
            "Leave it out, or use fixed-best.",
        )


def _over_time(done: Replayed, seconds: Floats) -> Floats:
    times = np.array([improvement.seconds for improvement in done.improvements])
    regrets = np.array([improvement.regret for improvement in done.improvements])
    return regrets[np.searchsorted(times, seconds + 1e-9, side="right") - 1]


def _thinking(case: Case, name: str, build: _Builder, budget_seconds: float) -> float:
    """Return the seconds of one answer on this computer, rounded up to a power of two of milliseconds.

    It is the lowest mean of some replays, because imports and other work of the computer are not the
    strategy's.
    """
    means = []
    for seed in range(THINKING_REPLAYS):
        candidates = draw(case, seed)
        done = replay(case, candidates, build(name, candidates, seed), budget_seconds)
        means.append(done.thinking_seconds / max(1, done.asks))
    return _rounded_up(min(means))


def _rounded_up(seconds: float) -> float:
    return float(2.0 ** math.ceil(math.log2(max(seconds, 1e-3) * 1e3)) / 1e3)
