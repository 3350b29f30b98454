"""Strategies that know other tasks: ``transfer`` believes what was learned there, ``quick-tune`` refits it.

Both rank candidates by the loss that is foretold for the end of the schedule, given every point so far, and
advance the one with the best acquisition: the probability of an improvement of 1% over the best that is
foretold of a trial which has begun, over the square root of the seconds to the next point. On recorded runs
of tasks left out that came sooner to a good end than Quick-Tune's expected improvement per second.

``transfer`` trains nothing on the task at hand (Strangmann et al., arXiv 2411.01195); what it has measured
moves the level of all predictions, by conditioning. ``quick-tune`` also learns which pipelines were missed
(Arango et al., arXiv 2306.03828).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tunecast.records import Outcome, Pipeline, stable_hash
from tunecast.search.acquisition import Acquisition, ProbabilityOfImprovement, log_expected_improvement
from tunecast.search.context import Context
from tunecast.search.history import History, Remaining, Strategy, TrialView, points_to_end
from tunecast.search.offsets import Misses, condition, refit
from tunecast.search.simple import asha
from tunecast.search.trust import is_trusted
from tunecast.surrogates import Prediction, Prior, Setting, prior_at
from tunecast.surrogates.examples import WORST
from tunecast.surrogates.features import curve_row, joined, log_loss, pipeline_row

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Outlook", "Seer", "setting_of", "transfer"]

KNOWN_DEVIATION = 0.01
"""Standard deviation of the logarithm of a loss that was measured at full length: another seed's."""
ENDINGS = (Outcome.COMPLETED, Outcome.DIVERGED)
"""How a trial stands whose end says what its pipeline is worth."""
JUDGED_SHARE = 0.1
"""Share of the schedule from which on a trial says whether the prior ordered it rightly."""
WORTH_PROMOTING = math.log(0.002)
"""Logarithm of the relative improvement below which a budget in trials, once all have begun, ends."""
COMMIT = 1.5
"""Time for less than this many ends is time for one: a probe would take it from the trial under way."""
LEAST_SECONDS = 1e-3
LEAST_SHARE = 1e-6
NOTHING = Prediction(np.zeros(0), np.zeros(0), np.zeros(0), None, np.zeros(0))


@dataclass(frozen=True)
class Outlook:
    """What is foretold of all candidates; all arrays have shape (trials,).

    Args:
        mean: Mean of the logarithm of the final loss over the zero-shot loss.
        deviation: Its standard deviation.
        step_seconds: Seconds to the next point.
        end_seconds: Seconds to the end.
        failure: Probability that a trial which has not begun diverges.
        is_trusted: Whether what was measured lets the prior be believed.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    step_seconds: NDArray[np.float64]
    end_seconds: NDArray[np.float64]
    failure: NDArray[np.float64]
    is_trusted: bool


def setting_of(context: Context, usual_zero_shot_loss: float) -> Setting:
    """What surrogates are told of a task; a zero-shot loss that nobody measured is the usual one."""
    unique = context.unique_examples or context.dataset.examples.get("train", 1)
    zero_shot = context.zero_shot_loss
    if zero_shot is None or not math.isfinite(zero_shot):
        zero_shot = usual_zero_shot_loss
    return Setting(context.dataset, context.model, context.full_length_tokens, unique, zero_shot)


class Seer:
    """Foretells all candidates of a session from its history. What it keeps between calls is computed from
    pipelines alone, so that it stays a pure function.

    Args:
        context: The task.
        prior: The trained surrogates.
        refits: Whether pipelines that are alike are believed to be missed alike.
    """

    def __init__(self, context: Context, prior: Prior, *, refits: bool = False) -> None:
        self._prior = prior
        self._refits = refits
        self.setting = setting_of(context, prior.provenance.zero_shot_loss)
        self.is_new = prior.novelty.is_new(context.dataset.meta_features)
        device = context.machine.device.partition(":")[0] if context.machine else None
        self._knows_seconds = prior.cost is not None and device in (None, prior.cost.device)
        self._evaluation = context.evaluation_seconds or 0.0
        self._rows: dict[int, tuple[Pipeline, list[float]]] = {}

    def outlook(self, history: History) -> Outlook:
        """What is foretold of every candidate."""
        trials = history.trials
        pipelines = np.array([self._row(index, trial.pipeline) for index, trial in enumerate(trials)])
        blank = np.array([curve_row((), self.setting.zero_shot_loss)]).repeat(len(trials), axis=0)
        before = self._prior.predict_rows(self.setting, joined(self.setting, pipelines, blank))
        begun = np.array([i for i, trial in enumerate(trials) if _tells(trial)], dtype=np.int64)
        after = self._after(trials, begun, pipelines)
        went_on = np.array([trials[index].outcome is not Outcome.DIVERGED for index in begun], dtype=bool)
        mean, variance = self._moved(pipelines, before, after, begun, went_on)
        for place, index in enumerate(begun):
            mean[index], variance[index] = after.end[place], after.variance[place]
            if trials[index].outcome is Outcome.COMPLETED:
                mean[index], variance[index] = self._relative(trials[index]), KNOWN_DEVIATION**2
        seconds = self._seconds_per_token(trials, before)
        step, end = _seconds(trials, seconds, self.setting.full_length_tokens, self._evaluation)
        failure = np.where([bool(trial.curve) for trial in trials], 0.0, before.failure)
        trusted = self._trusted(trials, begun, before, after)
        return Outlook(mean, np.sqrt(variance), step, end, failure, trusted)

    def _row(self, index: int, pipeline: Pipeline) -> list[float]:
        known = self._rows.get(index)
        if known is None or (known[0] is not pipeline and known[0] != pipeline):
            known = self._rows[index] = (pipeline, pipeline_row(pipeline, self.setting.model))
        return known[1]

    def _relative(self, trial: TrialView) -> float:
        if trial.outcome is Outcome.DIVERGED:
            return WORST  # as surrogates were taught, whatever its last point was
        return log_loss(trial.curve[-1].validation.loss) - log_loss(self.setting.zero_shot_loss)

    def _after(
        self, trials: Sequence[TrialView], begun: NDArray[np.int64], pipelines: NDArray[np.float64]
    ) -> Prediction:
        """What is foretold of trials that have points or have diverged, given that."""
        if not len(begun):
            return NOTHING
        start = self.setting.zero_shot_loss
        curves = []
        for index in begun:
            rate = trials[index].pipeline.number("learning_rate")
            curves.append(curve_row(trials[index].curve, start, rate))
        rows = joined(self.setting, pipelines[begun], np.array(curves))
        found = self._prior.predict_rows(self.setting, rows)
        # What has come to its end or diverged is known; one that broke down might have ended like others.
        ended = np.array([trials[index].outcome in ENDINGS for index in begun])
        last = np.array([self._relative(trials[index]) for index in begun])
        return replace(
            found,
            end=np.where(ended, last, found.end),
            variance=np.where(ended, KNOWN_DEVIATION**2, found.variance),
        )

    def _moved(
        self,
        pipelines: NDArray[np.float64],
        before: Prediction,
        after: Prediction,
        begun: NDArray[np.int64],
        went_on: NDArray[np.bool_],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Predictions without a curve, moved by how far the prior was off where there is one.

        A trial that diverged says nothing of the level of those that do not.
        """
        own = before.variance - before.shared
        scale = pipelines.std(axis=0)
        features = (pipelines - pipelines.mean(axis=0)) / np.where(scale > 1e-9, scale, 1.0)
        known = begun[went_on]
        misses = Misses(
            after.end[went_on] - before.end[known],
            after.variance[went_on],
            before.shared[known],
            own[known],
            features[known],
        )
        if self._refits:
            miss, variance = refit(misses, before.shared, own, features)
        else:
            miss, variance = condition(misses, before.shared, own)
        return before.end + miss, variance

    def _seconds_per_token(self, trials: Sequence[TrialView], before: Prediction) -> NDArray[np.float64]:
        """As measured where there are points, else as the prior has it, at this machine's speed."""
        tokens = float(self.setting.full_length_tokens)
        measured = np.array([_measured_seconds_per_token(trial) for trial in trials])
        hinted = np.array([_hinted_seconds_per_token(trial, tokens, self._evaluation) for trial in trials])
        if not self._knows_seconds or before.log_seconds_per_token is None:
            usual = float(np.nanmedian(hinted)) if np.isfinite(hinted).any() else 1e-3
            guess = np.where(np.isfinite(hinted), hinted, usual)
        else:
            guess = np.exp(before.log_seconds_per_token)
            for told in (measured, hinted):
                if np.isfinite(told).any():
                    guess = guess * float(np.nanmedian(told / guess))
                    break
        return np.where(np.isfinite(measured), measured, guess)

    def _trusted(
        self,
        trials: Sequence[TrialView],
        begun: NDArray[np.int64],
        before: Prediction,
        after: Prediction,
    ) -> bool:
        judged = [
            place
            for place, index in enumerate(begun)
            if trials[index].outcome is Outcome.DIVERGED or trials[index].curve[-1].share >= JUDGED_SHARE
        ]
        those = begun[judged]
        own = before.variance[those] - before.shared[those] + after.variance[judged]
        return is_trusted(before.end[those], np.sqrt(own), after.end[judged], is_new=self.is_new)


def transfer(
    context: Context,
    *,
    refits: bool = False,
    prior: Prior | None = None,
    acquisition: Acquisition | None = None,
) -> Strategy:
    """Advance the candidate whose probability of an improvement is best worth its seconds.

    Where the prior proves to be wrong about this task, successive halving takes over, with new candidates in
    an order that has nothing to do with the prior.

    Args:
        context: The task.
        refits: Whether the surrogate is refitted to the running search.
        prior: The trained surrogates; None for those that the context names.
        acquisition: Scores candidates; None for the probability of improvement as above.

    Raises:
        StoreError: There is no such prior, or it is damaged.
    """
    seer = Seer(context, prior or prior_at(context.prior), refits=refits)
    score = acquisition or ProbabilityOfImprovement()
    fallback = asha()

    def choose(history: History, remaining: Remaining) -> int | None:
        outlook = seer.outlook(history)
        if not outlook.is_trusted:
            return _as_drawn(history, fallback(history, remaining))
        chosen = _eligible(history, remaining, outlook)
        if not len(chosen):
            return None
        incumbent = _incumbent(history, outlook)
        scores = score(
            outlook.mean[chosen], outlook.deviation[chosen], incumbent, outlook.step_seconds[chosen]
        ) + np.log1p(-np.minimum(outlook.failure[chosen], 0.999))
        best = int(chosen[int(np.argmax(scores))])
        gain = float(log_expected_improvement(outlook.mean[[best]], outlook.deviation[[best]], incumbent)[0])
        if _is_enough(history, remaining, context, gain, float(outlook.end_seconds[best])):
            return None
        return _as_drawn(history, best) if seer.is_new and _is_turn_of_chance(history) else best

    return choose


def _eligible(history: History, remaining: Remaining, outlook: Outlook) -> NDArray[np.int64]:
    """Candidates that can be advanced; where some can still reach their end, only those.

    As long as none has, and hardly more is left than one takes, the best one goes on.
    """
    none_new = remaining.new_trials is not None and remaining.new_trials <= 0
    found = np.array(
        [
            index
            for index, trial in enumerate(history.trials)
            if trial.is_open and (trial.is_started or not none_new)
        ],
        dtype=np.int64,
    )
    needed = _needed_to_end(history, remaining, outlook)
    if needed is None or not len(found):
        return found
    affordable = found[needed[found] <= 1.0]
    if not len(affordable):
        return found
    if any(trial.outcome is Outcome.COMPLETED for trial in history.trials):
        return affordable
    begun = affordable[[history.trials[index].is_started for index in affordable]]
    pool = begun if len(begun) else affordable
    best = pool[np.argmin(outlook.mean[pool])]
    return np.array([best]) if COMMIT * needed[best] > 1.0 else affordable


def _needed_to_end(history: History, remaining: Remaining, outlook: Outlook) -> NDArray[np.float64] | None:
    """What each candidate takes to its end over what is left, shape (trials,); None where trials count."""
    if remaining.seconds is not None:
        return outlook.end_seconds / max(remaining.seconds, LEAST_SECONDS)
    if remaining.full_lengths is None:
        return None
    done = np.array([trial.curve[-1].share if trial.curve else 0.0 for trial in history.trials])
    return (1.0 - done) / max(remaining.full_lengths, LEAST_SHARE)


def _incumbent(history: History, outlook: Outlook) -> float:
    """The best end that is foretold of a trial which has begun; before any has, the expert pipeline's."""
    begun = [
        float(outlook.mean[index])
        for index, trial in enumerate(history.trials)
        if trial.curve and not trial.outcome.is_failure
    ]
    return min(begun, default=float(outlook.mean[0]))


def _is_enough(
    history: History, remaining: Remaining, context: Context, log_gain: float, seconds: float
) -> bool:
    """Whether what can still be gained is not worth its seconds.

    Args:
        history: The trials.
        remaining: What is left.
        context: Says what 1% of the loss is worth.
        log_gain: Logarithm of the expected relative improvement by the best candidate.
        seconds: What it takes to bring that to its end.
    """
    if not any(trial.curve for trial in history.trials):
        return False
    if remaining.new_trials is not None and remaining.new_trials <= 0 and log_gain < WORTH_PROMOTING:
        return True
    if context.value_minutes is None:
        return False
    return 100 * math.exp(min(log_gain, 0.0)) * context.value_minutes * 60 < seconds


def _is_turn_of_chance(history: History) -> bool:
    """Whether a new trial is not the prior's to choose: every other, where nothing alike was learned from."""
    return sum(trial.is_started for trial in history.trials[1:]) % 2 == 1


def _as_drawn(history: History, index: int | None) -> int | None:
    """Instead of a new candidate one by chance, which has nothing to do with the prior.

    The dice are hashes of pipelines together with all other candidates: the same at every call of a session,
    and others in another session, though it may have many of the pipelines too.
    """
    if index is None or history.trials[index].is_started:
        return index
    everyone = stable_hash([trial.pipeline.id for trial in history.trials])
    new = [i for i, trial in enumerate(history.trials) if trial.is_open and not trial.is_started]
    return min(new, key=lambda place: stable_hash([everyone, history.trials[place].pipeline.id]))


def _tells(trial: TrialView) -> bool:
    """Whether a trial says anything of how pipelines end."""
    return bool(trial.curve) or trial.outcome is Outcome.DIVERGED


def _measured_seconds_per_token(trial: TrialView) -> float:
    """Seconds of training per token so far; NaN before the first point."""
    if not trial.curve or trial.curve[-1].tokens_seen <= 0:
        return math.nan
    seconds = sum(point.training.wall for point in trial.curve)
    return seconds / trial.curve[-1].tokens_seen if seconds > 0 else math.nan


def _hinted_seconds_per_token(trial: TrialView, full_length_tokens: float, evaluation: float) -> float:
    """What the session expects of the next step's training per token; NaN where it says nothing."""
    if not trial.expected_seconds or trial.next_share is None:
        return math.nan
    done = trial.curve[-1].share if trial.curve else 0.0
    tokens = (trial.next_share - done) * full_length_tokens
    training = trial.expected_seconds - evaluation
    return training / tokens if tokens > 0 and training > 0 else math.nan


def _seconds(
    trials: Sequence[TrialView], per_token: NDArray[np.float64], full_length_tokens: int, evaluation: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Seconds of every trial to its next point and to its end, evaluations included.

    Args:
        trials: The trials.
        per_token: Seconds of training per token, shape (trials,).
        full_length_tokens: Horizon of every trial.
        evaluation: Seconds of an evaluation before any of a trial was measured.
    """
    evaluations = [point.evaluation.wall for trial in trials for point in trial.curve]
    evaluation = sum(evaluations) / len(evaluations) if evaluations else evaluation
    done = np.array([trial.curve[-1].share if trial.curve else 0.0 for trial in trials])
    following = np.array([1.0 if trial.next_share is None else trial.next_share for trial in trials])
    points = np.array([points_to_end(share) for share in following])
    step = (following - done) * full_length_tokens * per_token + evaluation
    end = (1.0 - done) * full_length_tokens * per_token + points * evaluation
    return np.maximum(step, LEAST_SECONDS), np.maximum(end, LEAST_SECONDS)
