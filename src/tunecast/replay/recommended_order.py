"""The order in which advice would try recorded pipelines, knowing only what a fold leaves to be known."""

from __future__ import annotations

from collections.abc import Sequence

from tunecast.recommender.known_runs import KnownRuns
from tunecast.recommender.quality_model import TaskView
from tunecast.recommender.ranking import recommended_order
from tunecast.records import Pipeline
from tunecast.search import Context
from tunecast.search.fixed_order import Order
from tunecast.search.task_predictor import setting_of
from tunecast.store.final_results import final_result_of


def recorded_order(context: Context) -> Order:
    """What a session's advice would say of candidates.

    Args:
        context: The task, and the runs that may be known.
    """
    prior = KnownRuns([final_result_of(run) for run in context.runs])
    setting = setting_of(context, 1.0)
    task = TaskView(
        dataset=context.dataset.name,
        meta_features=context.dataset.meta_features,
        model=context.model,
        unique_examples=context.unique_examples,
        bytes_per_label_token=1.0,  # a factor that all losses share
    )

    def order(pipelines: Sequence[Pipeline]) -> list[int]:
        return recommended_order(
            prior,
            task,
            pipelines,
            full_length_tokens=context.full_length_tokens,
            mean_tokens=setting.mean_tokens,
        )

    return order
