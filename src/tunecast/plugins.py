"""Finds methods, strategies and trackers by name: built-in ones, and those of other packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Generic, TypeVar

from tunecast.errors import ConfigurationError, did_you_mean, first_line

Plugin = TypeVar("Plugin")


def _accept(plugin: object) -> None:
    """Accept every plugin."""


class Registry(Generic[Plugin]):
    """All plugins of one kind by name, in the order of registration.

    Other packages add theirs by an entry point, which names a class without parameters or a function like it.
    They are loaded when a name is first looked up. A broken one does not stop the others.

    Args:
        word: What a plugin of this kind is called in messages, such as ``method``.
        group: Group of the entry points, such as ``tunecast.methods``.
        kind: The class that plugins derive from. Each has an attribute ``name``.
        check: Raises ``ValueError`` if a plugin lacks something else.
    """

    def __init__(
        self, word: str, group: str, kind: type[Plugin], check: Callable[[Plugin], None] = _accept
    ) -> None:
        self._word = word
        self._group = group
        self._kind = kind
        self._check = check
        self._plugins: dict[str, Plugin] = {}
        self._broken: dict[str, str] | None = None

    def register(self, plugin: Plugin) -> None:
        """Add a plugin.

        Raises:
            ValueError: Its name is missing or taken, or it lacks something else.
        """
        name = getattr(plugin, "name", "")
        if not name or name in self._plugins:
            raise ValueError(f"the {self._word} name {name!r} is missing or taken")
        self._check(plugin)
        self._plugins[name] = plugin

    def all(self) -> Mapping[str, Plugin]:
        """Return all plugins by name."""
        self._load()
        return self._plugins

    def hint(self, name: str) -> str:
        """Return what to do about an unknown name: repair a broken package, or write a similar name."""
        broken = self._load()
        if name in broken:
            return (
                f"An installed package has it, but cannot be loaded: {broken[name]}. Update or uninstall it. "
            )
        return did_you_mean(name, self._plugins)

    def _load(self) -> dict[str, str]:
        """Register the plugins of other packages, once; return what is wrong with broken ones by name."""
        if self._broken is None:
            from importlib.metadata import entry_points

            self._broken = {}
            for entry in entry_points(group=self._group):
                try:
                    plugin = entry.load()()
                    if not isinstance(plugin, self._kind):
                        raise TypeError(f"{entry.value} is not a {self._kind.__name__}")
                    self.register(plugin)
                except Exception as error:  # another package's mistake must not end every command
                    self._broken[entry.name] = first_line(error)
        return self._broken


def check_library(name: str, library: str, installation: str = "", *, flag: str) -> None:
    """Refuse a plugin whose library is not installed, without importing it.

    Args:
        name: Name of the plugin.
        library: The package that it needs; empty for none.
        installation: The command that installs it; empty for pip and its name.
        flag: The option that named the plugin.

    Raises:
        ConfigurationError: The library is not installed.
    """
    if library and find_spec(library) is None:
        raise ConfigurationError(
            f"{flag}: {name} needs the package {library}.",
            f"Install it: {installation or f'pip install {library}'}",
        )
