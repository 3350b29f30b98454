"""Packages built from the blocks of a page of the documentation, as pip would install them."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

from sessions import Said, call_main
from shared_server import in_fork

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"


def installed_from(page: Path, module: str, folder: Path) -> Path:
    """Install the package of a page, its module and its ``pyproject.toml``; return the folder it is in."""
    project = tomllib.loads(_block(page, "`pyproject.toml`:"))["project"]
    site = folder / "site"
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (site / module).write_text(_block(page, f"`{module}`:"))
    (info / "METADATA").write_text(METADATA.format(**project))
    lines = [
        line
        for group, entries in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {place}" for name, place in entries.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return site


def tunecast_with(site: Path, *arguments: str) -> Said:
    """Run the command line in a new process, with the packages of a folder installed."""
    said: Said = in_fork(_main_with, str(site), *arguments)
    return said


def _main_with(site: str, *arguments: str) -> Said:
    sys.path.insert(0, site)
    return call_main(*arguments)


def _block(page: Path, after: str) -> str:
    """Return the first code block that follows a line."""
    text = page.read_text(encoding="utf-8")
    found = re.search(re.escape(after) + r"\n\n```\w+\n(.*?)```", text, re.DOTALL)
    assert found, f"the page has no block after {after}"
    return found[1]
