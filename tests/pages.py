"""Code blocks of the documentation, and the commands in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from dashboard.conftest import serving
from sessions import call_main

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
GENERATED = ("comparing-figures.md", "meta-dataset-figures.md", "scaling-study.md")
"""Pages that a program of benchmarks/ writes."""


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a language, without their indentation."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(rf"^( *)```{language}\b[^\n]*\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", body, flags=re.MULTILINE) for indent, body in found]


def shell_commands(page: Path) -> list[str]:
    """The commands of console blocks, each on one line, without comments."""
    found = []
    for block in blocks(page, "console"):
        joined = re.sub(r" *\\\n\s*", " ", block)
        found += re.findall(r"^\w*\$ (.*?)(?: +#.*)?$", joined, re.MULTILINE)
    return found


def commands(page: Path) -> list[str]:
    """The commands of Tunecast itself."""
    return [command for command in shell_commands(page) if command.startswith("tunecast ")]


def check_runs(words: Sequence[str], command: str) -> None:
    """Run a command that a page shows.

    Args:
        words: Its words behind ``tunecast``, with stand-ins.
        command: As the page shows it, for messages.
    """
    if words[0] == "dashboard":  # it ends with Ctrl-C only
        with serving(*words[1:]) as served:
            assert served.client().get("/").status_code == 200
        return
    code, _, stderr = call_main(*words)
    assert code == 0, f"{command}\n{stderr}"
    assert "Traceback" not in stderr, command
