"""Strategies compared on the runs of a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from tunecast.errors import ConfigurationError, StoreError
from tunecast.progress import Progress, Silent
from tunecast.ranges import check_range
from tunecast.records import Run
from tunecast.replay.cases import Case, Clock, cases_of, on_clock
from tunecast.replay.comparing import (
    BUDGETS,
    Comparison,
    Contestant,
    check_name,
    compare_strategies,
    default_strategies,
    tiny_models,
    why_no_surrogates,
    without_fixed,
)
from tunecast.replay.folds import Fold
from tunecast.replay.standings import CLAIM_CANDIDATES, CLAIM_TASKS
from tunecast.search import Policy, rests_on_prior, strategies
from tunecast.store import open_for_reading

Named = TypeVar("Named", bound=StrEnum)


@dataclass(frozen=True)
class CompareSettings:
    """Settings of ``tunecast compare``.

    Args:
        store: URL or path of a store, or a Parquet export; None for the shipped meta-dataset.
        strategies: Names of strategies; empty for all that the runs allow.
        budgets: Budgets in baseline trials at full length, ascending.
        fold: The runs that strategies must not know.
        model: Name of the only base model to replay on; None for all models.
        clock: The recorded seconds that count.
        thinking_seconds: Charge for each answer; None measures it on this computer.
    """

    store: str | None = None
    strategies: tuple[str, ...] = ()
    seeds: int = 10
    budgets: tuple[float, ...] = BUDGETS
    fold: Fold = Fold.TASK
    model: str | None = None
    clock: Clock = Clock.WALL
    workers: int = 1
    thinking_seconds: float | None = None

    @classmethod
    def parse(
        cls,
        *,
        store: str | None,
        strategies: tuple[str, ...],
        seeds: int,
        budgets: str,
        folds: str,
        model: str | None,
        clock: str,
        workers: int,
        thinking_seconds: float | None,
    ) -> CompareSettings:
        """Parse the options of the command line.

        Raises:
            ConfigurationError: An option is wrong.
        """
        check_range("seeds", seeds)
        check_range("workers", workers)
        check_range("thinking_seconds", thinking_seconds)
        return cls(
            store=store,
            strategies=strategies,
            seeds=seeds,
            budgets=_budgets(budgets),
            fold=_named(Fold, "--folds", folds),
            model=model,
            clock=_named(Clock, "--clock", clock),
            workers=workers,
            thinking_seconds=thinking_seconds,
        )


def compare(
    settings: CompareSettings,
    progress: Progress | None = None,
    *,
    own: Mapping[str, Contestant] | None = None,
    watch: Callable[[str, Policy], None] | None = None,
) -> tuple[Comparison, list[str]]:
    """Replay strategies on a store's runs.

    Args:
        own: The caller's own strategies by name; those that the settings do not name join in too.
        watch: Called after every replay with the strategy's name and the strategy.

    Returns:
        The outcome of all replays, and why some tasks were left out, one sentence each.

    Raises:
        StoreError: The store cannot be read, or has no task with enough recorded pipelines.
        ConfigurationError: A strategy cannot be replayed, or the store has no tasks on the base model.
    """
    own = own or {}
    for name in settings.strategies:
        if name not in own:
            check_name(name)
    progress = progress or Silent()
    progress.start("Reading runs")
    with open_for_reading(settings.store) as store:
        runs = on_clock(store.runs(), settings.clock)
    progress.finish(f"{len(runs):,} runs")
    cases, reasons = _recorded_cases(runs, settings.model)
    cases, small = large_enough(cases)
    if small:
        named = "; ".join(case.name for case in small)
        progress.log(f"Left out: {len(small)} with under {CLAIM_CANDIDATES} recorded pipelines: {named}.")
        # Cases that could have been replayed are named first.
        reasons = [*map(_too_small, small), *reasons]
    names = settings.strategies
    if not names:
        cases, lacking = _with_fixed_rates(cases, progress)
        reasons = [*lacking, *reasons]
        why_none = why_no_surrogates(cases, runs, settings.fold)
        names = default_strategies(cases, surrogates=not why_none)
        if why_none:
            left_out = ", ".join(one.name for one in strategies() if rests_on_prior(one.name))
            progress.log(f"Left out: {left_out}, because {why_none}.")
    comparison = compare_strategies(
        cases,
        runs,
        tuple(dict.fromkeys([*names, *own])),
        seeds=settings.seeds,
        budgets=settings.budgets,
        fold=settings.fold,
        workers=settings.workers,
        thinking_seconds=settings.thinking_seconds,
        own=own,
        watch=watch,
        progress=progress,
    )
    return comparison, reasons


def _recorded_cases(runs: Sequence[Run], model: str | None) -> tuple[list[Case], list[str]]:
    """Find the cases that can be replayed, on one base model if one is named, and why others cannot."""
    cases, reasons = cases_of(runs)
    if model is not None:
        recorded = {run.task.model for run in runs}
        there = sorted({case.model.name for case in cases} or recorded)
        cases = [case for case in cases if case.model.name == model]
        reasons = [reason for reason in reasons if f" on {model} at " in reason]
        if recorded and model not in recorded:
            raise ConfigurationError(
                f"--model: the store has no runs of the base model {model!r}.",
                f"There are some of {', '.join(there)}.",
            )
    if not cases:
        example = f" ({reasons[0].rstrip('.')})" if reasons else ""
        raise StoreError(
            f"The store has no task to replay on: none of {len(reasons)} is recorded well enough{example}.",
            "Collect some: tunecast collect --plan plans/replay.yaml",
        )
    return cases, reasons


def large_enough(cases: Sequence[Case]) -> tuple[list[Case], list[Case]]:
    """Split cases into those with enough candidates for claims and those without, which would rule out any.

    If too few tasks remain without the small ones, nothing may be claimed either way, and none is left out.
    """
    large = [case for case in cases if len(case.candidates) >= CLAIM_CANDIDATES]
    if len({case.task for case in large}) < CLAIM_TASKS:
        return list(cases), []
    return large, [case for case in cases if len(case.candidates) < CLAIM_CANDIDATES]


def _with_fixed_rates(cases: Sequence[Case], progress: Progress) -> tuple[list[Case], list[str]]:
    """Keep the cases that recorded the baseline's fixed rates, if enough did; say why others are left out.

    If too few cases recorded a rate, its strategy is left out instead: :func:`default_strategies` does that.
    """
    kept, reasons = list(cases), []
    fixed_rates = [one.name for one in strategies() if one.fixed_pipeline is not None]
    for name in () if tiny_models(cases) else fixed_rates:
        lacking = without_fixed(name, kept)
        others = [case for case in kept if case not in lacking]
        listed = "; ".join(case.name for case in lacking)
        if not others:
            progress.log(f"Left out: {name}, because no task has a recorded run of it.")
        elif lacking and len({case.task for case in others}) < CLAIM_TASKS:
            progress.log(f"Left out: {name}, because {len(lacking)} have no recorded run of it: {listed}.")
        elif lacking:
            progress.log(f"Left out: {len(lacking)} without a recorded run of {name}: {listed}.")
            reasons += [f"{case.name}: no recorded run of {name}." for case in lacking]
            kept = others
    return kept, reasons


def _too_small(case: Case) -> str:
    return f"{case.name}: {len(case.candidates)} recorded pipelines, claims need {CLAIM_CANDIDATES}."


def _budgets(text: str) -> tuple[float, ...]:
    try:
        budgets = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        budgets = ()
    if not budgets:
        raise ConfigurationError(f"--budgets {text!r} is not a list of numbers above 0.", "Write 1,2,4,8,16.")
    for budget in budgets:
        check_range("budgets", budget)
    return budgets


def _named(kind: type[Named], flag: str, value: str) -> Named:
    try:
        return kind(value)
    except ValueError:
        raise ConfigurationError(f"{flag}: there is no {value!r}.", f"Use {', '.join(kind)}.") from None
