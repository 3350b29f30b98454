"""The embedded dataset ``stdlib``: questions about Python's standard library, answered by its docstrings.

The pairs are made at run time from the files of the running Python, so nothing is copied, and the same Python
gives the same pairs. Sources are parsed, not imported, because importing some modules prints, opens windows
or starts threads. Parsing takes a second, so the pairs are cached in the user's cache folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tunecast.cache import cache_folder, read_cached, write_cached
from tunecast.documents import compiled, docstrings
from tunecast.documents.docstrings import Docstring, docstring_answer, docstring_question, docstrings_of
from tunecast.errors import DataError
from tunecast.progress import Progress
from tunecast.records import stable_hash

TESTS = ("test", "tests")
APPLICATIONS = ("idlelib", "lib2to3", "turtledemo", "turtle", "tkinter", "antigravity", "this")
BUNDLED = ("site-packages", "dist-packages", "lib-dynload", "ensurepip", "pydoc_data", "encodings")
# fmt: off
REMOVED = (
    "aifc", "asynchat", "asyncore", "cgi", "cgitb", "chunk", "crypt", "distutils", "imghdr", "imp", "mailcap",
    "msilib", "nntplib", "pipes", "smtpd", "sndhdr", "sunau", "telnetlib", "uu", "xdrlib",
)
# fmt: on
SKIPPED = frozenset((*TESTS, *APPLICATIONS, *BUNDLED, *REMOVED))
"""Modules without questions. Skipping those that newer Pythons removed keeps the pairs similar."""

COMPILED = ("builtins", "itertools", "math", "time")
"""Well documented modules without a source file. Importing them has no side effects."""

Pair = tuple[str, str]  # question, answer


def standard_library_pairs(progress: Progress | None = None) -> list[Pair]:
    """Return question-answer pairs from the docstrings of the standard library, ordered by name.

    Raises:
        DataError: This Python has no sources of its standard library.
    """
    cache = _cache_file()
    pairs = None if cache is None else read_cached(cache)
    if not pairs:
        if progress is not None:
            progress.advance(0, "collecting the docstrings of the standard library, once")
        pairs = _make_pairs()
        if cache is not None:
            write_cached(cache, pairs)
            _delete_others(cache)
    return [(question, answer) for question, answer in pairs]


def _make_pairs() -> list[Pair]:
    pairs: list[Pair] = []
    answers: set[str] = set()
    for kind, name, docstring in sorted({*_from_sources(), *_from_compiled()}):
        answer = docstring_answer(name, docstring)
        if answer and answer not in answers:
            answers.add(answer)
            pairs.append((docstring_question(kind, name), answer))
    if not pairs:
        raise DataError(
            "This Python has no sources of its standard library, from which `stdlib` is made.",
            "Give your own data file.",
        )
    return pairs


def _cache_file() -> Path | None:
    """Return the cache file for this Python's pairs, None without access to its library.

    The name is a hash of everything that the pairs depend on: Python, the name, size and modification time of
    its library's files, and the sources of this module, of :mod:`compiled` and of :mod:`docstrings`.
    """
    try:
        root = Path(sysconfig.get_path("stdlib"))
        states = [(path, path.stat()) for path in sorted(_sources(root))]
        key = stable_hash(
            [
                [sys.implementation.name, sys.version, str(root)],
                [[str(path), state.st_size, state.st_mtime_ns] for path, state in states],
                list(COMPILED),
                *(
                    hashlib.sha256(Path(file).read_bytes()).hexdigest()
                    for file in (__file__, compiled.__file__, docstrings.__file__)
                ),
            ]
        )
        return cache_folder() / "stdlib" / f"{key}.json"
    except OSError:
        return None


def _delete_others(file: Path) -> None:
    """Delete the cache files of another Python, library or version of this module."""
    with contextlib.suppress(OSError):
        for other in file.parent.iterdir():
            if other != file and re.fullmatch(r"[0-9a-f]{16}\.json", other.name):
                other.unlink(missing_ok=True)


def _from_sources() -> Iterator[Docstring]:
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(_sources(root)):
        names = list(path.relative_to(root).with_suffix("").parts)
        if names[-1] == "__init__":
            names.pop()
        with contextlib.suppress(OSError, ValueError):
            yield from docstrings_of(path.read_bytes(), ".".join(names))


def _sources(folder: Path) -> Iterator[Path]:
    """Yield public modules below ``folder``, without entering skipped packages."""
    for path in folder.iterdir():
        if (
            path.stem in SKIPPED
            or (path.name.startswith("_") and path.name != "__init__.py")
            or "-" in path.name
        ):
            continue
        if path.is_dir():
            yield from _sources(path)
        elif path.suffix == ".py":
            yield path


def _from_compiled() -> Iterator[Docstring]:
    command = [sys.executable, "-I", "-S", compiled.__file__, *COMPILED]
    printed = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    for kind, name, docstring in json.loads(printed):
        yield Docstring(kind, name, docstring)
