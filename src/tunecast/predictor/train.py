"""Trains the prior from recorded runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tunecast.atomic import check_writable
from tunecast.errors import ConfigurationError, StoreError
from tunecast.predictor.cost import fit_cost, fit_failure, score_failure
from tunecast.predictor.efficiency import Efficiency
from tunecast.predictor.examples import Examples, ZeroShotLosses, examples_of
from tunecast.predictor.known_tasks import KnownTasks
from tunecast.predictor.memory import fit_bytes
from tunecast.predictor.novelty import Novelty
from tunecast.predictor.prior import Prior, Provenance
from tunecast.predictor.quality_training import fit_quality
from tunecast.predictor.regressors import FAMILIES
from tunecast.predictor.task_groups import task_group
from tunecast.predictor.validation import CHOSEN, Scores, choose, nested
from tunecast.records import Run, stable_hash

MIN_GROUPS = 3
"""Families of datasets needed for nested cross-validation."""


def train(
    runs: Sequence[Run],
    published: Sequence[Run] = (),
    *,
    seed: int = 0,
    families: Sequence[str] = tuple(FAMILIES),
) -> Prior:
    """Train the whole predictor.

    Args:
        runs: Recorded runs, with those of untouched models among them.
        published: Runs of published tables.
        seed: Seed of folds and training.
        families: Families of regressors to choose from.

    Raises:
        StoreError: There are too few tasks to judge predictions on held-out ones.
    """
    examples = learnable(runs)
    chosen = choose(examples, seed, families)
    known = set(examples.runs)
    learned = [run for run in runs if run.id in known]
    datasets = {run.dataset.identity: run.dataset for run in learned}
    return Prior(
        family=chosen.family,
        performance=FAMILIES[chosen.family].fit(examples, seed),
        calibration=chosen.calibration,
        unseen_calibration=chosen.unseen_calibration,
        novelty=Novelty.of((one.name, one.meta_features) for one in datasets.values()),
        cost=fit_cost(learned),
        bytes=fit_bytes(learned),
        failure=fit_failure(learned),
        quality=fit_quality(runs, published),
        known_tasks=KnownTasks.of(learned),
        efficiency=Efficiency.of(runs),
        provenance=Provenance(
            runs=len(examples.runs),
            tasks=examples.tasks,
            models={run.model.identity: run.task.model for run in learned},
            checksum=stable_hash(sorted(examples.runs), 32),
            log_scores={name: round(value, 4) for name, value in chosen.log_scores.items()},
            zero_shot_loss=ZeroShotLosses.of(runs).median,
            largest_model=max(run.model.parameters for run in learned),
        ),
    )


def learnable(runs: Sequence[Run]) -> Examples:
    """Return the examples in runs.

    Raises:
        StoreError: There are too few families of datasets.
    """
    examples = examples_of(runs)
    found = len(set(task_group(examples.tasks))) if examples.tasks else 0
    if found < MIN_GROUPS:
        raise StoreError(
            f"These runs have {found} families of datasets with a known zero-shot loss; judging a "
            f"predictor on held-out data takes at least {MIN_GROUPS}.",
            "Collect more: tunecast collect --plan PLAN.yaml --store URL.",
        )
    return examples


def table(scores: Sequence[Scores]) -> str:
    """Format scores as a Markdown table."""
    names = ("family", "curve", "rows", "log score", "rank correlation", "regret", "in 90%", "groups")
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    lines += [
        f"| {row.name} | {row.stage} | {row.rows} | {row.log_score:.3f} | {row.rank_correlation:.3f} | "
        f"{row.regret:.3f} | {row.coverage:.0%} | {row.groups} |"
        for row in scores
    ]
    return "\n".join(lines)


def report(
    runs: Sequence[Run], prior: Prior, *, seed: int = 0, families: Sequence[str] = tuple(FAMILIES)
) -> str:
    """Describe the training runs, the choice of regressor, and the scores on held-out tasks."""
    provenance = prior.provenance
    lines = [
        f"Learned from {provenance.runs} runs, {len(provenance.tasks)} tasks, "
        f"{len(provenance.models)} base models; chosen: {prior.family}."
    ]
    examples = learnable(runs)
    known = set(examples.runs)
    lines += _figures(prior, [run for run in runs if run.id in known])
    scores, taken = nested(examples, seed, families)
    often = ", ".join(f"{name} {count}" for name, count in taken.items() if count)
    lines += ["", table(scores), "", f"{CHOSEN}: {often} of {sum(taken.values())} folds."]
    return "\n".join(lines)


def _figures(prior: Prior, learned: Sequence[Run]) -> list[str]:
    """Describe the accuracy of seconds, bytes and odds of divergence on held-out tasks."""
    lines = [
        f"{name} ({kind}), held-out tasks: within a factor {np.exp(model.deviation):.2f}."
        for name, models in (("Seconds per token", prior.cost), ("Bytes", prior.bytes))
        for kind, model in models.items()
    ]
    if odds := score_failure(learned):
        lines.append(
            f"Divergence, held-out tasks: log loss {odds.log_loss:.3f} (of the base rate "
            f"{odds.base_log_loss:.3f}), AUC {odds.auc:.2f}."
        )
    return lines


def learn(
    store: str | None,
    output: Path,
    *,
    seed: int = 0,
    scores: bool = True,
    families: Sequence[str] = tuple(FAMILIES),
    show: Callable[[str], None] = print,
) -> Prior:
    """Train the predictor on a store's runs, write the prior to ``output``, and report its accuracy.

    ``scores`` computes held-out scores, which takes most of the time. The published tables of the store are
    learned from, beside those that are shipped.

    Raises:
        UserError: The store is missing or has too few runs, or the output cannot be written.
    """
    from tunecast.store import open_for_reading, published_runs

    check_writable(output, "--output")
    started = time.monotonic()
    with open_for_reading(store) as opened:
        runs, own = list(opened.runs()), list(opened.runs(published=True))
    published = {run.id: run for run in [*published_runs(), *own]}
    prior = train(runs, list(published.values()), seed=seed, families=families)
    try:
        prior.save(output)
    except OSError as error:  # a disk may fill up meanwhile
        raise ConfigurationError(f"--output {output} cannot be written: {error.strerror}.") from None
    if scores:
        show(report(runs, prior, seed=seed, families=families))
    size = output.stat().st_size / 1e6
    show(f"Wrote {output} ({size:.2f} MB, {time.monotonic() - started:.0f} s).")
    return prior
