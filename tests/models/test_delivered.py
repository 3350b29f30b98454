"""The model that a session delivered is found once the session has ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunecast.errors import ConfigurationError
from tunecast.models.delivered import delivered_folder


def test_a_folder_without_a_delivery_is_no_sessions(tmp_path: Path) -> None:
    assert delivered_folder(tmp_path) is None
    assert delivered_folder(tmp_path / "nothing") is None


def test_a_delivery_is_found_with_or_without_its_session(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    assert delivered_folder(tmp_path) == tmp_path / "best"
    (tmp_path / "session.json").write_text(json.dumps({"record": {"winner": "incumbent"}}))
    assert delivered_folder(tmp_path) == tmp_path / "best"


@pytest.mark.parametrize("content", [{}, {"record": None}])
def test_while_a_session_runs_an_earlier_delivery_does_not_count(
    content: dict[str, None], tmp_path: Path
) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "session.json").write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match="has not ended") as caught:
        delivered_folder(tmp_path)
    assert "--resume" in caught.value.hint


def test_a_damaged_session_is_named(tmp_path: Path) -> None:
    (tmp_path / "session.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"session\.json"):
        delivered_folder(tmp_path)
