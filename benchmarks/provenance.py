"""What a figure rests on: code, shipped runs, prior, commit and machine."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import tunecast
from tunecast.models.load import choose_dtype
from tunecast.models.processor import available_cores
from tunecast.records import stable_hash
from tunecast.store import shipped
from tunecast.surrogates import shipped_prior

ROOT = Path(__file__).parents[1]
"""The repository."""
DECIDES_NOTHING = ("cli", "report", "handover", "collect")
"""Packages of ``tunecast`` that no figure rests on: they ask, show, hand over and record."""


def code_hash(files: Iterable[Path] = ()) -> str:
    """A hash of the code that figures rest on: of all of ``tunecast`` but :data:`DECIDES_NOTHING`.

    Args:
        files: Further files.
    """
    folder = Path(tunecast.__file__).parent
    sources = sorted(folder.rglob("*.py"))
    own = [file for file in sources if file.relative_to(folder).parts[0] not in DECIDES_NOTHING]
    return stable_hash([file_hash(file) for file in (*own, *files)], 16)


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
