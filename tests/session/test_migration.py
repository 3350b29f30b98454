"""Sessions of Tunecast 0.1.0: files in ``tests/fixtures/0.1.0`` that it wrote, one whole and one killed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import sessions
import tiny
from tunecast.records import Outcome, Run
from tunecast.report.card import model_card
from tunecast.report.page import write_report
from tunecast.session.folder import read_session
from tunecast.session.migration import with_current_names
from tunecast.session.state import read_state
from tunecast.store import Store

OLD = Path(__file__).parents[1] / "fixtures" / "0.1.0"


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    """A copy of the session that reached its end."""
    return Path(shutil.copytree(OLD / "complete", tmp_path / "complete"))


def runs_of(folder: Path) -> dict[str, Run]:
    with Store.open(folder / "runs.sqlite", create=False) as store:
        return {run.id: run for run in store.runs(session=read_session(folder)["id"])}


def test_names_are_those_of_this_version() -> None:
    content = {
        "configuration": {"strategy": "fixed-expert", "seed": 0},
        "foretold": {"a": {"log_loss": 1.0, "deviation": 0.5}},
        "advised": [],
        "doubts": ["The data are new."],
        "record": {"strategy": "fixed-expert", "winner": "expert", "contenders": [{"name": "expert"}]},
    }
    current = with_current_names(content)
    assert current == {
        "configuration": {"strategy": "fixed-baseline", "seed": 0},
        "predicted": {"a": {"log_loss": 1.0, "deviation": 0.5}},
        "recommended": [],
        "diagnostics": ["The data are new."],
        "record": {
            "strategy": "fixed-baseline",
            "winner": "baseline",
            "contenders": [{"name": "baseline"}],
        },
    }
    assert with_current_names(current) == current


def test_a_complete_session_is_read(complete: Path) -> None:
    state = read_state(read_session(complete))
    assert len(state.candidates) > 4
    assert state.survey is not None
    record = state.record
    assert record is not None
    assert [one.name for one in record.contenders] == ["zero_shot", "baseline", "incumbent"]
    assert all(one.validation is None for one in record.contenders)
    assert set(runs_of(complete)) >= {one.run for one in record.contenders}


def test_a_complete_session_is_told_again(complete: Path) -> None:
    record = read_state(read_session(complete)).record
    assert record is not None
    code, out, err = sessions.call_main("tune", "--resume", "--output-dir", str(complete), "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["validation"] == {"zero_shot": None, "baseline": None, "incumbent": None}
    assert result["test"]["baseline"]["loss"] == record.contender("baseline").test.loss
    assert result["incumbent"]["validation_loss"] == record.incumbent_loss
    assert result["winner"] == "incumbent"


def test_report_and_card_of_a_complete_session_say_what_chose_the_winner(
    complete: Path, tmp_path: Path
) -> None:
    record, runs = read_state(read_session(complete)).record, runs_of(complete)
    assert record is not None
    chosen = "The test split chose this winner, as in Tunecast 0.1.0"
    card = model_card(record, runs[record.contender(record.winner).run], base_model="model")
    assert chosen in card
    assert "is only reported" not in card
    write_report(record, list(runs.values()), tmp_path / "report.html")
    assert chosen in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_runs_of_a_complete_session_are_listed(complete: Path) -> None:
    code, out, _ = sessions.call_main("runs", "list", "--store", str(complete / "runs.sqlite"), "--json")
    assert code == 0
    assert {run["id"] for run in json.loads(out)["runs"]} == set(runs_of(complete))


def test_a_killed_session_goes_on_without_its_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it committed stays as it was; its paused trial is trained again up to where it stood."""
    monkeypatch.chdir(tmp_path)  # it named its model, its data and its folder from where it began
    folder = Path(shutil.copytree(OLD / "interrupted", "interrupted"))
    tiny.build_llama(Path("model"))
    tiny.write_jsonl(Path("colours.jsonl"), tiny.toy_rows(160))
    state, before = read_state(read_session(folder)), runs_of(folder)
    assert state.record is None
    assert state.recommended
    (paused,) = [run for run in before.values() if run.outcome is Outcome.PAUSED]
    flags = (*sessions.IN_PROCESS, "--output-dir", "interrupted", "--json")
    code, out, err = sessions.call_main("tune", "--resume", *flags)
    assert code == 0, err
    after = runs_of(folder)
    assert len(after) > len(before)
    for run in before.values():
        assert after[run.id].curve[: len(run.curve)] == run.curve
    assert after[paused.id].extra["retrained_tokens"] > 0
    assert len(after[paused.id].curve) > len(paused.curve)
    assert f"The checkpoint of trial {paused.id} was gone" in err
    assert read_state(read_session(folder)).candidates == state.candidates
    result = json.loads(out)
    assert all(result["validation"].values())
    assert (
        min(one["loss"] for one in result["validation"].values())
        == (result["validation"][result["winner"]]["loss"])
    )
