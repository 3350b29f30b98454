"""Whether and for how long a session trains its winner once more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tunecast.errors import ConfigurationError
from tunecast.ranges import check_range

FINAL_SHARE = 0.5
"""Share of a budget that is kept for a final training within it."""


@dataclass(frozen=True)
class FinalChoice:
    """The value of ``--final-training``.

    Args:
        kind: ``none``, ``budget`` (within the budget) or ``epochs`` (outside of it).
        epochs: Passes over the training examples; None unless ``kind`` is ``epochs``.
    """

    kind: Literal["none", "budget", "epochs"]
    epochs: float | None = None

    @property
    def searched_share(self) -> float:
        """The part of a budget in seconds or tokens that the search may spend."""
        return 1 - FINAL_SHARE if self.kind == "budget" else 1.0

    @classmethod
    def parse(cls, text: str) -> FinalChoice:
        """Read ``none``, ``budget`` or ``epochs=3``.

        Raises:
            ConfigurationError: The text is none of them, or the number is out of range.
        """
        if text == "none":
            return cls("none")
        if text == "budget":
            return cls("budget")
        name, _, number = text.partition("=")
        try:
            epochs = float(number) if name == "epochs" else None
        except ValueError:
            epochs = None
        if epochs is None:
            raise ConfigurationError(
                f"--final-training {text!r} is not none, budget or epochs=N.",
                "Write it as --final-training epochs=3.",
            )
        check_range("epochs", epochs, called="--final-training epochs")
        return cls("epochs", epochs)
