"""The plan of a session, without running it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from tunecast.api.checking import check_settings, try_objective
from tunecast.api.tuning import feasible_pipelines
from tunecast.errors import UserError
from tunecast.progress import Progress, Silent
from tunecast.session.settings import SessionSettings


def resolve(settings: SessionSettings, *, progress: Progress | None = None) -> dict[str, Any]:
    """Return the plan that :func:`tune` would follow, with everything automatic decided; nothing is trained.

    Args:
        settings: The configuration.
        progress: Shows the predictions, as on the first screen of a session.

    Returns:
        What ``tune --dry-run --json`` prints: configuration, model, data, candidates, space, prediction and
            warnings.

    Raises:
        UserError: As :func:`tune`, except that no output folder is needed.
    """
    from tunecast.methods import pipeline_space
    from tunecast.report.predictions import show_predictions
    from tunecast.session.candidates import check_restrictions, unshardable_text
    from tunecast.session.constant_answers import majority_loss
    from tunecast.session.prepare import prepare_task
    from tunecast.session.recommendation import recommended, recommended_candidates
    from tunecast.session.wall_time import predicted_speed, seconds_to_score_test
    from tunecast.session.worker_limits import limit_bytes, with_worker_count

    check_settings(settings)
    settings = with_worker_count(settings)
    prepared = prepare_task(settings, Silent())
    try_objective(prepared)
    training_task = prepared.training_task
    check_restrictions(settings, training_task.facts)
    limit = limit_bytes(settings, training_task.device)
    predicted = recommended(settings, prepared, limit)
    among_candidates = recommended_candidates(settings, training_task.facts, predicted)
    feasible = feasible_pipelines(settings, prepared, limit, Silent(), among_candidates)
    space = pipeline_space(training_task.facts, settings.restrictions, seed=settings.seed)
    show_predictions(prepared, predicted, progress or Silent())
    tried = feasible.pipelines if feasible.baseline_fits else feasible.pipelines[1:]
    return {
        "configuration": settings.as_json(),
        "model": {
            "name": training_task.facts.name,
            "parameters": training_task.facts.parameters,
            "family": training_task.facts.family,
        },
        "data": {"name": prepared.task.dataset, "format": prepared.dataset.format}
        | {"examples": dict(prepared.dataset.examples), "train_tokens": training_task.train_tokens},
        "kind": prepared.kind.text,
        "objective": prepared.task.metric,
        "device": training_task.device,
        "dtype": training_task.dtype,
        "threads": training_task.threads,
        "workers": settings.worker_count,
        "gpus_per_trial": settings.gpus_per_trial,
        "max_length": training_task.max_length,
        "max_new_tokens": training_task.max_new_tokens,
        "baseline": asdict(feasible.pipelines[0]),
        "candidates": {
            "left": len(tried),
            "left_out": feasible.left_out,
            "baseline_fits": feasible.baseline_fits,
            "worker_bytes": limit,
            "methods": dict(Counter(one.method for one in tried)),
        },
        "test_scoring": {
            "examples": len(training_task.test),
            "seconds": None
            if isinstance(predicted, UserError)
            else seconds_to_score_test(prepared, settings, predicted_speed(prepared, predicted)),
        },
        "space": [str(parameter) for parameter in space.values()],
        "prediction": {"warnings": [predicted.what]}
        if isinstance(predicted, UserError)
        else predicted.as_json(),
        "majority_loss": majority_loss(prepared),
        "warnings": [
            *prepared.warnings,
            *filter(None, [unshardable_text(settings, training_task.facts)]),
            *feasible.warnings,
        ],
    }
