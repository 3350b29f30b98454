"""Trains the prior from recorded runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tunecast.atomic import check_writable
from tunecast.errors import ConfigurationError, StoreError
from tunecast.predictor.cost import fit_cost
from tunecast.predictor.efficiency import Efficiency
from tunecast.predictor.endings import recorded
from tunecast.predictor.examples import Examples, ZeroShotLosses, examples_of
from tunecast.predictor.known_tasks import KnownTasks
from tunecast.predictor.memory import fit_bytes
from tunecast.predictor.novelty import Novelty
from tunecast.predictor.prior import Prior, Provenance
from tunecast.predictor.published_endings import published_endings
from tunecast.predictor.quality_training import fit_quality
from tunecast.predictor.task_groups import task_group
from tunecast.predictor.validation import Scores, held_out_scores, score_divergence
from tunecast.records import Run, stable_hash

MIN_GROUPS = 3
"""Families of datasets that it takes to judge predictions on held-out ones."""


def train(
    runs: Sequence[Run],
    published: Sequence[Run] = (),
    *,
    seed: int = 0,
    hidden: Sequence[str] = (),
) -> Prior:
    """Train the whole predictor.

    Args:
        runs: Recorded runs, with those of base models among them.
        published: Runs of published tables.
        seed: Seed of folds and training.
        hidden: Features that forests do not learn from.

    Raises:
        StoreError: There are too few tasks to judge predictions on held-out ones.
    """
    examples = learnable(runs)
    learned = _learned(runs, examples)
    datasets = {run.dataset.identity: run.dataset for run in learned}
    models = {run.model.identity: run.model for run in learned}
    endings = [*recorded(runs), *published_endings(published)]
    return Prior(
        quality=fit_quality(examples, learned, endings, seed=seed, hidden=hidden),
        novelty=Novelty.of((one.name, one.meta_features) for one in datasets.values()),
        cost=fit_cost(learned),
        bytes=fit_bytes(learned),
        known_tasks=KnownTasks.of(learned),
        efficiency=Efficiency.of(runs),
        provenance=Provenance(
            runs=len(examples.runs),
            tasks=examples.tasks,
            models={identity: model.name for identity, model in models.items()},
            checksum=stable_hash(sorted(examples.runs), 32),
            zero_shot_loss=ZeroShotLosses.of(runs).median,
            largest_model=max(model.parameters for model in models.values()),
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
            f"A predictor takes runs of at least {MIN_GROUPS} families of datasets with a known zero-shot "
            f"loss, because its intervals are calibrated on those held out; these runs have {found}.",
            "Collect more: tunecast collect --plan PLAN.yaml --store URL.",
        )
    return examples


def _learned(runs: Sequence[Run], examples: Examples) -> list[Run]:
    known = set(examples.runs)
    return [run for run in runs if run.id in known]


def table(scores: Sequence[Scores], first: str = "zero-shot loss") -> str:
    """Format scores as a Markdown table; ``first`` is the head of their names."""
    names = (first, "curve", "rows", "log score", "rank correlation", "regret", "in 90%", "groups")
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    lines += [
        f"| {row.name} | {row.stage} | {row.rows} | {row.log_score:.3f} | {row.rank_correlation:.3f} | "
        f"{row.regret:.3f} | {row.coverage:.0%} | {row.groups} |"
        for row in scores
    ]
    return "\n".join(lines)


def report(runs: Sequence[Run], published: Sequence[Run], prior: Prior, *, seed: int = 0) -> str:
    """Describe what a prior learned from, and its scores on held-out tasks."""
    provenance = prior.provenance
    lines = [
        f"Learned from {provenance.runs} runs, {len(provenance.tasks)} tasks, "
        f"{len(provenance.models)} base models, and {len(published)} published runs."
    ]
    for name, models in (("Seconds per token", prior.cost), ("Bytes", prior.bytes)):
        for kind, model in models.items():
            factor = np.exp(model.deviation)
            lines.append(f"{name} ({kind}), held-out tasks: within a factor {factor:.2f}.")
    if scores := score_divergence([*recorded(runs), *published_endings(published)]):
        lines.append(
            f"Divergence, held-out tasks: log loss {scores.log_loss:.3f} (of the base rate "
            f"{scores.base_log_loss:.3f}), AUC {scores.auc:.2f}."
        )
    return "\n".join([*lines, "", table(held_out_scores(runs, seed))])


def learn(
    store: str | None,
    output: Path,
    *,
    seed: int = 0,
    scores: bool = True,
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
    published = list({run.id: run for run in [*published_runs(), *own]}.values())
    prior = train(runs, published, seed=seed)
    try:
        prior.save(output)
    except OSError as error:  # a disk may fill up meanwhile
        raise ConfigurationError(f"--output {output} cannot be written: {error.strerror}.") from None
    if scores:
        show(report(runs, published, prior, seed=seed))
    size = output.stat().st_size / 1e6
    show(f"Wrote {output} ({size:.2f} MB, {time.monotonic() - started:.0f} s).")
    return prior
