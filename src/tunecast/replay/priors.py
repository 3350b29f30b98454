"""The prior of a replayed strategy: trained anew on what may be known there, and kept for the next time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from tunecast import surrogates
from tunecast.cache import cache_folder
from tunecast.errors import StoreError
from tunecast.methods import rates
from tunecast.records import Run, stable_hash
from tunecast.surrogates import Prior, read_prior
from tunecast.surrogates.train import train

__all__ = ["PriorOf", "kept_prior"]

PriorOf = Callable[[Sequence[Run]], Prior]
"""Gives the prior that was trained on some runs and on no others."""


def kept_prior(runs: Sequence[Run]) -> Prior:
    """The prior of these runs: from the cache, where the same code was trained on the same runs before.

    Which family of surrogates is taken, and how its spread is corrected, is decided inside these runs.

    Args:
        runs: All that the prior may know.

    Raises:
        StoreError: There are too few tasks among them.
        ConfigurationError: A library that trains is not installed.
    """
    path = cache_folder() / "priors" / f"{_key(runs)}.safetensors"
    if path.is_file():
        try:
            return read_prior(path)
        except StoreError:  # cut off while it was written, or of another version: it is made anew
            path.unlink(missing_ok=True)
    prior = train(runs)
    # What cannot be kept is trained anew next time.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        prior.save(path)
    return prior


def _key(runs: Sequence[Run]) -> str:
    # A run that was paused goes on under the same id, and on another clock it has other seconds.
    stands = sorted([run.id, run.outcome.value, len(run.curve), run.exclusive, _seconds(run)] for run in runs)
    return stable_hash([_code(), stands], 32)


def _seconds(run: Run) -> str:
    parts = [seconds for point in run.curve for seconds in (point.training, point.evaluation)]
    return stable_hash([[seconds.wall, seconds.cpu] for seconds in parts], 16)


@cache
def _code() -> str:
    """A hash of the code that surrogates are made by, which changes what they say of the same runs."""
    files = [Path(rates.__file__), *sorted(Path(surrogates.__file__).parent.rglob("*.py"))]
    return stable_hash([file.read_text(encoding="utf-8") for file in files], 32)
