"""Strategies that know other tasks: ``transfer`` believes what was learned there, ``quick-tune`` refits it.

Both rank candidates by the loss that is predicted for the end of the schedule, given every point so far, and
advance the one with the best acquisition: the improvement that is expected over the best that is predicted of
a trial which has begun, over the square root of its seconds, the geometric mean of those to the next point
and those to the end. In two of three turns, how unsure an end is raises hope up to a limit only. On recorded
runs of tasks left out that came sooner to a good end than Quick-Tune's expected improvement per second. Once
half as much was spent on trials without an end as on those with one, the best of the former goes on to its
end.

``transfer`` trains nothing on the task at hand (Strangmann et al., arXiv 2411.01195); what it has measured
moves the level of all predictions, by conditioning. ``quick-tune`` also learns which pipelines were missed
(Arango et al., arXiv 2306.03828).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tunecast.records import Outcome, stable_hash
from tunecast.search.acquisition import Acquisition, ExpectedImprovement
from tunecast.search.context import Context
from tunecast.search.cost_benefit import log_gain, log_success, only_worthy, worth_its_seconds
from tunecast.search.history import History, Policy, Remaining
from tunecast.search.simple import asha
from tunecast.search.task_predictor import LEAST_SECONDS, Outlook, TaskPredictor

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORTH_PROMOTING = math.log(0.002)
"""Logarithm of the relative improvement below which a budget in trials, once all have begun, ends."""
COMMIT = 1.5
"""With less than this many trial lengths of budget left, commit to one trial and start no other."""
PROBED = 0.5
"""How much trials without an end may take, for each full length of those with one, before the best of them is
brought to its end."""
IMPROVEMENT = ExpectedImprovement(cost_exponent=0.5)
"""What candidates are scored by, with the limit to hope below."""
MOST_HOPE = 0.03
"""How much of the deviation of a predicted end counts, in the logarithm of the loss."""
HOPEFUL_TURNS = 3
"""While the number of trials that have begun is a multiple of this, all of it counts."""
LEAST_SHARE = 1e-6
NEW = (
    "The dataset is unlike all that the prior learned from: every other new trial of the search is left to "
    "chance."
)
ASIDE = (
    "The order in which the prior expects pipelines to end proved wrong on this task: it is left aside, and "
    "the search goes on by successive halving for as long as it does."
)
OTHER = (
    "The prior is not the one that the session began with: it is left aside, and the search goes on among "
    "the same candidates by successive halving."
)


def transfer(context: Context, *, learns_residuals: bool = False) -> Policy:
    """Advance the candidate whose expected improvement is best worth its seconds.

    If the prior proves wrong about this task, or is not the one that the session began with, successive
    halving takes over and draws new candidates at random.

    Args:
        context: The task, and the trained prior.
        learns_residuals: Whether a Gaussian process learns which pipelines the prior misjudges.

    Raises:
        ConfigurationError: The context has no trained prior.
    """
    predictor = TaskPredictor(context, context.needed_prior, learns_residuals=learns_residuals)
    return guided_by(predictor, context)


def guided_by(
    predictor: TaskPredictor,
    context: Context,
    acquisition: Acquisition = IMPROVEMENT,
    *,
    most_hope: float = MOST_HOPE,
) -> Policy:
    """:func:`transfer` with what is predicted by anyone.

    Args:
        predictor: Predicts all candidates.
        context: The task.
        acquisition: Scores candidates.
        most_hope: Deviations above this count for as much, but in every third turn.
    """
    return _Guided(predictor, context, acquisition, most_hope, asha())


@dataclass(frozen=True)
class _Guided:
    """The strategy of :func:`guided_by`; a :class:`~tunecast.search.history.Diagnostic`."""

    predictor: TaskPredictor
    context: Context
    score: Acquisition
    most_hope: float
    fallback: Policy

    def __call__(self, history: History, remaining: Remaining) -> int | None:
        outlook = self.predictor.outlook(history)
        if not (outlook.is_trusted and self.context.is_prior_kept):
            # Of another prior nothing is believed, what a trial may gain neither.
            kept = self.context.is_prior_kept
            seen = _worth_halving(history, self.context, outlook) if kept else history
            return _as_drawn(seen, self.fallback(seen, remaining), seen.startable)
        to_beat = _best_predicted_end(history, outlook)
        worth = _is_worth_it(history, remaining, self.context, outlook, to_beat)
        chosen = _eligible(history, remaining, outlook, worth)
        if not len(chosen):
            return None
        # A point that is had for little is worth little where the end that it may call for takes long.
        seconds = np.sqrt(outlook.step_seconds * outlook.end_seconds)
        deviation = _hoped(history, outlook.deviation, self.most_hope)
        scores = self.score(outlook.mean[chosen], deviation[chosen], to_beat, seconds[chosen])
        best = int(chosen[int(np.argmax(scores + log_success(outlook.failure[chosen])))])
        return (
            _as_drawn(history, best, chosen)
            if self.predictor.is_new and _is_turn_of_chance(history)
            else best
        )

    def diagnostics(self, history: History) -> tuple[str, ...]:
        """Whether the dataset is like none that was learned from, and whether the prior is left aside."""
        told = [NEW] if self.predictor.is_new else []
        if not self.context.is_prior_kept:
            told.append(OTHER)
        elif not self.predictor.outlook(history).is_trusted:
            told.append(ASIDE)
        return tuple(told)


def _hoped(history: History, deviation: NDArray[np.float64], most_hope: float) -> NDArray[np.float64]:
    """The deviations that an improvement is hoped for by, shape (trials,).

    Surrogates say of some pipelines, of high rates above all, that they may end anywhere: on other tasks they
    ended far apart. On one task good pipelines gain much the same, so that most may end far worse than is
    predicted and hardly better. Who takes every deviation for hope tries whatever is least certain; who takes
    none never finds out where a task is unlike the others.
    """
    return (
        deviation if _begun_beside_first(history) % HOPEFUL_TURNS == 0 else np.minimum(deviation, most_hope)
    )


def _eligible(
    history: History, remaining: Remaining, outlook: Outlook, worth: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Candidates that can be advanced and are worth it; where some can still reach their end, only those.

    As long as none has, and hardly more is left than one takes, the best one goes on; so it does where it is
    due. Seconds pass for all workers alike, and each spends them on the best that it can have. Tokens are
    taken from one another: where the best trial is another worker's, they are kept for it.
    """
    tokens_count = remaining.seconds is None and remaining.full_lengths is not None
    shared = np.array(
        [
            index
            for index, trial in enumerate(history.trials)
            if (trial.goes_on if tokens_count else trial.is_open)
            and (trial.is_started or remaining.may_start)
        ],
        dtype=np.int64,
    )
    promising = _promising(shared, history, remaining, outlook, worth)
    return promising[np.array([history.trials[index].is_open for index in promising], dtype=bool)]


def _promising(
    found: NDArray[np.int64],
    history: History,
    remaining: Remaining,
    outlook: Outlook,
    worth: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Of these trials, whether they can be advanced now or are, those that deserve what is left."""
    needed = _needed_to_end(history, remaining, outlook)
    affordable = found if needed is None else found[needed[found] <= 1.0]
    if needed is None or not len(affordable):
        return found[worth[found]]
    affordable = affordable[worth[affordable]]
    if not len(affordable):
        return affordable
    begun = affordable[[history.trials[index].is_started for index in affordable]]
    pool = begun if len(begun) else affordable
    best = int(pool[np.argmin(outlook.mean[pool])])
    has_end = any(trial.outcome is Outcome.COMPLETED for trial in history.trials)
    is_late = not has_end and COMMIT * needed[best] > 1.0
    return np.array([best]) if is_late or _is_due(best, history, outlook) else affordable


def _is_due(best: int, history: History, outlook: Outlook) -> bool:
    """Whether the best trial under way should go on to its end: it is expected to end better than all that
    have, and the others that have not took :data:`PROBED` of what those that have did and it still takes.

    Without that, probes go on as long as anything may still be better. On the budget of a few trials hardly
    any comes to its end then, and to choose among many that are a quarter done is worth less than three ends.
    """
    trial = history.trials[best]
    ends = [outlook.mean[i] for i, one in enumerate(history.trials) if one.outcome is Outcome.COMPLETED]
    if not (trial.is_started and trial.is_open) or outlook.mean[best] >= min(ends, default=math.inf):
        return False
    probed = sum(one.share for one in history.trials if one.outcome is not Outcome.COMPLETED) - trial.share
    return probed >= PROBED * (len(ends) + 1.0 - trial.share)


def _needed_to_end(history: History, remaining: Remaining, outlook: Outlook) -> NDArray[np.float64] | None:
    """What each candidate takes to its end over what is left, shape (trials,); None where trials count."""
    if remaining.seconds is not None:
        return outlook.end_seconds / max(remaining.seconds, LEAST_SECONDS)
    if remaining.full_lengths is None:
        return None
    # The step that a worker is at counts as spent.
    done = [trial.next_share if trial.running else trial.share for trial in history.trials]
    return (1.0 - np.array(done, dtype=np.float64)) / max(remaining.full_lengths, LEAST_SHARE)


def _best_predicted_end(history: History, outlook: Outlook) -> float:
    """The best end that is predicted of a trial which has begun; before any has, the baseline's."""
    begun = [float(outlook.mean[index]) for index, trial in enumerate(history.trials) if trial.can_lead]
    return min(begun, default=float(outlook.mean[0]))


def _is_worth_it(
    history: History, remaining: Remaining, context: Context, outlook: Outlook, to_beat: float
) -> NDArray[np.bool_]:
    """Which candidates are expected to gain enough for what they take to their ends, shape (trials,).

    Args:
        history: The trials.
        remaining: What is left.
        context: Says what 1% of the loss is worth.
        outlook: What is predicted.
        to_beat: Logarithm of the loss that is to be improved on.
    """
    worth = np.ones(len(history.trials), dtype=bool)
    if not any(trial.curve for trial in history.trials):
        return worth
    mean, deviation, failure = outlook.mean, outlook.deviation, outlook.failure
    if not remaining.may_start:
        worth &= log_gain(mean, deviation, to_beat, failure) >= WORTH_PROMOTING
    minutes = context.value_minutes
    if minutes is not None:
        worth &= worth_its_seconds(mean, deviation, to_beat, outlook.end_seconds, minutes, failure)
    return worth


def _worth_halving(history: History, context: Context, outlook: Outlook) -> History:
    """What halving is shown where the prior is left aside: the trials that are worth their seconds.

    New ones are drawn by chance, and are expected to end as those before them did.
    """
    if context.value_minutes is None:
        return history
    begun = np.array([trial.can_lead for trial in history.trials])
    if begun.sum() < 2:
        return history
    ends = outlook.mean[begun]
    worth = worth_its_seconds(
        np.where(begun, outlook.mean, ends.mean()),
        np.where(begun, outlook.deviation, ends.std(ddof=1)),
        _best_predicted_end(history, outlook),
        outlook.end_seconds,
        context.value_minutes,
        outlook.failure,
    )
    return only_worthy(history, worth)


def _is_turn_of_chance(history: History) -> bool:
    """Whether a new trial is not the prior's to choose: every other, where nothing alike was learned from."""
    return _begun_beside_first(history) % 2 == 1


def _begun_beside_first(history: History) -> int:
    """Trials that have begun beside the first: by this number, turns go round."""
    return sum(trial.is_started for trial in history.trials[1:])


def _as_drawn(history: History, index: int | None, places: Iterable[int]) -> int | None:
    """Instead of a new candidate one by chance, which has nothing to do with the prior's order.

    The dice are hashes of pipelines together with all other candidates: the same at every call of a session,
    and others in another session, though it may have many of the pipelines too.

    Args:
        history: The trials.
        index: What was chosen; a trial that has begun stays so.
        places: Trials of which those that have not begun are drawn from.
    """
    if index is None or history.trials[index].is_started:
        return index
    everyone = stable_hash([trial.pipeline.id for trial in history.trials])
    new = (int(place) for place in places if not history.trials[place].is_started)
    return min(new, key=lambda place: stable_hash([everyone, history.trials[place].pipeline.id]))
