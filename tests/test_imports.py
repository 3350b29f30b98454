"""Imports point down the house and form no circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import tunecast

SOURCE = Path(tunecast.__file__).parent

ORDER = (
    *(
        "tunecast",
        "__main__",
        "cli",
        "dashboard",
        "api",
        "synth",
        "matching",
        "report",
        "replay",
        "collect",
        "session",
        "executors",
    ),
    *("search", "recommender", "federated", "predictor", "scaling", "exporters", "training", "proxy_tuning"),
    *("methods", "estimate", "models", "hardware", "data", "documents", "trackers", "store"),
)
"""The rooms from top to bottom. The other modules of the root lie below them all."""


def test_no_import_points_up() -> None:
    up = [
        f"{module} → {target}"
        for module in sorted(modules())
        for target in sorted(imports(module))
        if level(target) < level(module)
    ]
    assert up == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles() == []


def test_every_room_has_its_place_in_the_order() -> None:
    rooms = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").is_file()}
    assert rooms <= set(ORDER)


def level(module: str) -> int:
    """The place of a module's room in the house, counted from the top."""
    room = module.split(".")[1] if "." in module else module
    return ORDER.index(room) if room in ORDER else len(ORDER)


@cache
def modules() -> dict[str, Path]:
    """The file of every module of the package."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(("tunecast", *parts)).removesuffix(".__init__")] = path
    return found


@cache
def imports(module: str) -> frozenset[str]:
    """The modules of the package that a module imports anywhere: at its top, in functions, for types only."""
    tree = ast.parse(modules()[module].read_text(encoding="utf-8"))
    return frozenset(target for node in ast.walk(tree) for target in targets(node)) - {module}


def targets(node: ast.AST) -> Iterator[str]:
    """The modules of the package that one statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules())
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports are not used here"
        for alias in node.names:
            submodule = f"{node.module}.{alias.name}"
            if submodule in modules():
                yield submodule
            elif node.module in modules():
                yield str(node.module)


def circles() -> list[str]:
    """The groups of modules that reach each other by imports (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[str] = []

    def visit(module: str) -> None:
        index[module] = lowest[module] = len(index)
        stack.append(module)
        for target in sorted(imports(module)):
            if target not in index:
                visit(target)
                lowest[module] = min(lowest[module], lowest[target])
            elif target in stack:
                lowest[module] = min(lowest[module], index[target])
        if lowest[module] == index[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                found.append(" ↔ ".join(sorted(group)))

    for module in sorted(modules()):
        if module not in index:
            visit(module)
    return found
