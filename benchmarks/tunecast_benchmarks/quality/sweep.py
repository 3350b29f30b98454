"""What advice on rates costs on a published sweep of rates and ranks, with model families left out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from tunecast.predictor.endings import Ending, observations
from tunecast.predictor.quality_training import divergence_of, divergence_probability
from tunecast.predictor.rate_law import fit_rate_law

SWEEP = "tinker_sft_sweep"
SMALL = 4_000_000_000
"""Parameters below which a model is small."""
Choose = Callable[[Sequence[Ending]], Ending]
"""Picks one of the measured endings of a model without looking at values."""


def by_model(endings: Sequence[Ending]) -> dict[str, list[Ending]]:
    """Return the endings of the sweep by model."""
    found: dict[str, list[Ending]] = {}
    for ending in endings:
        if ending.table == SWEEP:
            found.setdefault(ending.task.model.name, []).append(ending)
    return found


def nearest(rate: float) -> Choose:
    """Choose the measured rate nearest to a constant one, at the largest rank that was measured with it."""

    def choose(endings: Sequence[Ending]) -> Ending:
        def distance(ending: Ending) -> tuple[float, float]:
            apart = abs(math.log(ending.pipeline.number("learning_rate") / rate))
            return round(apart, 6), -ending.pipeline.number("lora_r")

        return min(endings, key=distance)

    return choose


def best_constant(table: Mapping[str, Sequence[Ending]]) -> float:
    """Return the rate with the lowest mean regret over the whole table; it knows what it is judged on."""
    rates = sorted({ending.pipeline.number("learning_rate") for of in table.values() for ending in of})
    return min(rates, key=lambda rate: mean_regret(table, lambda _: nearest(rate)))


def mean_regret(table: Mapping[str, Sequence[Ending]], choose_for: Callable[[str], Choose]) -> float:
    """Return the mean over models of nats above the best measured ending.

    Args:
        choose_for: Returns the choice for the model of that name, made without its family.
    """
    regrets = []
    for name, endings in table.items():
        taken = choose_for(name)(endings)
        regrets.append(math.exp(taken.value) - math.exp(min(ending.value for ending in endings)))
    return statistics.fmean(regrets)


def report(endings: Sequence[Ending]) -> list[str]:
    """Return lines on the sweep's rates and divergence, every model's family left out; none without it."""
    table = by_model(endings)
    if not table:
        return []
    laws, odds = {}, {}
    for family in {of[0].family for of in table.values()}:
        known = [ending for ending in endings if not (ending.table and ending.family == family)]
        laws[family] = fit_rate_law(observations(known))
        odds[family] = divergence_of(laws[family], known)

    def by_law(name: str) -> Choose:
        law = laws[table[name][0].family]

        def cost(one: Ending) -> float:
            return float(law.judge(one.task.model, [(one.pipeline, one.total_steps)])[1][0])

        return lambda of: min(of, key=cost)

    constant = best_constant(table)
    small = {name: of for name, of in table.items() if of[0].task.model.parameters < SMALL}
    asked = [ending for of in table.values() for ending in of]
    chances = []
    for ending in asked:
        found = odds[ending.family]
        chances.append(divergence_probability(laws[ending.family], found, [ending])[0] if found else 0.0)
    lines = [
        f"{SWEEP}: {len(table)} models, each with its family left out, mean nats above the best measured",
        f"rate law: {mean_regret(table, by_law):.5f}",
        f"constant of 3e-4: {mean_regret(table, lambda _: nearest(3e-4)):.5f}",
        f"best constant of this table ({constant:g}): {mean_regret(table, lambda _: nearest(constant)):.5f}",
        f"divergence, AUC: {auc(chances, [ending.diverged for ending in asked]):.3f}",
    ]
    if small:
        by_constant = mean_regret(small, lambda _: nearest(3e-4))
        lines.append(
            f"{len(small)} of them below 4 billion parameters: rate law {mean_regret(small, by_law):.5f}, "
            f"constant of 3e-4 {by_constant:.5f}"
        )
    return lines


def auc(chances: Sequence[float], outcomes: Sequence[bool]) -> float:
    """Return the probability that a run which diverged had the higher odds than one which did not."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(outcomes, chances))
