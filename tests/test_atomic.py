"""Files that are replaced in one step."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunecast.atomic import check_writable, write_page, written_whole
from tunecast.errors import OutputError


@pytest.mark.parametrize("durable", [False, True])
def test_a_write_that_breaks_off_leaves_what_was_there(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "file"
    with written_whole(path, durable=durable) as file:
        file.write_text("first")
    with pytest.raises(TypeError), written_whole(path, durable=durable) as file:
        file.write_bytes("no bytes")  # type: ignore[arg-type]
    assert path.read_text() == "first"
    assert [one.name for one in path.parent.iterdir()] == ["file"]


def test_the_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with written_whole(path) as file:
        file.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_what_went_wrong_is_told_though_tidying_fails_too(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), written_whole(tmp_path / "file", durable=True) as file:
        file.mkdir()


def test_a_page_is_written_into_folders_that_are_made(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "page.html"
    check_writable(path, "--plot")
    write_page(path, "first", "--plot")
    write_page(path, "second", "--plot")
    assert path.read_text() == "second"
    assert [one.name for one in path.parent.iterdir()] == ["page.html"]


def test_a_page_behind_a_link_is_written_there(tmp_path: Path) -> None:
    (tmp_path / "link.html").symlink_to(tmp_path / "page.html")
    for text in ("old", "new"):
        write_page(tmp_path / "link.html", text, "--plot")
        assert (tmp_path / "page.html").read_text(encoding="utf-8") == text
    assert (tmp_path / "link.html").is_symlink()


def test_what_cannot_become_a_page_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("where a folder is wanted")
    for path in (tmp_path, tmp_path / "file" / "page.html", Path("/dev/null")):
        with pytest.raises(OutputError, match=f"--plot {path} cannot be written"):
            check_writable(path, "--plot")
        with pytest.raises(OutputError, match=f"--plot {path} cannot be written"):
            write_page(path, "text", "--plot")
    assert Path("/dev/null").is_char_device()
