"""The origin of a figure: code, shipped runs, prior, commit and machine."""

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

from tunecast.hardware.dtype import choose_dtype
from tunecast.hardware.processor import available_cores
from tunecast.predictor import shipped_prior
from tunecast.records import stable_hash
from tunecast.store import shipped

ROOT = Path(__file__).parents[2]
"""The repository."""
SOURCES = (ROOT / "src", ROOT / "benchmarks")
"""Folders whose modules count as code of a figure."""
DECIDES_NOTHING = ("cli", "dashboard", "report", "exporters", "collect")
"""Packages of ``tunecast`` that affect no figure: they parse, show, export and record."""

SESSION = ("tunecast.api", "tunecast.executors.worker")
"""Modules that ``tunecast tune`` runs in its own processes."""


def code_hash(roots: Iterable[str]) -> str:
    """Hash the code behind figures; comments, docstrings and layout do not count.

    Args:
        roots: Modules, and files by their path in the repository. A module or Python file includes all that
            it imports.
    """
    return stable_hash([_hash_of(file) for file in sorted(sources(roots))], 16)


def sources(roots: Iterable[str]) -> set[Path]:
    """Find the files of some roots, and all files of the repository that they import directly or not.

    Args:
        roots: As for :func:`code_hash`.
    """
    waiting, found = {_root(root) for root in roots}, set[Path]()
    while waiting:
        file = waiting.pop()
        found.add(file)
        if file.suffix == ".py":
            imported = {_file_of(name) for name in _imports(file.read_text(encoding="utf-8"))}
            waiting |= {file for file in imported if file} - found
    return found


def _root(root: str) -> Path:
    file = ROOT / root if "/" in root else _file_of(root)
    if file is None or not file.is_file():
        raise ValueError(f"{root} is not a file or module of the repository")
    return file


def _file_of(module: str) -> Path | None:
    """The file of a module of the repository; None for other modules, and for those that affect no figure."""
    parts = module.split(".")
    if parts[0] == "tunecast" and parts[1:2] and parts[1] in DECIDES_NOTHING:
        return None
    places = [folder.joinpath(*parts) for folder in SOURCES]
    files = [file for place in places for file in (place / "__init__.py", place.with_suffix(".py"))]
    return next((file for file in files if file.is_file()), None)


@cache
def _imports(code: str) -> frozenset[str]:
    """Imported modules with their packages, in functions too; imports for type checking do not count."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body.clear()
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(
        ".".join(parts[: depth + 1]) for parts in (n.split(".") for n in names) for depth in range(len(parts))
    )


def _hash_of(file: Path) -> str:
    """A hash of a module's meaning, or of another file's content."""
    return code_meaning(file.read_text(encoding="utf-8")) if file.suffix == ".py" else file_hash(file)


@cache
def code_meaning(text: str) -> str:
    """Hash a module's meaning; comments, docstrings and layout do not count.

    Another version of Python may parse the same text differently and give another hash.

    Args:
        text: The module's source.

    Returns:
        32 hexadecimal digits.

    Raises:
        SyntaxError: The text is not Python.
    """
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # Texts without effect: docstrings, including those of attributes.
            node.body = [part for part in node.body if not _is_text(part)]
    return stable_hash(ast.dump(tree), 32)


def _is_text(part: ast.stmt) -> bool:
    return (
        isinstance(part, ast.Expr)
        and isinstance(part.value, ast.Constant)
        and isinstance(part.value.value, str)
    )


def knowledge_hash() -> str:
    """Hash the shipped runs and the shipped prior, if there are any."""
    return stable_hash([file_hash(file) if file else "" for file in (shipped(), shipped_prior())], 16)


def file_hash(path: Path) -> str:
    """Compute the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def commit() -> str:
    """Name the checked-out commit, with a mark if code differs from it; ``unknown`` without git."""
    try:
        found = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--", "src", "benchmarks/*.py")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{found} with changes" if changed else found


def machine() -> str:
    """Describe the available cores, and the number type of models of some width."""
    return f"{available_cores()} cores, {_processor()}, {choose_dtype('cpu', width=1024)}"


def _processor() -> str:
    """The processor's name if the system reports it, else its architecture."""
    with contextlib.suppress(OSError):
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        if name := re.search(r"^model name\s*: (.+)$", told, re.MULTILINE):
            return name[1]
    return platform.machine()


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
