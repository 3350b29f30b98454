"""The register of strategies: the built-in ones, and those that other packages add by entry point."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

from tunecast.errors import ConfigurationError, did_you_mean
from tunecast.plugins import broken_plugin, load_plugins
from tunecast.search.strategy import Strategy

ENTRY_POINT_GROUP = "tunecast.strategies"
DEFAULT = "transfer"
"""The strategy of a session unless the user names another."""

_STRATEGIES: dict[str, Strategy] = {}


def register(strategy: Strategy) -> None:
    """Add a strategy; fails at import if its name is missing or taken.

    Raises:
        ValueError: The name is missing or taken.
    """
    name = getattr(strategy, "name", "")
    if not name or name in _STRATEGIES:
        raise ValueError(f"the strategy name {name!r} is missing or taken")
    _STRATEGIES[name] = strategy


def find_strategy(name: str) -> Strategy | None:
    """Return the strategy called ``name``; None if it is unknown, as in a record of another installation."""
    _load_plugins()
    return _STRATEGIES.get(name)


def get_strategy(name: str) -> Strategy:
    """Return the strategy called ``name``.

    Raises:
        ConfigurationError: There is no such strategy.
    """
    strategy = find_strategy(name)
    if strategy is None:
        from tunecast.store.record_names import STRATEGIES as CURRENT_NAMES

        names = [one.name for one in strategies()]
        renamed = f"It is called {CURRENT_NAMES[name]} now. " if name in CURRENT_NAMES else ""
        raise ConfigurationError(
            f"--strategy: there is no strategy {name!r}.",
            f"{renamed or broken_plugin(name, _load_plugins()) or did_you_mean(name, names)}"
            f"Known ones: {', '.join(names)}.",
        )
    return strategy


def strategies() -> tuple[Strategy, ...]:
    """Return all strategies that choose pipelines, in the order of registration."""
    _load_plugins()
    return tuple(strategy for strategy in _STRATEGIES.values() if strategy.has_baseline)


def rests_on_prior(name: str) -> bool:
    """Whether the strategy called ``name`` rests on a trained prior; False if it is unknown."""
    strategy = find_strategy(name)
    return strategy is not None and strategy.predicts


def check_strategy(name: str, prior: str = "", value: float | None = None) -> None:
    """Refuse an unknown strategy, a missing prior or library, and options without effect.

    Args:
        name: Its name on the command line.
        prior: File of the prior; empty for the one that comes with the package.
        value: Minutes that 1% of the loss is worth; None if the user did not say.

    Raises:
        ConfigurationError: The strategy is unknown, its library is not installed, or it uses no prior or no
            value.
        StoreError: Its prior is missing or cannot be read.
    """
    strategy = get_strategy(name)
    check_library(name, strategy.library, strategy.installation, flag="--strategy")
    if strategy.predicts:
        from tunecast.predictor import prior_at

        prior_at(prior)
    elif prior:
        raise _without_effect("--prior", name, [one.name for one in strategies() if one.predicts])
    if value is not None and not strategy.stops_early:
        raise _without_effect("--value", name, [one.name for one in strategies() if one.stops_early])


def check_library(name: str, library: str, installation: str = "", *, flag: str) -> None:
    """Refuse a strategy whose library is not installed, without importing it.

    Args:
        name: Name of the strategy.
        library: The package that it needs; empty for none.
        installation: The command that installs it; empty for pip and its name.
        flag: The option that named the strategy.

    Raises:
        ConfigurationError: The library is not installed.
    """
    if library and find_spec(library) is None:
        raise ConfigurationError(
            f"{flag}: {name} needs the package {library}.",
            f"Install it: {installation or f'pip install {library}'}",
        )


def _without_effect(flag: str, name: str, users: list[str]) -> ConfigurationError:
    return ConfigurationError(
        f"{flag}: the strategy {name} does not use it.", f"Use one of: {', '.join(users)}."
    )


@cache
def _load_plugins() -> dict[str, str]:
    """Register the plugins, once; returns what is wrong with broken ones."""
    return load_plugins(ENTRY_POINT_GROUP, Strategy, register)  # type: ignore[type-abstract]
