"""What a figure rests on: code, shipped runs, prior, commit and machine."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import platform
import re
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import tunecast
from tunecast.hardware.dtype import choose_dtype
from tunecast.hardware.processor import available_cores
from tunecast.predictor import shipped_prior
from tunecast.records import stable_hash
from tunecast.store import shipped
from tunecast_benchmarks.sources import code_meaning

ROOT = Path(__file__).parents[2]
"""The repository."""
DECIDES_NOTHING = ("cli", "report", "exporters", "collect")
"""Packages of ``tunecast`` that no figure rests on: they ask, show, hand over and record."""


def code_hash(files: Iterable[Path] = (), package: str = "") -> str:
    """A hash of the code that figures rest on; comments, docstrings and layout are no part of it.

    Args:
        files: Files outside of ``tunecast``.
        package: The one of its packages that computes the figures, which then rest on that and on what it
            imports; empty for all of ``tunecast`` but :data:`DECIDES_NOTHING`.
    """
    own = sources(package) if package else _all_sources()
    return stable_hash([_code_of(file) for file in (*sorted(own), *files)], 16)


_meaning = cache(code_meaning)
"""Files are read anew each time, but seldom hold anything else."""


def _code_of(file: Path) -> str:
    """A hash of what a module does, whatever is said about it; that of another file's content."""
    return _meaning(file.read_text(encoding="utf-8")) if file.suffix == ".py" else file_hash(file)


def sources(package: str) -> set[Path]:
    """The files of a package of ``tunecast`` and all others of ``tunecast`` that they import at any time.

    Args:
        package: Its name within ``tunecast``.
    """
    waiting, found = {f"tunecast.{package}", *_modules_below(package)}, set[Path]()
    while waiting:
        name = waiting.pop()
        file = _file_of(name)
        if file is None or file in found:
            continue
        found.add(file)
        parents = name.split(".")
        waiting |= {".".join(parents[:depth]) for depth in range(1, len(parents))}
        waiting |= _imports(file.read_text(encoding="utf-8"))
    return found


def _all_sources() -> set[Path]:
    folder = _folder()
    return {f for f in folder.rglob("*.py") if f.relative_to(folder).parts[0] not in DECIDES_NOTHING}


def _folder() -> Path:
    return Path(tunecast.__file__).parent


def _modules_below(package: str) -> set[str]:
    files = (_folder() / package).rglob("*.py")
    return {".".join(("tunecast", *file.relative_to(_folder()).with_suffix("").parts)) for file in files}


def _file_of(module: str) -> Path | None:
    """The file of a module of ``tunecast``, None for what is none."""
    place = _folder().joinpath(*module.split(".")[1:])
    return next((f for f in (place / "__init__.py", place.with_suffix(".py")) if f.is_file()), None)


@cache
def _imports(code: str) -> frozenset[str]:
    """Modules of ``tunecast`` that code imports, in functions too, but not those that only types need."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body.clear()
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(name for name in found if name.split(".")[0] == "tunecast")


def knowledge_hash() -> str:
    """A hash of the shipped runs and the shipped prior, as far as there are any."""
    return stable_hash([file_hash(file) if file else "" for file in (shipped(), shipped_prior())], 16)


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def commit() -> str:
    """The commit that is checked out, with a mark where code differs from it; ``unknown`` without git."""
    try:
        found = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--", "src", "benchmarks/*.py")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{found} with changes" if changed else found


def machine() -> str:
    """Cores that may be used, their kind, and the type of numbers that models of some width compute in."""
    return f"{available_cores()} cores, {_processor()}, {choose_dtype('cpu', width=1024)}"


def _processor() -> str:
    """The processor's name where the system tells it, else its architecture."""
    with contextlib.suppress(OSError):
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        if name := re.search(r"^model name\s*: (.+)$", told, re.MULTILINE):
            return name[1]
    return platform.machine()


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
