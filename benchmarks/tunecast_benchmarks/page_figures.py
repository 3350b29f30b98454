"""Replaces the figures at the end of a page of the documentation."""

from __future__ import annotations

from pathlib import Path

MARK = "<!-- figures -->"
"""What stands before the figures; the text before it is written by hand."""


def replace_figures(page: Path, figures: str) -> None:
    """Put figures in Markdown in place of all that follows the mark."""
    before, _, _ = page.read_text().partition(MARK)
    page.write_text(f"{before}{MARK}\n\n{figures}")
