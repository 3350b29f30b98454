"""Loads what other packages add to Tunecast by entry point."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tunecast.errors import first_line

Plugin = TypeVar("Plugin")


def load_plugins(group: str, kind: type[Plugin], register: Callable[[Plugin], None]) -> dict[str, str]:
    """Register every plugin of an entry-point group; a broken one does not stop the others.

    Args:
        group: Name of the group. An entry point names a class without parameters, or a function like it.
        kind: The class that plugins derive from.
        register: Adds one plugin.

    Returns:
        What is wrong with each plugin that cannot be used, by the name of its entry point.
    """
    from importlib.metadata import entry_points

    broken = {}
    for entry in entry_points(group=group):
        try:
            plugin = entry.load()()
            if not isinstance(plugin, kind):
                raise TypeError(f"{entry.value} is not a {kind.__name__}")
            register(plugin)
        except Exception as error:  # another package's mistake must not end every command
            broken[entry.name] = first_line(error)
    return broken


def broken_plugin(name: str, broken: dict[str, str]) -> str:
    """Return a hint if ``name`` is that of an installed plugin that cannot be loaded, else an empty text."""
    if name not in broken:
        return ""
    return f"An installed package has it, but cannot be loaded: {broken[name]}. Update or uninstall it. "
