"""Tests advice from small models on large ones: regret on a public sweep of LoRA rates and ranks.

For every model of the sweep, Tunecast's prior ranks the measured pairs of learning rate and rank. Its first
pair is compared with the best measured pair, in nats of test loss. Beside it are constants that need no
prior: 3e-4 at the largest measured rank, 2e-4 at rank 16 (each at the nearest measured pair), and the single
pair that is best on average over the table. This last constant knows the table.

The prior's weights come from runs on models of 2 to 18 million parameters and from the literature
(:mod:`tunecast.recommender.known_runs`). A law carries over size and pretraining. The rules of
:mod:`tunecast.recommender.rate_rules` carry over learning rates: their rate follows the width down to a floor
of 3e-4. Models whose hidden width is not listed below are left out of the prior's row and of the constants
beside it.

    python benchmarks/large_models_advice.py SWEEP.csv

``SWEEP.csv`` has the columns ``model``, ``learning_rate``, ``lora_rank``, ``test_nll``.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tunecast.methods import BASELINE
from tunecast.models.config_facts import facts_from_config
from tunecast.predictor import TaskDescription
from tunecast.recommender.known_runs import KnownRuns, Plan
from tunecast.recommender.recommend import default_prior
from tunecast.records import DatasetFacts, ModelFacts, Pipeline

STEPS, BATCH, ALPHA, TOKENS = 780, 128, 32, 100_000_000
"""The sweep's training: 780 steps of 128 examples at alpha 32; about 1,000 tokens an example."""
FITTED = "Qwen"
"""The family used to judge rules; the others are kept for the check."""
WIDTHS: Mapping[str, int] = {
    "Qwen/Qwen3-4B-Instruct-2507": 2560,
    "Qwen/Qwen3-8B": 4096,
    "Qwen/Qwen3-8B-Base": 4096,
    "Qwen/Qwen3-32B": 5120,
    "Qwen/Qwen3-30B-A3B": 2048,
    "Qwen/Qwen3-30B-A3B-Base": 2048,
    "Qwen/Qwen3-30B-A3B-Instruct-2507": 2048,
    "Qwen/Qwen3-VL-30B-A3B-Instruct": 2048,
    "Qwen/Qwen3-235B-A22B-Instruct-2507": 4096,
    "Qwen/Qwen3-VL-235B-A22B-Instruct": 4096,
    "Qwen/Qwen3.5-4B": 2560,
    "Qwen/Qwen3.5-9B": 4096,
    "Qwen/Qwen3.5-9B-Base": 4096,
    "Qwen/Qwen3.5-27B": 5120,
    "Qwen/Qwen3.6-27B": 5120,
    "Qwen/Qwen3.5-35B-A3B": 2048,
    "Qwen/Qwen3.5-35B-A3B-Base": 2048,
    "Qwen/Qwen3.6-35B-A3B": 2048,
    "Qwen/Qwen3.5-397B-A17B": 4096,
    "openai/gpt-oss-20b": 2880,
    "openai/gpt-oss-120b": 2880,
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": 2688,
    "nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-BF16": 4096,
    "nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16": 8192,
}
"""Hidden widths from the makers' configurations; those of the largest Nemotrons are from memory."""


@dataclass(frozen=True)
class Pair:
    """One measured run of the sweep."""

    rate: float
    rank: int
    loss: float


OWN = "1 constant (3e-4), 2 choices"
"""Decisions about Tunecast's prior that were made with this table in view. The constant is the rate of wide
models. The choices are that it follows neither width nor batch there, and that knowledge of rates and ranks
from small models counts less for large ones."""
Rule = Callable[[str, Sequence[Pair]], Pair]


def read(path: Path) -> dict[str, list[Pair]]:
    """The measured pairs by model."""
    found: dict[str, list[Pair]] = defaultdict(list)
    with path.open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            pair = Pair(float(row["learning_rate"]), int(row["lora_rank"]), float(row["test_nll"]))
            found[row["model"]].append(pair)
    return dict(found)


def facts(name: str) -> ModelFacts:
    """A model of the right width and size; nothing else about it matters."""
    config = {"model_type": "llama", "hidden_size": WIDTHS[name], "intermediate_size": 4 * WIDTHS[name]}
    config |= {"num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 150_000}
    made = facts_from_config(config | {"max_position_embeddings": 4096}, name)
    assert made is not None
    billions = re.search(r"(\d+(?:\.\d+)?)[Bb]", name)
    assert billions is not None
    return replace(made, parameters=round(float(billions[1]) * 1e9))


def prior_rule(prior: KnownRuns) -> Rule:
    """The measured pair with the lowest predicted loss."""

    def choose(name: str, pairs: Sequence[Pair]) -> Pair:
        dataset = DatasetFacts("sweep", "", "", {}, {}, {}, 0)
        task = TaskDescription(dataset, facts(name), TOKENS, 100_000)
        plans = [Plan(_pipeline(pair), TOKENS, STEPS) for pair in pairs]
        qualities = prior.predict(task, plans)
        return min(zip(qualities, pairs, strict=True), key=lambda both: both[0].loss)[1]

    return choose


def nearest(rate: float, rank: int | None) -> Rule:
    """The measured pair nearest to a constant one: by rate first, then by rank; None takes the largest."""

    def choose(_: str, pairs: Sequence[Pair]) -> Pair:
        def distance(pair: Pair) -> tuple[float, float]:
            apart = -pair.rank if rank is None else abs(math.log(pair.rank / rank))
            return round(abs(math.log(pair.rate / rate)), 6), apart

        return min(pairs, key=distance)

    return choose


def best_of_table(table: Mapping[str, Sequence[Pair]]) -> tuple[str, Rule]:
    """The constant with the lowest mean regret over this same table."""
    rates = sorted({pair.rate for pairs in table.values() for pair in pairs})
    ranks: list[int | None] = [*sorted({pair.rank for pairs in table.values() for pair in pairs}), None]
    choices = {(rate, rank): nearest(rate, rank) for rate in rates for rank in ranks}
    rate, rank = min(choices, key=lambda key: statistics.fmean(regrets(table, choices[key]).values()))
    return f"best of the table ({rate:g}, r={rank or 'largest'})", choices[rate, rank]


def regrets(table: Mapping[str, Sequence[Pair]], rule: Rule) -> dict[str, float]:
    """Nats above the best measured pair, by model."""
    return {name: rule(name, pairs).loss - min(pair.loss for pair in pairs) for name, pairs in table.items()}


def _pipeline(pair: Pair) -> Pipeline:
    values = {
        "learning_rate": pair.rate,
        "lora_r": pair.rank,
        "lora_alpha": ALPHA,
        "per_device_train_batch_size": BATCH,
    }
    return Pipeline("lora", {**BASELINE.hyperparameters, **values})


def report(table: Mapping[str, Sequence[Pair]]) -> None:
    """Print one line for each rule, over all models, the judged family and the others."""
    label, best = best_of_table(table)
    rules: dict[str, tuple[Rule, str]] = {
        "Tunecast's prior": (prior_rule(default_prior()), OWN),
        "Tunecast's prior, literature alone": (prior_rule(KnownRuns([])), OWN),
        "3e-4 at the largest measured rank": (nearest(3e-4, None), "1"),
        "2e-4 r=16": (nearest(2e-4, 16), "0"),
        label: (best, "2"),
    }
    print(f"{'mean regret in nats':<40}{'all':>9}{'Qwen':>9}{'others':>9}{'worst':>9}  taken from this table")
    for name, (rule, fitted) in rules.items():
        found = regrets(table, rule)
        own = [value for model, value in found.items() if model.startswith(FITTED)]
        others = [value for model, value in found.items() if not model.startswith(FITTED)]
        means = (statistics.fmean(part) for part in (list(found.values()), own, others))
        print(f"{name:<40}{''.join(f'{mean:9.4f}' for mean in means)}{max(found.values()):9.4f}  {fitted}")
    chosen = prior_rule(default_prior())
    print("\nchosen by the prior, regret:")
    for name, pairs in sorted(table.items()):
        pair = chosen(name, pairs)
        print(f"  {name:<48}{pair.rate:8g} r={pair.rank:<4}{pair.loss - min(p.loss for p in pairs):8.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("sweep", type=Path, help="CSV of measured pairs")
    path: Path = parser.parse_args().sweep
    if not path.is_file():
        parser.exit(0, f"skipped: there is no file {path}; the public sweep is not part of this project\n")
    table = read(path)
    unknown = sorted(set(table) - set(WIDTHS))
    report({name: pairs for name, pairs in table.items() if name in WIDTHS})
    print(f"\nleft out, width not known: {', '.join(unknown) or 'none'}")


if __name__ == "__main__":
    main()
