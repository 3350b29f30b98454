"""docs/architecture.md names files that exist, all packages in order, and short journeys."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from test_imports import ORDER, SOURCE

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
MAX_FILES = 5


def named_paths(text: str) -> list[str]:
    """Files and folders in backticks: what has a suffix or ends in a slash."""
    return re.findall(r"`([\w./-]+(?:\.\w+|/))`", text)


def journeys() -> dict[str, list[str]]:
    """The files of each journey by its title."""
    parts = re.split(r"^\*\*(.+?)\*\*", PAGE.partition("## Journeys")[2], flags=re.MULTILINE)[1:]
    return {
        title: re.findall(r"^- (?:\*\*)?`([^`]+)`", text, re.MULTILINE)
        for title, text in zip(parts[::2], parts[1::2], strict=True)
    }


@pytest.mark.parametrize("path", sorted(set(named_paths(PAGE))))
def test_named_files_exist(path: str) -> None:
    assert (SOURCE / path).exists() or (ROOT / path).exists()


def test_linked_pages_exist() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert (ROOT / "docs" / link).is_file(), link


def test_packages_stand_in_the_order_of_imports() -> None:
    listed = re.findall(r"^\| `(\w+)(?:/|\.py)` \|", PAGE, re.MULTILINE)
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert listed == [name for name in ORDER if name in packages | {"api"}]


def test_journeys_are_short() -> None:
    assert len(journeys()) == 5
    for title, files in journeys().items():
        assert 1 <= len(files) <= MAX_FILES, title
