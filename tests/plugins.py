"""Packages built from the blocks of a page of the documentation, as pip would install them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

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


def tunecast_with(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with the packages of a folder installed."""
    places = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, "-m", "tunecast", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


def _block(page: Path, after: str) -> str:
    """Return the first code block that follows a line."""
    text = page.read_text(encoding="utf-8")
    found = re.search(re.escape(after) + r"\n\n```\w+\n(.*?)```", text, re.DOTALL)
    assert found, f"the page has no block after {after}"
    return found[1]
