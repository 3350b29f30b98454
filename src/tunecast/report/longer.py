"""The longer run that a session proposes, in a sentence and as a command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunecast.report.numbers import duration, rate
from tunecast.results import LongerRun
from tunecast.session.commands import longer_training_command


def longer_sentence(longer: LongerRun) -> str:
    """Say what the longer run of a session takes and brings."""
    if longer.loss < longer.measured_loss:
        least, middle, most = (
            1 - end / longer.measured_loss for end in (longer.high, longer.loss, longer.low)
        )
        gain = f"a validation loss {middle:.0%} lower (90% interval: {least:.0%} to {most:.0%})"
    else:
        gain = "no lower validation loss"
        if longer.basis == "recorded runs":
            gain += ", which is uncertain, because few of them differ in their length alone"
    basis = "the forecast, for as many passes as so far" if longer.basis == "forecast" else "recorded runs"
    epochs = "one epoch" if longer.epochs == 1 else f"{longer.epochs:g} epochs"
    return (
        f"To train it for longer, {epochs} on {longer.examples:,} examples at learning rate "
        f"{rate(longer.pipeline.learning_rate)}: about {duration(longer.seconds)}, with 90% certainty under "
        f"{duration(longer.seconds_high)}. Predicted from {basis}: {gain}."
    )


def longer_command(longer: LongerRun, configuration: Mapping[str, Any]) -> str:
    """Return the command that trains the longer run, in a folder beside the session's.

    Args:
        configuration: The session's settings, as the command shall name them.
    """
    return longer_training_command(configuration, longer.epochs)
