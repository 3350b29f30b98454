"""Pages link to pages that exist, and name source files and benchmarks that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from test_imports import SOURCE

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PLACES = (ROOT, SOURCE, ROOT / "docs")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    named = {
        *re.findall(r"`([a-z_]+/[\w./-]+\.(?:py|yaml|sh|parquet|json))`", text),
        *re.findall(r"python (benchmarks/\w+\.py)", text),
    }
    missing += [name for name in sorted(named) if not any((place / name).exists() for place in PLACES)]
    assert missing == []
