"""The documentation site builds without a warning, and its reference is whole."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import tunecast
from tunecast.cli import app

ROOT = Path(__file__).parents[1]
QUIET = {"NO_MKDOCS_2_WARNING": "1"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as ``make docs`` builds it: a broken link or anchor, or a docstring that names a
    parameter that does not exist, fails."""
    folder = tmp_path_factory.mktemp("site")
    command = (sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder))
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **QUIET}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def options(command: Any, path: str) -> Iterator[tuple[str, str]]:
    """Each option of the commands below one, with the full name of its command."""
    below = getattr(command, "commands", {})
    for name, inner in below.items():
        yield from options(inner, f"{path} {name}")
    if not below:
        yield from ((path, parameter.opts[0]) for parameter in command.params if parameter.opts[0][0] == "-")


def test_the_reference_has_every_option_of_every_command(site: Path) -> None:
    text = html.unescape((site / "reference" / "commands.html").read_text(encoding="utf-8"))
    parts = re.split(r'<h[234] id="([\w-]+)">', text)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    named = list(options(typer.main.get_command(app), "tunecast"))
    assert len(named) > 100
    assert [pair for pair in named if f"<code>{pair[1]}" not in sections[pair[0].replace(" ", "-")]] == []


def test_the_reference_has_every_public_name(site: Path) -> None:
    pages = (site / "reference" / f"{name}.html" for name in ("python", "records"))
    text = "".join(page.read_text(encoding="utf-8") for page in pages)
    described = {place.rpartition(".")[2] for place in re.findall(r'<h[2-4] id="([\w.]+)"', text)}
    assert set(tunecast.__all__) - {"__version__"} <= described


def test_pages_outside_of_docs_are_in_the_site(site: Path) -> None:
    start = (site / "index.html").read_text(encoding="utf-8")
    assert 'src="images/report.png"' in start
    assert 'href="contributing.html"' in start
    assert "Set up" in (site / "contributing.html").read_text(encoding="utf-8")


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    fetched = re.compile(r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="(?:https?:)?//')
    assert [page.name for page in site.rglob("*.html") if fetched.search(page.read_text("utf-8"))] == []
