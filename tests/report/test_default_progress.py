"""Programs see progress where somebody watches."""

from __future__ import annotations

import io
import sys

import pytest

from tunecast.progress import Silent
from tunecast.report.default_progress import progress_or_default


def shown_by_default(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_or_default(None) as progress:
        progress.start("reading")
        progress.finish("done")
        progress.log("a line")
    return stream.getvalue()


def test_programs_see_reports_in_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    assert shown_by_default(monkeypatch, io.StringIO()) == ""
    watched = io.StringIO()
    monkeypatch.setattr(watched, "isatty", lambda: True)
    assert "reading: done" in shown_by_default(monkeypatch, watched)


def test_a_reporter_that_is_given_is_used() -> None:
    silent = Silent()
    with progress_or_default(silent) as progress:
        assert progress is silent
