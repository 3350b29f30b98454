"""What may follow a session: a longer run of its best pipeline, or more data, as recorded runs predict it."""

from __future__ import annotations

import math
from dataclasses import replace

from tunecast.errors import UserError
from tunecast.ranges import MAX_EPOCHS
from tunecast.records import Score
from tunecast.results import DataForecast, LongerRun, MoreData
from tunecast.scaling.forecasting import WIDEST
from tunecast.session.final_training import FinalTrainer
from tunecast.session.finalists import Finalist
from tunecast.session.forecast import MULTIPLES
from tunecast.session.recommendation import Length, predicted_change

GAIN_FACTORS = (0.0, 3.5)
"""90% of measured changes of ln(loss) lie between these multiples of the predicted ones: 25 recorded pairs of
runs that differ in their length alone, predicted without runs of the task by one forest and the law of
lengths, with the data of ``benchmarks/longer_runs.py``. The 5% quantile of -0.04 counts as 0."""
NEARLY = 0.9
"""A winner that was trained for this part of ``--epochs`` is offered twice the epochs that it had."""


def longer_run(
    trainer: FinalTrainer, finalist: Finalist, measured: Score, untouched: float, whole: MoreData | None
) -> LongerRun | None:
    """Propose a longer run of the best pipeline; None if it is not longer, or needs too many epochs.

    Args:
        finalist: The checkpoint whose pipeline is to be trained for longer.
        measured: Its score on validation.
        untouched: Validation loss of the base model in nats per label token.
        whole: Forecast of the loss with all training examples, None without one.
    """
    assert finalist.trial is not None
    so_far = finalist.trained_on
    epochs = _epochs(so_far.epochs, trainer.settings.epochs)
    if epochs > MAX_EPOCHS:
        return None
    longer = replace(trainer, settings=replace(trainer.settings, final_training=f"epochs={epochs!r}"))
    plan = longer.from_base_model(finalist.trial)
    if plan.pipeline is None:
        return None
    trial = longer.laid_out(plan, finalist.trial)[0]
    if whole is not None:
        predicted = whole.loss, whole.low, whole.high
    else:
        long = Length(plan.full_length_tokens, so_far.available)
        try:
            predicted = _predicted(trainer, finalist, measured, untouched, long)
        except UserError:  # such as damaged recorded runs: nothing is predicted
            return None
    return LongerRun(
        pipeline=plan.pipeline,
        epochs=epochs,
        examples=so_far.available,
        seconds=longer.seconds(trial),
        seconds_high=longer.seconds(trial, upper=True),
        measured_loss=measured.loss,
        loss=predicted[0],
        low=predicted[1],
        high=predicted[2],
        basis="forecast" if whole is not None else "recorded runs",
    )


def with_more_data(
    trainer: FinalTrainer, finalist: Finalist, measured: Score, untouched: float, forecast: DataForecast
) -> DataForecast:
    """Predict from recorded runs what more data would bring, for a forecast that could not be measured.

    Args: as in :func:`longer_run`. The forecast is returned as it is if recorded runs predict nothing.
    """
    assert finalist.trial is not None
    seen, tokens = finalist.trained_on.examples, _tokens(finalist)
    found = []
    for multiple in MULTIPLES:
        try:
            long = Length(multiple * tokens, multiple * seen)
            loss, low, high = _predicted(trainer, finalist, measured, untouched, long)
        except UserError:
            return forecast
        supported, reason = high <= WIDEST * low, "recorded runs"
        if not supported:
            reason = f"too wide: the 90% interval spans a factor of {high / low:.2f}"
        found.append(MoreData(long.examples, loss, low, high, "recorded runs", supported, reason))
    return replace(forecast, data_size=seen, measured=((seen, measured.loss),), forecasts=tuple(found))


def _predicted(
    trainer: FinalTrainer, finalist: Finalist, measured: Score, untouched: float, long: Length
) -> tuple[float, float, float]:
    """Predict the loss of a longer training of a checkpoint's pipeline, with the ends of the 90% interval."""
    assert finalist.trial is not None
    change = predicted_change(
        trainer.settings,
        trainer.prepared,
        untouched,
        finalist.trial.spec.pipeline,
        finalist.trial.plan.total_steps,
        Length(_tokens(finalist), finalist.trained_on.examples),
        long,
    )
    return changed(measured.loss, change)


def _tokens(finalist: Finalist) -> int:
    assert finalist.trial is not None
    plan = finalist.trial.plan
    return plan.tokens_at(plan.total_steps)


def changed(loss: float, change: float) -> tuple[float, float, float]:
    """Return a loss after a predicted change of its logarithm, with the ends of the 90% interval.

    A longer run is not predicted to be worse: the better of the two checkpoints is kept.
    """
    fall = min(change, 0.0)
    least, most = GAIN_FACTORS
    return loss * math.exp(fall), loss * math.exp(most * fall), loss * math.exp(least * fall)


def _epochs(so_far: float, wanted: float) -> float:
    """Return the passes of the longer run: the most that a trial may have, or twice as many as so far."""
    if so_far < NEARLY * wanted:
        return wanted
    return float(f"{2 * so_far:.2g}")
