"""A picture of a page is taken by a real browser."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest

from dashboard.conftest import serving
from report_picture import BROWSERS, picture
from sessions import Finished

PAGE = '<body style="margin: 0; background: rgb(200, 30, 60)"><h1>Report</h1></body>'


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="needs Chromium")
def test_the_top_of_a_page_is_taken(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(PAGE)
    file = tmp_path / "images" / "report.png"
    picture(str(tmp_path / "report.html"), file, 640, 400)
    head = file.read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    assert struct.unpack(">II", head[16:]) == (640, 400)


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="needs Chromium")
def test_a_page_that_follows_a_session_is_taken(finished_session: Finished, tmp_path: Path) -> None:
    file = tmp_path / "dashboard.png"
    with serving(str(finished_session.folder)) as served:
        folder = finished_session.folder.name
        picture(f"{served.address}/session?folder={folder}&token={served.token}", file, 640, 400)
    assert struct.unpack(">II", file.read_bytes()[16:24]) == (640, 400)


def test_a_missing_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"There is no|is installed"):
        picture(str(tmp_path / "nothing.html"), tmp_path / "a.png", 640, 400)
