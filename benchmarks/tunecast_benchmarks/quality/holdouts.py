"""What is left out: families of tasks, SmolLM2, all larger models, model families of published tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunecast.predictor.endings import Ending
from tunecast.predictor.task_groups import dataset_families
from tunecast.records import Run
from tunecast_benchmarks.quality.predictors import untouched_runs

SMALLEST = "nano"
FAR = "SmolLM2"


@dataclass(frozen=True)
class Fold:
    """What may be learned from, and what is asked. ``untouched`` are measurements of known base models."""

    known: list[Ending]
    untouched: list[Run]
    asked: list[Ending]


def holdouts(endings: Sequence[Ending], runs: Sequence[Run]) -> dict[str, list[Fold]]:
    """Return the folds by what they leave out. Without published endings, the last has no folds.

    Args:
        endings: Recorded and published ones.
        runs: The recorded runs, those of base models among them.
    """
    untouched = untouched_runs(runs)
    recorded = [ending for ending in endings if not ending.table]
    family_of = dataset_families(run.task.dataset for run in runs)

    def fold(is_held: Callable[[Ending], bool], is_hidden: Callable[[Run], bool]) -> Fold:
        return Fold(
            [ending for ending in endings if not is_held(ending)],
            [run for run in untouched if not is_hidden(run)],
            [ending for ending in endings if is_held(ending)],
        )

    def of_tasks(family: str) -> Fold:
        return fold(
            lambda ending: not ending.table and ending.family == family,
            lambda run: family_of.get(run.task.dataset) == family,
        )

    def of_models(is_held: Callable[[str], bool]) -> Fold:
        return fold(
            lambda ending: not ending.table and is_held(ending.task.model.name),
            lambda run: is_held(run.task.model),
        )

    def published(family: str) -> Fold:
        return fold(lambda ending: bool(ending.table) and ending.family == family, lambda _: False)

    return {
        "each family of tasks": [of_tasks(name) for name in sorted({one.family for one in recorded})],
        "SmolLM2": [of_models(lambda name: name.startswith(FAR))],
        "all larger models": [of_models(lambda name: not name.startswith(SMALLEST))],
        "published model families": [
            published(name) for name in sorted({one.family for one in endings if one.table})
        ],
    }
