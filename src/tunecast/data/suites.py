"""Built-in suites of texts that a finetuned model should still know; they need no download.

Everything comes from the running Python: its docstrings, the prose of its language reference, and the sources
of its library.
"""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path

from tunecast.data.examples import Example, Turn
from tunecast.data.read import read

MAX_EXAMPLES = 200
"""Texts of each part of a suite."""
SHORTEST, LONGEST = 200, 800
"""Limits of a text in characters."""
SOURCES = 60
"""Modules whose sources are used."""


def suite(name: str, seed: int) -> dict[str, tuple[Example, ...]]:
    """Return the parts of a suite by name: ``docstrings``, ``prose`` and ``code`` of ``python``.

    Args:
        name: One of :data:`SUITES`.
        seed: Seed of the split of ``stdlib``, of which only validation examples are used.

    Raises:
        DataError: This Python has no sources of its standard library.
    """
    return {part: make(seed) for part, make in SUITES[name].items()}


def _docstrings(seed: int) -> tuple[Example, ...]:
    """Questions about Python's library; those that ``--data stdlib`` holds out of training too."""
    return read("stdlib", seed=seed).validation


def _prose(seed: int) -> tuple[Example, ...]:
    from pydoc_data.topics import topics

    texts = (topics[name] for name in sorted(topics))
    paragraphs = (" ".join(part.split()) for text in texts for part in text.split("\n\n"))
    # Grammar, tables, examples and headings are not sentences.
    prose = (text for text in paragraphs if re.fullmatch(r"[A-Z][^|:=]+\.", text))
    return _texts(sorted({text for text in prose if SHORTEST <= len(text) <= LONGEST}))


def _code(seed: int) -> tuple[Example, ...]:
    library = Path(sysconfig.get_path("stdlib"))
    modules = [path for path in sorted(library.glob("[a-z]*.py")) if not path.name.startswith("_")]
    sources = (path.read_text(encoding="utf-8") for path in modules[:SOURCES])
    functions = (text.rstrip() for source in sources for text in re.split(r"\n(?=def |class )", source)[1:])
    return _texts([text for text in functions if SHORTEST <= len(text) <= LONGEST])


def _texts(texts: list[str]) -> tuple[Example, ...]:
    """Return evenly spaced texts as examples without a prompt."""
    step = max(1, len(texts) // MAX_EXAMPLES)
    chosen = islice(texts, 0, None, step)
    return tuple(Example((Turn("text", text, True),), row) for row, text in enumerate(chosen, 1))


SUITES: Mapping[str, Mapping[str, Callable[[int], tuple[Example, ...]]]] = {
    "python": {"docstrings": _docstrings, "prose": _prose, "code": _code},
}
