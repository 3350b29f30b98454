"""Budgets in seconds, tokens or trials, and the part of one that is used."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from tunecast.errors import BudgetError, ConfigurationError
from tunecast.ranges import MAX_SECONDS, MAX_TOKENS, MAX_TRIALS

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MULTIPLES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9}


@dataclass(frozen=True)
class Used:
    """Everything a session has spent, in each unit of a budget."""

    seconds: float = 0.0
    tokens: int = 0
    trials: int = 0

    def __add__(self, other: Used) -> Used:
        return Used(self.seconds + other.seconds, self.tokens + other.tokens, self.trials + other.trials)


@dataclass(frozen=True)
class Budget:
    """The amount a session may spend.

    Args:
        kind: The unit of ``amount``.
        amount: The amount.
        text: The budget as the user wrote it.
    """

    kind: Literal["seconds", "tokens", "trials"]
    amount: float
    text: str

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``90s``, ``30m``, ``2h``, ``2M-tokens`` or ``20-trials``.

        Raises:
            BudgetError: The text is not a budget, or the amount is not positive and finite.
        """
        time = re.fullmatch(r"\s*([\d.]+)\s*([smhd])\s*", text)
        counted = re.fullmatch(r"\s*([\d.]+)([kKMGB]?)-(tokens|trials)\s*", text)
        try:
            if time:
                return cls("seconds", _positive(float(time[1]) * _UNITS[time[2]]), text)._limited()
            if counted:
                amount = float(_whole(float(counted[1]) * _MULTIPLES[counted[2]]))
                return cls("tokens" if counted[3] == "tokens" else "trials", amount, text)._limited()
        except ValueError:
            pass
        raise BudgetError(
            f"--budget {text!r} is not a budget.", "Write it as 90s, 30m, 2h, 2M-tokens or 20-trials."
        )

    def _limited(self) -> Budget:
        """Return it, if it is not more than anybody has."""
        most = {"seconds": MAX_SECONDS, "tokens": MAX_TOKENS, "trials": MAX_TRIALS}[self.kind]
        if self.amount > most:
            shown = self.text if len(self.text) <= 40 else f"{self.text[:40]}…"
            raise BudgetError(f"--budget {shown} is more than {most:,.0f} {self.kind}.", "Give less.")
        return self

    @property
    def seconds(self) -> float | None:
        """The amount if it is in seconds, else None."""
        return self.amount if self.kind == "seconds" else None

    def times(self, factor: float) -> str:
        """Write a budget ``factor`` times as large, rounded up, as ``--budget`` takes it."""
        amount = self.amount * factor
        if self.kind != "seconds":
            return f"{math.ceil(amount)}-{self.kind}"
        unit = "h" if amount >= 36_000 else "m" if amount >= 120 else "s"
        return f"{math.ceil(amount / _UNITS[unit])}{unit}"

    def fraction_left(self, used: Used) -> float:
        """Return the part of the budget that is left, 0 to 1."""
        return max(0.0, 1.0 - self.spent(used) / self.amount) if self.amount > 0 else 0.0

    def spent(self, used: Used) -> float:
        """Return the used amount in the budget's unit."""
        return {"seconds": used.seconds, "tokens": used.tokens, "trials": used.trials}[self.kind]


def duration(flag: str, text: str) -> float:
    """Parse a duration such as ``90s``, ``30m`` or ``2h`` to seconds.

    Args:
        flag: The option, for the message.
        text: Its value.

    Raises:
        ConfigurationError: The value is not a duration.
    """
    try:
        seconds = Budget.parse(text).seconds
    except BudgetError:
        seconds = None
    if seconds is None:
        raise ConfigurationError(f"{flag} {text!r} is not a duration.", "Write it as 90s, 30m or 2h.")
    return seconds


def _whole(value: float) -> int:
    if not math.isfinite(value) or value != int(value):
        raise ValueError("tokens and trials are whole numbers")
    return int(_positive(value))


def _positive(value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError("a budget must be positive and finite")
    return value
