"""Prints the docstrings of compiled modules. :mod:`standard_library` runs this file as a script.

It runs in an isolated Python because libraries change the built-ins of a process: ``site`` adds ``exit``,
notebooks add ``display``, and Ray replaces ``print``. For the same reason it imports nothing of Tunecast.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from typing import Any


def docstrings_of_module(module_name: str) -> Iterator[tuple[str, str, str]]:
    """Yield the kind, full name and docstring of the module's callables and of its classes' methods."""
    prefix = "" if module_name == "builtins" else f"{module_name}."
    for name, value in _callables(importlib.import_module(module_name)):
        is_class = isinstance(value, type)
        yield "class" if is_class else "function", prefix + name, value.__doc__ or ""
        for method, member in _callables(value) if is_class else ():
            yield "function", f"{prefix}{name}.{method}", member.__doc__ or ""


def _callables(owner: Any) -> Iterator[tuple[str, Any]]:
    for name, value in vars(owner).items():
        if callable(value) and not name.startswith("_"):
            yield name, value


if __name__ == "__main__":
    json.dump([docstring for name in sys.argv[1:] for docstring in docstrings_of_module(name)], sys.stdout)
