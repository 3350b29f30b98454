"""Paths as a user writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunecast.data import read
from tunecast.errors import DataError
from tunecast.paths import expanded


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/runs.sqlite") == tmp_path / "runs.sqlite"
    assert expanded("runs~.sqlite") == Path("runs~.sqlite")


def test_an_unknown_user_is_named() -> None:
    with pytest.raises(DataError, match="~nosuchuser/"):
        read("~nosuchuser/train.jsonl")
