"""The range of every number that a user gives, checked in one place before anything is computed from it.

The upper ends lie far beyond any use. They keep a slip of the keyboard from becoming an infinite loop, an
overflow or an allocation that fails after minutes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tunecast.errors import ConfigurationError

MAX_SEED = 2**32 - 1
"""Largest seed that all random generators take."""
MAX_LENGTH = 10**9
"""Longest sequence in tokens."""
MAX_HYPERPARAMETER = 1e6
"""Largest value of any hyperparameter."""
MAX_SECONDS = 10 * 365 * 86_400.0
MAX_TOKENS = 1e15
MAX_TRIALS = 1e6
MAX_EPOCHS = 10_000

_GIGABYTES = 1e9

AT_LEAST: Mapping[str, tuple[float, float]] = {
    "seed": (0, MAX_SEED),
    "seeds": (1, 10_000),
    "workers": (1, 1_024),
    "at_once": (1, 1_024),
    "gpus_per_trial": (1, 1_000),
    "threads": (1, 10_000),
    "devices": (1, 100_000),
    "max_length": (1, MAX_LENGTH),
    "max_new_tokens": (0, 1e7),
    "batch_size": (1, 1e6),
    "eval_batch_size": (1, 1e6),
    "unique_examples": (1, 1e12),
    "test_examples": (1, 1e12),
    "patience": (1, 1_000_000),
    "top": (1, 1_000),
    "price": (0, 1e9),
    "clients": (1, 1_000_000),
    "rounds": (1, 100_000),
    "steps": (1, 1e9),
    "lora_r": (1, MAX_HYPERPARAMETER),
    "lora_alpha": (1, MAX_HYPERPARAMETER),
    "alpha": (0, 10),
    "temperature": (0, 100),
    "answer_tokens": (1, 1e7),
    "thinking_seconds": (0, 1e9),
    "guard_limit": (0, 1_000),
    "tolerance": (0, 1_000),
}
"""Smallest and largest value by the name of a setting."""
ABOVE_ZERO: Mapping[str, float] = {
    "epochs": MAX_EPOCHS,
    "local_epochs": MAX_EPOCHS,
    "learning_rate": MAX_HYPERPARAMETER,
    "sparse_rate": MAX_HYPERPARAMETER,
    "perturbation": MAX_HYPERPARAMETER,
    "round_seconds": MAX_SECONDS,
    "wait_seconds": MAX_SECONDS,
    "keep_gb": _GIGABYTES,
    "max_memory_gb": _GIGABYTES,
    "memory_gb": _GIGABYTES,
    "top_p": 1,
    "share": 1,
    "density": 1,
    "value": 1e6,
    "max_observed": 1e18,
    "data_size": 1e18,
    "budgets": 1e6,
    "model_parameters": 1e18,
}
"""Largest value by the name of a setting that must be above 0."""


def check_range(name: str, value: float | None, *, called: str = "") -> None:
    """Check a number that a user gave.

    Args:
        name: Name of the setting, a key of :data:`AT_LEAST` or :data:`ABOVE_ZERO`.
        value: The number, None if it was not given.
        called: Its name in the message, by default the flag.

    Raises:
        ConfigurationError: It is out of range, or not a number.
    """
    if value is None:
        return
    flag = called or f"--{name.replace('_', '-')}"
    least, most = AT_LEAST.get(name) or (0.0, ABOVE_ZERO[name])
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigurationError(f"{flag} must be a finite number, not {value}.")
    if name in ABOVE_ZERO and not value > 0:
        raise ConfigurationError(f"{flag} must be above 0, not {value}.")
    if value < least:
        raise ConfigurationError(f"{flag} must be at least {least:g}, not {value}.")
    if value > most:
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        raise ConfigurationError(f"{flag} must be at most {most:,.0f}, not {shown[:40]}.")
