"""How the law of rates orders a published table that it has not learned from, and one that it has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunecast.predictor.endings import Ending, observations
from tunecast.predictor.published_endings import MIN_TO_RANK
from tunecast.predictor.rate_law import RateLaw, fit_rate_law
from tunecast_benchmarks.quality.endings import by_group
from tunecast_benchmarks.quality.scores import rank_correlation


def report(endings: Sequence[Ending]) -> list[str]:
    """Return a line for each table: mean rank correlation of cost and result, by what the law learned from.

    The law learns from losses alone or from scores too, without the table or with it.
    """
    lines = []
    for table in sorted({ending.table for ending in endings} - {""}):
        asked = [ending for ending in endings if ending.table == table]
        others = [ending for ending in endings if ending.table != table]
        cells = []
        for known, name in ((others, "without it"), (endings, "with it")):
            losses = [ending for ending in known if ending.is_loss]
            by_losses, by_all = (
                mean_rank_correlation(fit_rate_law(observations(one)), asked) for one in (losses, known)
            )
            cells.append(f"{name} {by_losses:.2f} from losses, {by_all:.2f} from scores too")
        lines.append(f"{table}: {'; '.join(cells)}")
    return lines


def mean_rank_correlation(law: RateLaw, endings: Sequence[Ending]) -> float:
    """Return the mean over groups of the rank correlation of a law's costs and the results."""
    ended = [ending for ending in endings if not ending.diverged]
    found = []
    for places in by_group(ended).values():
        group = [ended[place] for place in places]
        values = np.array([one.value for one in group])
        if len(group) >= MIN_TO_RANK and np.ptp(values) > 0:
            costs = law.judge(group[0].task.model, [(one.pipeline, one.total_steps) for one in group])[1]
            found.append(rank_correlation(costs, values))
    return float(np.mean(found)) if found else float("nan")
