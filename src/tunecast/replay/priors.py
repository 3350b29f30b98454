"""Priors of replayed strategies: trained on the runs that may be known there, and cached."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tunecast import estimate, methods, models, predictor, records
from tunecast.cache import cache_folder
from tunecast.data import dependence
from tunecast.errors import StoreError
from tunecast.predictor import Prior, read_prior
from tunecast.predictor.train import train
from tunecast.records import Run, stable_hash
from tunecast.store import published_runs

LIBRARIES = ("numpy", "scipy", "scikit-learn")
"""Libraries that train: another version learns something else from the same runs."""


def kept_prior(runs: Sequence[Run], hidden: Sequence[str] = ()) -> Prior:
    """Return the prior of these runs, from the cache if the same code and libraries trained it before.

    It learns from the shipped published tables too, but not from ``hidden`` features.

    Raises:
        StoreError: There are too few tasks among them.
    """
    path = cache_folder() / "priors" / f"{_key(runs, hidden)}.safetensors"
    if path.is_file():
        try:
            return read_prior(path)
        except StoreError:  # cut off while it was written, or of another version
            path.unlink(missing_ok=True)
    prior = train(runs, _published(), hidden=hidden)
    # A prior that cannot be cached is trained again next time.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        prior.save(path)
    return prior


def _key(runs: Sequence[Run], hidden: Sequence[str]) -> str:
    """Hash everything that makes a prior: its runs with every fact, the families, code and libraries."""
    # In full, because a run keeps its id when it goes on, or gets another clock or description.
    stands = sorted(_hash(run) for run in runs)
    libraries = [_version(name) for name in LIBRARIES]
    return stable_hash([_code(), libraries, list(hidden), stands, _hash(_published())], 32)


def _hash(anything: object) -> str:
    return hashlib.sha256(repr(anything).encode("utf-8", "surrogatepass")).hexdigest()


@cache
def _published() -> list[Run]:
    """Return the shipped published runs; they share no task with recorded ones."""
    return published_runs()


@cache
def _code() -> str:
    """Hash the code that trains."""
    return stable_hash([hashlib.sha256(file.read_bytes()).hexdigest() for file in _sources()], 32)


def _sources() -> list[Path]:
    """List the files of the predictor, and of the modules that compute its features."""
    rooms = (estimate, methods, models, predictor)
    packages = (Path(str(package.__file__)).parent for package in rooms)
    files = [file for package in packages for file in sorted(package.rglob("*.py"))]
    return [*(Path(str(module.__file__)) for module in (records, dependence)), *files]


def _version(library: str) -> str:
    try:
        return f"{library} {version(library)}"
    except PackageNotFoundError:  # training will say so
        return library
