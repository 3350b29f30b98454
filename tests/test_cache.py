"""Where things are kept that can be made anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunecast.cache import cache_folder, written_whole


def test_the_user_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNECAST_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "tunecast"
    monkeypatch.setenv("TUNECAST_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_a_user_without_a_home_has_a_place_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("TUNECAST_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    assert cache_folder().is_absolute()
    assert cache_folder().name.startswith("tunecast-")


def test_a_write_that_breaks_off_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    with written_whole(path) as file:
        file.write_text("first")
    with pytest.raises(TypeError), written_whole(path) as file:
        file.write_bytes("no bytes")  # type: ignore[arg-type]
    assert path.read_text() == "first"
    assert [one.name for one in path.parent.iterdir()] == ["file"]
