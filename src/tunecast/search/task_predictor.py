"""What the trained surrogates predict of a running search: the end of every candidate, and its seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tunecast.predictor import Prior, PriorPredictions, Setting
from tunecast.predictor.examples import WORST
from tunecast.predictor.features import curve_row, joined, log_loss, pipeline_row, standardised
from tunecast.records import Outcome, Pipeline, device_kind
from tunecast.search.context import Context
from tunecast.search.failure import either, memory_odds
from tunecast.search.history import History, TrialView, points_to_end
from tunecast.search.prior_check import is_trusted
from tunecast.search.residual_gp import Residuals, condition, refit

if TYPE_CHECKING:
    from numpy.typing import NDArray

KNOWN_DEVIATION = 0.01
"""Standard deviation of the logarithm of a loss that was measured at full length: another seed's."""
ENDINGS = (Outcome.COMPLETED, Outcome.DIVERGED)
"""How a trial stands whose end says what its pipeline is worth."""
JUDGED_SHARE = 0.1
"""Share of the schedule from which on a trial says whether the prior ordered it rightly."""
LEAST_SECONDS = 1e-3
NOTHING = PriorPredictions(np.zeros(0), np.zeros(0), np.zeros(0), None, np.zeros(0))


@dataclass(frozen=True)
class Outlook:
    """What is predicted of all candidates; all arrays have shape (trials,).

    Args:
        mean: Mean of the logarithm of the final loss over the zero-shot loss.
        deviation: Its standard deviation.
        step_seconds: Seconds to the next point.
        end_seconds: Seconds to the end.
        failure: Probability that a trial which has not begun diverges, or that memory does not hold it.
        is_trusted: Whether what was measured lets the prior be believed.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    step_seconds: NDArray[np.float64]
    end_seconds: NDArray[np.float64]
    failure: NDArray[np.float64]
    is_trusted: bool


@dataclass(frozen=True)
class _Known:
    """What a pipeline alone tells: its features, and the odds that memory does not hold it."""

    pipeline: Pipeline
    row: list[float]
    beyond_memory: float


def setting_of(context: Context, usual_zero_shot_loss: float) -> Setting:
    """What surrogates are told of a task; a zero-shot loss that nobody measured is the usual one."""
    zero_shot = context.zero_shot_loss
    if zero_shot is None or not math.isfinite(zero_shot):
        zero_shot = usual_zero_shot_loss
    return Setting(
        context.dataset, context.model, context.full_length_tokens, context.unique_examples, zero_shot
    )


class TaskPredictor:
    """Predicts all candidates of a session from its history. What it keeps between calls is computed from
    pipelines alone, so that it stays a pure function.

    Args:
        context: The task.
        prior: The trained surrogates.
        learns_residuals: Whether similar pipelines share what the prior missed.
    """

    def __init__(self, context: Context, prior: Prior, *, learns_residuals: bool = False) -> None:
        self._prior = prior
        self._learns_residuals = learns_residuals
        self.setting = setting_of(context, prior.provenance.zero_shot_loss)
        self.is_new = prior.novelty.is_new(context.dataset.meta_features)
        self._context = context
        self._device = device_kind(context.machine.device) if context.machine else "cpu"
        self._evaluation = context.evaluation_seconds or 0.0
        self._known: dict[int, _Known] = {}

    def outlook(self, history: History) -> Outlook:
        """What is predicted of every candidate."""
        trials = history.trials
        known = [self._told(index, trial.pipeline) for index, trial in enumerate(trials)]
        pipelines = np.array([one.row for one in known])
        before = self._prior.predict(self.setting, joined(self.setting, pipelines), self._device)
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
        failure = either(before.failure, np.array([one.beyond_memory for one in known]))
        failure = np.where([bool(trial.curve) for trial in trials], 0.0, failure)
        trusted = self._trusted(trials, begun, before, after)
        return Outlook(mean, np.sqrt(variance), step, end, failure, trusted)

    def _told(self, index: int, pipeline: Pipeline) -> _Known:
        known = self._known.get(index)
        if known is None or (known.pipeline is not pipeline and known.pipeline != pipeline):
            odds = float(memory_odds(self._context, self._prior, [pipeline])[0])
            row = pipeline_row(pipeline, self.setting.model)
            known = self._known[index] = _Known(pipeline, row, odds)
        return known

    def _relative(self, trial: TrialView) -> float:
        if trial.outcome is Outcome.DIVERGED:
            return WORST  # as surrogates were taught, whatever its last point was
        return log_loss(trial.curve[-1].validation.loss) - log_loss(self.setting.zero_shot_loss)

    def _after(
        self, trials: Sequence[TrialView], begun: NDArray[np.int64], pipelines: NDArray[np.float64]
    ) -> PriorPredictions:
        """What is predicted of trials that have points or have diverged, given that."""
        if not len(begun):
            return NOTHING
        start = self.setting.zero_shot_loss
        curves = []
        for index in begun:
            rate = trials[index].pipeline.number("learning_rate")
            curves.append(curve_row(trials[index].curve, start, rate))
        rows = joined(self.setting, pipelines[begun], np.array(curves))
        found = self._prior.predict(self.setting, rows)
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
        before: PriorPredictions,
        after: PriorPredictions,
        begun: NDArray[np.int64],
        went_on: NDArray[np.bool_],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Predictions without a curve, moved by how far the prior was off where there is one.

        A trial that diverged says nothing of the level of those that do not.
        """
        own = before.variance - before.shared
        features = standardised(pipelines)
        known = begun[went_on]
        residuals = Residuals(
            after.end[went_on] - before.end[known],
            after.variance[went_on],
            before.shared[known],
            own[known],
            features[known],
        )
        if self._learns_residuals:
            miss, variance = refit(residuals, before.shared, own, features)
        else:
            miss, variance = condition(residuals, before.shared, own)
        return before.end + miss, variance

    def _seconds_per_token(
        self, trials: Sequence[TrialView], before: PriorPredictions
    ) -> NDArray[np.float64]:
        """As measured where there are points, else as the prior has it, at this machine's speed."""
        tokens = float(self.setting.full_length_tokens)
        measured = np.array([_measured_seconds_per_token(trial) for trial in trials])
        hinted = np.array([_hinted_seconds_per_token(trial, tokens, self._evaluation) for trial in trials])
        if before.log_seconds_per_token is None:
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
        before: PriorPredictions,
        after: PriorPredictions,
    ) -> bool:
        judged = [
            place
            for place, index in enumerate(begun)
            if trials[index].outcome is Outcome.DIVERGED or trials[index].share >= JUDGED_SHARE
        ]
        those = begun[judged]
        own = before.variance[those] - before.shared[those] + after.variance[judged]
        return is_trusted(before.end[those], np.sqrt(own), after.end[judged], is_new=self.is_new)


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
    tokens = (trial.next_share - trial.share) * full_length_tokens
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
    done = np.array([trial.share for trial in trials])
    following = np.array([1.0 if trial.next_share is None else trial.next_share for trial in trials])
    points = np.array([points_to_end(share) for share in following])
    step = (following - done) * full_length_tokens * per_token + evaluation
    end = (1.0 - done) * full_length_tokens * per_token + points * evaluation
    return np.maximum(step, LEAST_SECONDS), np.maximum(end, LEAST_SECONDS)
