from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from report.sample_session import full_session
from tunecast.errors import ConfigurationError, OutputError
from tunecast.session.folder import OutputFolder
from tunecast.session.settings import SessionSettings
from tunecast.session.state import earlier_state, read_record, state_of

SETTINGS = SessionSettings("model", "data", threads=1)


def begun(path: Path, more: Mapping[str, Any]) -> OutputFolder:
    """The folder of a session that has only just begun."""
    folder = OutputFolder(path)
    folder.write_session(state_of(SETTINGS, "of these rows", "float32", None) | dict(more))
    return folder


def test_an_empty_folder_holds_no_session(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    assert earlier_state(folder, SETTINGS, resume=False) is None
    assert earlier_state(folder, SETTINGS, resume=True) is None


def test_a_session_is_gone_on_with_only_where_that_is_wanted(tmp_path: Path) -> None:
    folder = begun(tmp_path, {})
    found = earlier_state(folder, SETTINGS, resume=True)
    assert found is not None
    assert state_of(SETTINGS, "of these rows", "float32", found) == found
    assert state_of(SETTINGS, "of these rows", "bfloat16", found)["dtype"] == "float32"
    del found["dtype"]  # as an earlier version kept it
    assert state_of(SETTINGS, "of these rows", "bfloat16", found)["dtype"] == "bfloat16"
    with pytest.raises(OutputError, match="already holds a session"):
        earlier_state(folder, SETTINGS, resume=False)
    with pytest.raises(ConfigurationError, match="not what the session began with"):
        state_of(SETTINGS, "of other rows", "float32", found)


@pytest.mark.parametrize(
    ("changed", "flag"),
    [
        ({"store": "sqlite:///elsewhere.sqlite"}, "--store"),
        ({"fixed": {"lora_r": 8}}, r"--fix\."),
        ({"ranges": {"learning_rate": (1e-5, 1e-4)}}, r"--range\."),
        ({"threads": 2}, "--threads"),
        ({"threads": None, "workers": 2}, "--workers"),
    ],
)
def test_a_session_goes_on_as_it_began(tmp_path: Path, changed: dict[str, Any], flag: str) -> None:
    folder = begun(tmp_path, {})
    assert earlier_state(folder, SETTINGS, resume=True)
    with pytest.raises(ConfigurationError, match=flag):
        earlier_state(folder, replace(SETTINGS, **changed), resume=True)


def test_a_record_is_read_back_as_written() -> None:
    record, _ = full_session()
    assert read_record(json.loads(json.dumps(asdict(record)))) == record
    with pytest.raises(OutputError, match="cannot read"):
        read_record({"id": "of another version"})


def test_a_record_of_an_earlier_version_has_no_forecast() -> None:
    record, _ = full_session()
    older = asdict(record)
    del older["forecast"]
    assert read_record(older) == replace(record, forecast=None)
