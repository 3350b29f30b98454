"""Trackers: services that show a session's runs while it runs. One file each, one register line each.

Other packages add one by an entry point of the group ``tunecast.trackers``, which names a subclass of
:class:`~tunecast.trackers.tracker.Tracker`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec

from tunecast.errors import ConfigurationError, did_you_mean
from tunecast.plugins import broken_plugin, load_plugins
from tunecast.trackers.mlflow_tracker import MlflowTracker
from tunecast.trackers.tensorboard_tracker import TensorBoardTracker
from tunecast.trackers.tracker import OpenTracker, Results, TrackedSession, Tracker
from tunecast.trackers.tracking import Tracking
from tunecast.trackers.trackio_tracker import TrackioTracker
from tunecast.trackers.wandb_tracker import WandbTracker

__all__ = [
    "OpenTracker",
    "Results",
    "TrackedSession",
    "Tracker",
    "Tracking",
    "get_trackers",
    "register",
    "tracker_names",
]

ENTRY_POINT_GROUP = "tunecast.trackers"

_TRACKERS: dict[str, Tracker] = {}


def register(tracker: Tracker) -> None:
    """Add a tracker; fails at import if its name is missing or taken.

    Raises:
        ValueError: The name is missing or taken.
    """
    name = getattr(tracker, "name", "")
    if not name or name in _TRACKERS:
        raise ValueError(f"the tracker name {name!r} is missing or taken")
    _TRACKERS[name] = tracker


register(MlflowTracker())
register(WandbTracker())
register(TensorBoardTracker())
register(TrackioTracker())


def tracker_names() -> tuple[str, ...]:
    """Return the names of all trackers, whether their libraries are installed or not."""
    _load_plugins()
    return tuple(_TRACKERS)


def get_trackers(names: Sequence[str]) -> tuple[Tracker, ...]:
    """Return the trackers of these names, each once.

    Raises:
        ConfigurationError: One is unknown, or its library is not installed.
    """
    return tuple(_get(name) for name in dict.fromkeys(names))


def _get(name: str) -> Tracker:
    broken = _load_plugins()
    if name not in _TRACKERS:
        raise ConfigurationError(
            f"--track: there is no tracker {name!r}.",
            f"{broken_plugin(name, broken)}{did_you_mean(name, _TRACKERS)}"
            f"Known ones: {', '.join(_TRACKERS)}.",
        )
    tracker = _TRACKERS[name]
    if find_spec(tracker.library) is None:
        raise ConfigurationError(
            f"--track: {name} needs the package {tracker.library}.",
            f"Install it: {tracker.installation or f'pip install {tracker.library}'}",
        )
    return tracker


@cache
def _load_plugins() -> dict[str, str]:
    """Register the plugins, once; returns what is wrong with broken ones."""
    return load_plugins(ENTRY_POINT_GROUP, Tracker, register)  # type: ignore[type-abstract]
