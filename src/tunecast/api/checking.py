"""Refuses settings that are wrong by themselves, before anything is spent on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunecast.budget import Budget
from tunecast.session.settings import SessionSettings

if TYPE_CHECKING:
    from tunecast.session.prepare import PreparedTask

TRIAL_EXAMPLES = 8
"""References on which a function of the user's is tried; a correlation needs more than one."""


def check_settings(settings: SessionSettings) -> None:
    """Refuse settings that are wrong by themselves, before anything is read or locked.

    Raises:
        UserError: The budget cannot be read, the store is of an unsupported kind, or a strategy, method,
            hyperparameter, metric, kind of task or tracker is unknown.
    """
    from tunecast.data import check_kind
    from tunecast.methods import check_names
    from tunecast.search import check_strategy
    from tunecast.trackers import get_trackers

    Budget.parse(settings.budget)
    if settings.store:
        from tunecast.store.connecting import parse_url

        parse_url(settings.store)
    check_strategy(settings.strategy, settings.prior, settings.value)
    check_names(settings.given_restrictions)
    check_objective(settings.objective)
    check_kind(settings.kind)
    get_trackers(settings.track)


def check_objective(objective: str) -> None:
    """Refuse an objective that is neither ``auto``, ``loss`` nor a metric."""
    if objective not in ("auto", "loss"):
        from tunecast.training.metrics import get_metric

        get_metric(objective)


def try_objective(prepared: PreparedTask) -> None:
    """Call the user's own metric once, on references of this data, before anything is spent on it.

    Raises:
        ConfigurationError: The function fails, or gives no score.
    """
    from tunecast.training.label_metrics import is_label_metric
    from tunecast.training.metrics import get_metric

    objective = prepared.task.metric
    if ":" in objective and not is_label_metric(objective):
        from tunecast.data.examples import reference

        texts = [
            reference(example) for example in prepared.training_task.validation_examples[:TRIAL_EXAMPLES]
        ]
        get_metric(objective).score(texts, texts)
