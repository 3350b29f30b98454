"""The rule of ``transfer`` and ``quick-tune``: advance the trial whose expected improvement is worth most.

A trained prior predicts the loss at the end of every candidate, given every point so far. The expected
improvement is measured against the best predicted end of a trial that has begun. It is divided by the square
root of a price: the geometric mean of the seconds to the next point and those to the end, or of the tokens in
a budget that does not count seconds. In two of three turns, uncertainty adds to the expected improvement only
up to a limit. On recorded runs of held-out tasks this reached good ends sooner than Quick-Tune's expected
improvement per second. Once trials without an end have taken half as much as those with one, the best of them
is trained to its end.

Neither strategy trains the prior on the task at hand (Strangmann et al., arXiv 2411.01195). Measured points
move the level of all predictions, by conditioning. In ``quick-tune`` a Gaussian process also learns which
pipelines the prior misjudges, after the idea of Arango et al. (arXiv 2306.03828), who refit their surrogate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tunecast.arrays import Flags, Floats, Ints
from tunecast.records import Outcome, stable_hash
from tunecast.search.acquisition import Acquisition, ExpectedImprovement
from tunecast.search.context import Context
from tunecast.search.cost_benefit import log_gain, log_success, only_worthy, worth_its_seconds
from tunecast.search.history import History, Policy, Remaining
from tunecast.search.simple import asha
from tunecast.search.task_predictor import MIN_SECONDS, TaskPredictor, TrialPredictions

WORTH_PROMOTING = math.log(0.002)
"""Logarithm of the relative improvement below which a budget in trials, once all have begun, ends."""
COMMIT = 1.5
"""With less than this many trial lengths of budget left, continue one trial and start no other."""
PROBED = 0.5
"""Budget that trials without an end may take, per full length of those with one, before the best of them is
trained to its end."""
IMPROVEMENT = ExpectedImprovement(cost_exponent=0.5)
"""Scores candidates, with the limit on uncertainty below."""
MAX_UNCERTAINTY = 0.03
"""The most that the deviation of a predicted end may count, in the logarithm of the loss."""
UNLIMITED_TURNS = 3
"""The limit does not apply while the number of trials that have begun is a multiple of this."""
MIN_SHARE = 1e-6
NEW = (
    "The dataset is unlike all that the prior learned from: every other new trial of the search is drawn at "
    "random."
)
ASIDE = (
    "The prior ranks the pipelines of this task wrongly. Until it ranks them rightly, the search ignores it "
    "and uses successive halving."
)
OTHER = (
    "The prior is not the one that the session began with: the search ignores it and uses successive halving "
    "of the same candidates."
)


def transfer(context: Context, *, learns_residuals: bool = False) -> Policy:
    """Advance the candidate whose expected improvement is most worth its seconds.

    If the prior proves wrong about this task, or is not the one that the session began with, successive
    halving takes over and draws new candidates at random.

    Raises:
        ConfigurationError: The context has no trained prior.
    """
    predictor = TaskPredictor(context, context.needed_prior, learns_residuals=learns_residuals)
    return Guided(predictor, context)


@dataclass(frozen=True)
class Guided:
    """The rule of :func:`transfer` on the predictions of any predictor.

    Deviations above ``most_uncertainty`` count as this, except in every third turn.
    """

    predictor: TaskPredictor
    context: Context
    score: Acquisition = IMPROVEMENT
    most_uncertainty: float = MAX_UNCERTAINTY

    def __call__(self, history: History, remaining: Remaining) -> int | None:
        """Choose the next trial; see :data:`~tunecast.search.history.Policy`."""
        predictions = self.predictor.predict(history)
        if not (predictions.is_reliable and self.context.is_prior_kept):
            # With a different prior, ignore all its predictions, including gains.
            kept = self.context.is_prior_kept
            seen = _worth_halving(history, self.context, predictions) if kept else history
            return _as_drawn(seen, asha()(seen, remaining), seen.startable)
        to_beat = _best_predicted_end(history, predictions)
        worth = _is_worth_it(history, remaining, self.context, predictions, to_beat)
        chosen = _eligible(history, remaining, predictions, worth)
        if not len(chosen):
            return None
        price = _price(history, remaining, predictions)
        deviation = _limited(history, predictions.deviation, self.most_uncertainty)
        scores = self.score(predictions.mean[chosen], deviation[chosen], to_beat, price[chosen])
        best = int(chosen[int(np.argmax(scores + log_success(predictions.failure[chosen])))])
        by_chance = self.predictor.is_new and _is_turn_of_chance(history)
        return _as_drawn(history, best, chosen) if by_chance else best

    def diagnostics(self, history: History) -> tuple[str, ...]:
        """Say whether the dataset is unlike all that was learned from, and whether the prior is ignored."""
        warnings = [NEW] if self.predictor.is_new else []
        if not self.context.is_prior_kept:
            warnings.append(OTHER)
        elif not self.predictor.predict(history).is_reliable:
            warnings.append(ASIDE)
        return tuple(warnings)


def _price(history: History, remaining: Remaining, predictions: TrialPredictions) -> Floats:
    """Return what each candidate costs: the geometric mean of its next step and of all that it still needs.

    The budget sets the unit: seconds, or else full lengths of training. A budget in tokens or trials buys the
    same on a slow machine as on a fast one, so the choices must not follow measured seconds. A cheap step has
    little value if finishing the trial is expensive.
    """
    if remaining.seconds is not None:
        return np.sqrt(predictions.step_seconds * predictions.end_seconds)
    step = [(trial.next_share or 1.0) - trial.share for trial in history.trials]
    end = [1.0 - trial.share for trial in history.trials]
    return np.maximum(np.sqrt(np.multiply(step, end)), MIN_SHARE)


def _limited(history: History, deviation: Floats, most_uncertainty: float) -> Floats:
    """Limit how much uncertainty adds to the expected improvement, shape (trials,).

    The predicted ends of some pipelines, above all those with high rates, are very uncertain, because these
    ended far apart on other tasks. On one task good pipelines gain much the same, so most of them may end far
    worse than predicted and hardly better. Full uncertainty bonuses favour the least certain candidates;
    without any, the search never finds out where a task differs from the others.
    """
    if _begun_beside_first(history) % UNLIMITED_TURNS == 0:
        return deviation
    return np.minimum(deviation, most_uncertainty)


def _eligible(history: History, remaining: Remaining, predictions: TrialPredictions, worth: Flags) -> Ints:
    """Return the candidates that can be advanced and are worth it.

    If some candidates can still reach their end, only those count. If no trial has ended and hardly more than
    one trial's budget is left, only the best one counts, and likewise if that one is due. Seconds pass for
    all workers alike, so each spends them on the best trial that is free. Workers compete for tokens: if the
    best trial is another worker's, the tokens are kept for it.
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
    promising = _promising(shared, history, remaining, predictions, worth)
    return promising[np.array([history.trials[index].is_open for index in promising], dtype=bool)]


def _promising(
    found: Ints, history: History, remaining: Remaining, predictions: TrialPredictions, worth: Flags
) -> Ints:
    """Return the found trials, running ones included, that deserve the rest of the budget."""
    needed = _needed_to_end(history, remaining, predictions)
    affordable = found if needed is None else found[needed[found] <= 1.0]
    if needed is None or not len(affordable):
        return found[worth[found]]
    affordable = affordable[worth[affordable]]
    if not len(affordable):
        return affordable
    begun = affordable[[history.trials[index].is_started for index in affordable]]
    pool = begun if len(begun) else affordable
    best = int(pool[np.argmin(predictions.mean[pool])])
    has_end = any(trial.outcome is Outcome.COMPLETED for trial in history.trials)
    is_late = not has_end and COMMIT * needed[best] > 1.0
    return np.array([best]) if is_late or _is_due(best, history, predictions) else affordable


def _is_due(best: int, history: History, predictions: TrialPredictions) -> bool:
    """Whether the best trial under way should now be trained to its end.

    It is due if it should end better than all finished trials, and if the other unfinished ones have taken
    :data:`PROBED` of the budget of the finished ones plus its own remaining need. Without this rule, the
    search probes as long as any candidate may be better: in a budget of a few trials hardly one would end,
    and a choice among many quarter-done trials is worth less than three ends.
    """
    trial = history.trials[best]
    ends = [predictions.mean[i] for i, one in enumerate(history.trials) if one.outcome is Outcome.COMPLETED]
    if not (trial.is_started and trial.is_open) or predictions.mean[best] >= min(ends, default=math.inf):
        return False
    probed = sum(one.share for one in history.trials if one.outcome is not Outcome.COMPLETED) - trial.share
    return probed >= PROBED * (len(ends) + 1.0 - trial.share)


def _needed_to_end(history: History, remaining: Remaining, predictions: TrialPredictions) -> Floats | None:
    """Return the share of what is left that each candidate needs to its end; None if the budget counts
    trials.
    """
    if remaining.seconds is not None:
        return predictions.end_seconds / max(remaining.seconds, MIN_SECONDS)
    if remaining.full_lengths is None:
        return None
    # The step that a worker is at counts as spent.
    done = [trial.next_share if trial.running else trial.share for trial in history.trials]
    return (1.0 - np.array(done, dtype=np.float64)) / max(remaining.full_lengths, MIN_SHARE)


def _best_predicted_end(history: History, predictions: TrialPredictions) -> float:
    """Return the best predicted end of a trial that has begun; before the first, the baseline's."""
    begun = [float(predictions.mean[index]) for index, trial in enumerate(history.trials) if trial.can_lead]
    return min(begun, default=float(predictions.mean[0]))


def _is_worth_it(
    history: History, remaining: Remaining, context: Context, predictions: TrialPredictions, to_beat: float
) -> Flags:
    """Return which candidates should gain enough for the seconds to their ends, shape (trials,).

    ``to_beat`` is the logarithm of the loss to improve on.
    """
    worth = np.ones(len(history.trials), dtype=bool)
    if not any(trial.curve for trial in history.trials):
        return worth
    mean, deviation, failure = predictions.mean, predictions.deviation, predictions.failure
    if not remaining.may_start:
        worth &= log_gain(mean, deviation, to_beat, failure) >= WORTH_PROMOTING
    minutes = context.value_minutes
    if minutes is not None:
        worth &= worth_its_seconds(mean, deviation, to_beat, predictions.end_seconds, minutes, failure)
    return worth


def _worth_halving(history: History, context: Context, predictions: TrialPredictions) -> History:
    """Return the history that successive halving sees if the prior is ignored: trials worth their seconds.

    New trials are drawn at random, so they are expected to end as earlier ones did.
    """
    if context.value_minutes is None:
        return history
    begun = np.array([trial.can_lead for trial in history.trials])
    if begun.sum() < 2:
        return history
    ends = predictions.mean[begun]
    worth = worth_its_seconds(
        np.where(begun, predictions.mean, ends.mean()),
        np.where(begun, predictions.deviation, ends.std(ddof=1)),
        _best_predicted_end(history, predictions),
        predictions.end_seconds,
        context.value_minutes,
        predictions.failure,
    )
    return only_worthy(history, worth)


def _is_turn_of_chance(history: History) -> bool:
    """Whether the next new trial is drawn at random, as every other is on a dataset unlike all known ones."""
    return _begun_beside_first(history) % 2 == 1


def _begun_beside_first(history: History) -> int:
    """Count the started trials except the first; this is the number of the turn."""
    return sum(trial.is_started for trial in history.trials[1:])


def _as_drawn(history: History, index: int | None, places: Iterable[int]) -> int | None:
    """Replace a chosen new trial by one drawn at random from those at ``places`` that have not begun.

    The draw hashes each pipeline together with all candidates. It is the same at every call in a session, and
    differs in another session even if that shares many pipelines. A trial that has begun stays chosen.
    """
    if index is None or history.trials[index].is_started:
        return index
    everyone = stable_hash([trial.pipeline.id for trial in history.trials])
    new = (int(place) for place in places if not history.trials[place].is_started)
    return min(new, key=lambda place: stable_hash([everyone, history.trials[place].pipeline.id]))
