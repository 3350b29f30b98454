"""Tests the losses predicted by ``tunecast recommend`` on datasets and base models left out.

    python benchmarks/recommend_held_out.py [--store FILE.parquet]

Prints a Markdown table: the share of losses in their 90% intervals, the error of the log loss in bits per
byte beside that of the known losses' mean, and Spearman's correlation within a dataset and base model. A
second table shows the same for the seconds of steps on base models left out, beside a constant efficiency.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from tunecast.estimate.constants import EFFICIENCY
from tunecast.predictor import TaskDescription
from tunecast.predictor.prediction import NORMAL_90
from tunecast.recommender.efficiency import Efficiency, credible_ratios
from tunecast.recommender.known_runs import KnownRuns, Plan
from tunecast.records import DatasetFacts, Outcome
from tunecast.store.final_results import FinalResult, read_final_results
from tunecast.store.shipping import shipped

LEAST_TO_RANK = 4
MOST_PER_SPLIT = 400
"""Number of losses to predict in a split, evenly drawn; more would only take longer."""

Split = tuple[list[FinalResult], list[FinalResult]]


def size(ending: FinalResult) -> str:
    """The base model's size, by the first word of its name."""
    return ending.model.name.partition("-")[0]


def amply(ending: FinalResult) -> bool:
    """Whether the base model saw ten million tokens or more."""
    return (ending.model.pretraining_tokens or 0) >= 9_500_000


def apart(endings: Sequence[FinalResult], is_held: Callable[[FinalResult], bool]) -> Split:
    """The runs to learn from, and those held out."""
    return [e for e in endings if not is_held(e)], [e for e in endings if is_held(e)]


def splits(endings: Sequence[FinalResult]) -> dict[str, list[Split]]:
    """The splits, by their name in the table."""
    found: dict[str, list[Split]] = {"each dataset": []}
    for dataset in sorted({e.dataset for e in endings}):
        found["each dataset"].append(apart(endings, lambda e, d=dataset: e.dataset == d))  # type: ignore[misc]
    found["larger models, from the 2M ones"] = [apart(endings, lambda e: size(e) != "nano")]
    found["17M models, from the others"] = [apart(endings, lambda e: size(e) == "mini")]
    ladder = [e for e in endings if e.model.pretraining_tokens]
    found["models pretrained on fewer than 10M tokens"] = [apart(ladder, lambda e: not amply(e))]
    found["models pretrained on 10M and 16M tokens, from those on less"] = [apart(ladder, amply)]
    both = []
    for model in sorted({e.model.name for e in endings if size(e) != "nano"}):
        for dataset in sorted({e.dataset for e in endings if e.model.name == model}):
            known = [e for e in endings if size(e) != model.partition("-")[0] and e.dataset != dataset]
            both.append((known, [e for e in endings if e.model.name == model and e.dataset == dataset]))
    found["size and dataset together"] = both
    return found


def usable(endings: Iterable[FinalResult]) -> list[FinalResult]:
    """Completed runs with a loss, except those of untouched models."""
    return [
        e
        for e in endings
        if e.outcome is Outcome.COMPLETED and e.bits_per_byte and e.pipeline.method != "zero-shot"
    ]


def scored(parts: Sequence[Split], draw: np.random.Generator) -> list[str]:
    """The cells of a row."""
    inside: list[bool] = []
    errors: list[float] = []
    ignorant: list[float] = []
    groups: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for known, held in parts:
        asked = usable(held)
        if len(asked) > MOST_PER_SPLIT:
            asked = [asked[i] for i in draw.choice(len(asked), MOST_PER_SPLIT, replace=False)]
        prior = KnownRuns(known)
        mean = float(np.mean([math.log(e.bits_per_byte or 1.0) for e in usable(known)]))
        for ending in asked:
            assert ending.bits_per_byte is not None
            task = TaskDescription(
                DatasetFacts(ending.dataset, "", "", {}, {}, ending.meta_features, 0),
                ending.model,
                ending.full_length_tokens,
                ending.unique_examples,
                bytes_per_label_token=1 / math.log(2),
            )
            plan = Plan(ending.pipeline, ending.full_length_tokens, ending.total_steps)
            found = prior.predict(task, [plan])[0]
            inside.append(found.low <= ending.bits_per_byte <= found.high)
            errors.append(math.log(found.loss / ending.bits_per_byte))
            ignorant.append(mean - math.log(ending.bits_per_byte))
            groups[ending.dataset, ending.model.name].append((found.loss, ending.bits_per_byte))
    ranks = [
        float(spearmanr(*zip(*group, strict=True)).statistic)
        for group in groups.values()
        if len(group) >= LEAST_TO_RANK
    ]
    error, ignorance = (float(np.sqrt(np.mean(np.square(values)))) for values in (errors, ignorant))
    return [
        f"{len(errors)}",
        f"{np.mean(inside):.0%}",
        f"{error:.2f} ({ignorance:.2f})",
        f"{np.nanmean(ranks):.2f}",
    ]


def timed(endings: Sequence[FinalResult], is_held: Callable[[FinalResult], bool]) -> list[str]:
    """The cells of a row on seconds; machines whose rates were measured under load are left out."""
    known = Efficiency(ending for ending in endings if not is_held(ending))
    held = credible_ratios(ending for ending in endings if is_held(ending))
    asked = [(known.share(device, *key), ratio) for _, ((device, key), ratio) in held]
    errors = np.array([math.log(share.value / ratio) for share, ratio in asked])
    spread = np.array([NORMAL_90 * share.deviation for share, _ in asked])
    constant = np.array([math.log(EFFICIENCY / ratio) for _, ratio in asked])
    return [
        f"{len(asked)}",
        f"{np.mean(np.abs(errors) <= spread):.0%}",
        f"{np.sqrt(np.mean(errors**2)):.2f} ({np.sqrt(np.mean(constant**2)):.2f})",
    ]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, help="a Parquet export (default: what is shipped)")
    file: Path | None = parser.parse_args().store or shipped()
    if file is None:
        raise SystemExit("No runs are shipped: give --store.")
    endings = read_final_results(file)
    names = ("held out", "losses", "in their 90% intervals", "error of the log loss (of the mean)", "rank")
    print(f"{len(endings)} runs\n\n| {' | '.join(names)} |\n|{'---|' * len(names)}")
    draw = np.random.default_rng(0)
    for words, parts in splits(endings).items():
        print(f"| {' | '.join([words, *scored(parts, draw)])} |", flush=True)
    columns = ("held out", "runs", "in their 90% intervals", "error of the log seconds (of a constant)")
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name in sorted({size(ending) for ending in endings}):
        print(f"| {' | '.join([name, *timed(endings, lambda e, n=name: size(e) == n)])} |")  # type: ignore[misc]


if __name__ == "__main__":
    main()
