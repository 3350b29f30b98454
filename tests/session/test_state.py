from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from report.sample_session import full_session
from tunecast.errors import ConfigurationError, OutputError
from tunecast.methods.space import BASELINE
from tunecast.predictor import Prediction
from tunecast.records import Pipeline
from tunecast.session.folder import OutputFolder
from tunecast.session.settings import SessionSettings
from tunecast.session.state import Part, SessionState, SurveyPlan, earlier_state, read_state, state_of

SETTINGS = SessionSettings("model", "data", threads=1)


def begun(path: Path) -> OutputFolder:
    """The folder of a session that has only just begun."""
    folder = OutputFolder(path)
    folder.write_session(state_of(SETTINGS, "of these rows", "float32", None).as_json())
    return folder


def as_kept(state: SessionState) -> dict[str, Any]:
    """What a file would hold of it."""
    content: dict[str, Any] = json.loads(json.dumps(state.as_json()))
    return content


def test_an_empty_folder_holds_no_session(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    assert earlier_state(folder, SETTINGS, resume=False) is None
    assert earlier_state(folder, SETTINGS, resume=True) is None


def test_a_session_is_gone_on_with_only_where_that_is_wanted(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    found = earlier_state(folder, SETTINGS, resume=True)
    assert found is not None
    assert state_of(SETTINGS, "of these rows", "float32", found) == found
    assert state_of(SETTINGS, "of these rows", "bfloat16", found).dtype == "float32"
    with pytest.raises(OutputError, match="already holds a session"):
        earlier_state(folder, SETTINGS, resume=False)
    with pytest.raises(ConfigurationError, match="not the data that the session began with"):
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
    folder = begun(tmp_path)
    assert earlier_state(folder, SETTINGS, resume=True)
    with pytest.raises(ConfigurationError, match=flag):
        earlier_state(folder, replace(SETTINGS, **changed), resume=True)


def decided() -> SessionState:
    """A session that has decided everything and is complete."""
    record, _ = full_session()
    return SessionState(
        "id",
        SETTINGS.as_json(),
        "of these rows",
        "float32",
        started_at=1e9,
        used_seconds=12.5,
        worker_bytes=10**9,
        advised=[BASELINE],
        predicted={BASELINE.id: Prediction(0.5, 0.1)},
        full_length_tokens=1000,
        seconds_per_token=1e-3,
        validation_seconds=2.0,
        candidates=[BASELINE, Pipeline("ia3", {"learning_rate": 1e-2, "kept": True, "seen": 1})],
        prior="of that name",
        listed=[BASELINE.id],
        held_back=0.0,
        survey=SurveyPlan("run", (Part(16, 500),), ""),
        diagnostics=["none"],
        record=record,
    )


def test_what_was_decided_is_read_back_as_written() -> None:
    state = decided()
    again = read_state(as_kept(state))
    assert again == state
    values = again.candidates[1].hyperparameters
    assert [type(values[name]) for name in ("learning_rate", "kept", "seen")] == [float, bool, int]


def test_what_is_not_decided_is_not_kept() -> None:
    fresh = SessionState("id", {}, "of these rows")
    assert read_state({"id": "id", "configuration": {}, "dataset_fingerprint": "of these rows"}) == fresh
    assert not {"full_length_tokens", "survey", "listed", "record"} & set(as_kept(fresh))


def test_what_another_version_wrote_is_refused() -> None:
    with pytest.raises(OutputError, match="cannot read"):
        read_state({**as_kept(decided()), "record": {"id": "of another version"}})


def test_a_record_of_an_earlier_version_has_no_forecast() -> None:
    older = as_kept(decided())
    del older["record"]["forecast"]
    record = read_state(older).record
    assert record is not None
    assert record.forecast is None
