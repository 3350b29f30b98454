"""Says why a strategy's choice makes sense: facts of the history that hold whichever strategy chose."""

from __future__ import annotations

import math

from tunecast.search.history import History, rung
from tunecast.search.leader import leader


def reason(history: History, index: int) -> str:
    """Return one sentence about a trial that a strategy chose to advance.

    Args:
        history: What the strategy chose by.
        index: The trial's place.
    """
    trial = history.trials[index]
    if not trial.curve:
        waiting = history.startable
        if waiting[:1] == [index]:
            return f"It is the next of {_count(len(waiting), 'candidate')} that were not tried yet."
        return f"It is the strategy's choice among {_count(len(waiting), 'candidate')} not tried yet."
    if leader(history) == index:
        rivals = sum(one.can_lead for one in history.trials)
        return f"It leads: of {_count(rivals, 'trial')} with points, it is predicted to end best."
    nominal = rung(trial.share)
    losses = [loss for one in history.trials if (loss := one.loss_at(nominal)) is not None]
    own = trial.loss_at(nominal)
    rank = 1 + sum(loss < (math.inf if own is None else own) for loss in losses)
    return f"It has the {_ordinal(rank)} of {_count(len(losses), 'loss', 'es')} at {share_text(nominal)}."


def share_text(nominal: int) -> str:
    """Write a rung of the fidelity grid: ``1/8 of the full length``."""
    return "the full length" if nominal >= 0 else f"1/{2**-nominal} of the full length"


def _count(amount: int, name: str, ending: str = "s") -> str:
    return f"{amount} {name}{'' if amount == 1 else ending}"


def _ordinal(rank: int) -> str:
    if rank == 1:
        return "lowest"
    ending = {1: "st", 2: "nd", 3: "rd"}.get(rank % 10 if rank % 100 not in (11, 12, 13) else 0, "th")
    return f"{rank}{ending} lowest"
