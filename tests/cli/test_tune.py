"""``tunecast tune``: the contract of its output, its configuration, and what a session leaves on disk."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sessions import FLAGS, IN_PROCESS, Finished, call_main, finish, record_of, unfinish
from tunecast.cli.session_result import as_result, print_record
from tunecast.predictor import load_prior
from tunecast.records import Outcome, Pipeline, Run
from tunecast.session.folder import OutputFolder
from tunecast.session.settings import SessionSettings
from tunecast.store import Store

pytestmark = pytest.mark.slow


def test_json_keeps_the_contract(finished_session: Finished) -> None:
    result = finished_session.result
    assert set(result) == {
        "incumbent", "validation", "test", "winner", "budget", "output_dir", "warnings", "forecast",
        "training", "classification", "constant_answers", "margins", "longer", "guards", "guards_untried",
    }  # fmt: skip
    assert set(result["validation"]) == {"zero_shot", "baseline", "incumbent"}
    assert all(set(score) == {"loss", "metric", "low", "high"} for score in result["validation"].values())
    assert result["validation"]["incumbent"]["loss"] == result["incumbent"]["validation_loss"]
    assert set(result["incumbent"]) == {"pipeline", "trial", "validation_loss"}
    assert set(result["test"]) == {"zero_shot", "baseline", "incumbent"}
    for score in result["test"].values():
        assert set(score) == {"loss", "metric", "low", "high"}
        assert score["low"] <= score["loss"] <= score["high"]
    assert set(result["budget"]) == {"granted_seconds", "used_seconds"}
    assert result["budget"]["granted_seconds"] is None
    assert result["budget"]["used_seconds"] > 0
    assert result["output_dir"] == str(finished_session.folder)


def test_the_winner_has_the_lowest_validation_loss(finished_session: Finished) -> None:
    scores = finished_session.result["validation"]
    assert scores[finished_session.result["winner"]]["loss"] == min(one["loss"] for one in scores.values())


def test_messages_are_progress_and_nothing_else(finished_session: Finished) -> None:
    assert "Reading data and model" in finished_session.messages
    assert "Saving the winner" in finished_session.messages
    for noise in ("Warning", "Traceback", "it/s]"):
        assert noise not in finished_session.messages


def test_everything_is_on_disk(finished_session: Finished) -> None:
    folder, incumbent = finished_session.folder, finished_session.result["incumbent"]
    # Other test processes may read the store at this moment, through SQLite's files beside it.
    names = {file.name for file in folder.iterdir() if not file.name.endswith(("-shm", "-wal"))}
    assert names == {
        *(".lock", "best", "live.json", "longer-pipeline.json", "report.html", "runs.sqlite"),
        *("session.json", "trials"),
    }
    session = json.loads((folder / "session.json").read_text())
    assert session["configuration"]["budget"] == "6-trials"
    with Store.open(folder / "runs.sqlite", create=False) as store:
        runs = list(store.runs(session=session["id"]))
        assert store.sessions() == [session["id"]]
    assert len(runs) == 7
    chosen = next(run for run in runs if run.id == incumbent["trial"])
    assert {"method": chosen.pipeline.method, **chosen.pipeline.hyperparameters} == incumbent["pipeline"]
    zero_shot, baseline, *_ = sorted(runs, key=lambda run: run.created_at)
    finalists = {"zero-shot": zero_shot, "baseline": baseline, "incumbent": chosen}
    won = finalists[finished_session.result["winner"]].pipeline
    delivered = json.loads((folder / "best" / "pipeline.json").read_text())
    assert delivered == {"method": won.method, "hyperparameters": dict(won.hyperparameters)}


def test_what_is_passed_on_does_not_tell_where_things_lay(finished_session: Finished) -> None:
    configuration = json.loads((finished_session.folder / "session.json").read_text())["configuration"]
    for name in ("report.html", "best/README.md"):
        file = finished_session.folder / name
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        assert str(finished_session.folder) not in text
        assert f'"{configuration["model"]}' not in text
        assert f'"{configuration["data"]}' not in text


def test_whether_it_is_worth_it_is_said_after_the_base_model_is_measured(finished_session: Finished) -> None:
    before, after = finished_session.messages.split("Scoring the base model: loss")
    assert "worth it" not in before
    assert "Predicted from the base model's measured loss" in after
    assert "worth it" in after
    assert "epochs per trial" in before


def test_complete_session_is_told_again(finished_session: Finished) -> None:
    flags = ("tune", "--resume", "--output-dir", str(finished_session.folder))
    code, out, _ = call_main(*flags, "--json")
    assert (code, json.loads(out)) == (0, finished_session.result)
    code, out, _ = call_main(*flags)
    assert code == 0
    assert f"Winner: {finished_session.result['winner']}" in out
    assert f"Not measured on this data: {finished_session.result['forecast']['reason']}." in out
    for name, score in finished_session.result["test"].items():
        few = f"LoRA, {finished_session.result['training'][name]['steps']} steps"
        assert (few if name == "baseline" else name.replace("_", "-")) in out
        assert f"{score['loss']:.4f}"[:5] in out


def runs_in(folder: Path) -> list[Run]:
    with Store.open(folder / "runs.sqlite", create=False) as store:
        return list(store.runs())


def test_a_complete_session_is_given_more(tiny_llama: Path, toy_data: Path, tmp_path: Path) -> None:
    more = ("--budget", "2-trials", "--no-forecast", "--test-examples", "5", "--max-length", "96")
    first = finish(tmp_path / "out", tiny_llama, toy_data, *more)
    state = json.loads((first.folder / "session.json").read_text())
    state["configuration"]["max_length"] = None  # as if another version had chosen 96 by its own rule
    (first.folder / "session.json").write_text(json.dumps(state))
    before = {run.id: run for run in runs_in(first.folder)}
    flags = ("tune", "--resume", "--output-dir", str(first.folder), "--executor", "in-process")
    code, _, err = call_main(*flags, "--budget", "1-trials")
    assert (code, "--budget 1-trials is less than the 2-trials" in err) == (2, True)
    code, out, err = call_main(*flags, "--budget", "3-trials", "--json")
    assert code == 0, err
    assert "Going on after" in err
    after = {run.id: run for run in runs_in(first.folder)}
    assert len(after) == len(before) + 1
    assert all(after[name].curve[: len(run.curve)] == run.curve for name, run in before.items())
    assert json.loads(out)["budget"]["used_seconds"] > first.result["budget"]["used_seconds"]
    assert record_of(first.folder).contender("zero_shot").test.examples == 5


def test_paths_are_printed_as_they_are(
    finished_session: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = "/somewhere/[bold]" + "long/" * 40
    print_record(replace(record_of(finished_session.folder), output_dir=folder))
    assert f"Report: {folder}/report.html\n" in capsys.readouterr().out


def resolved(*flags: str) -> dict[str, Any]:
    code, out, err = call_main("tune", *flags, "--dry-run", "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_dry_run_decides_everything_and_writes_nothing(
    tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    found = resolved(
        "--model", str(tiny_llama), "--data", str(toy_data), "--output-dir", str(tmp_path / "out")
    )
    assert found["data"]["examples"] == {"train": 128, "validation": 16, "test": 16}
    assert (found["device"] in ("cpu", "cuda"), found["max_length"]) == (True, 64)
    assert found["baseline"]["method"] == "lora"
    assert found["configuration"]["budget"] == "30m"
    predicted = found["prediction"]["recommendations"]
    assert len(predicted) == 3
    assert all(one["low"] < one["predicted_loss"] < one["high"] for one in predicted)
    assert sum(found["candidates"]["methods"].values()) == found["candidates"]["left"]
    assert found["test_scoring"]["examples"] == 16
    assert found["test_scoring"]["seconds"] > 0
    assert not (tmp_path / "out").exists()


def test_dry_run_prints_a_plan_of_one_screen(
    tiny_llama: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    where = ("--model", str(tiny_llama), "--data", str(toy_data), "--output-dir", "my-folder")
    code, out, err = call_main("tune", *where, "--fix", "lora_r=8", "--dry-run")
    assert (code, err.splitlines()[0]) == (0, "Planning")
    lines = out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    for part in (
        "128 train, 16 validation, 16 test",
        "loss on validation",
        "30m for search",
        "transfer over",
    ):
        assert part in out
    for part in (
        "lora_r=8",
        "lora, rate 2e-4, batch 16, r=8",
        "gain, loss",
        "my-folder",
        "Nothing was trained",
    ):
        assert part in out


def test_flags_override_the_file(tiny_llama: Path, toy_data: Path, tmp_path: Path) -> None:
    (tmp_path / "tune.yaml").write_text(
        f"model: {tiny_llama}\ndata: {toy_data}\nbudget: 3m\nseed: 5\nmethods: [lora]\n"
        "max-length: 96\nforecast: true\nfix: {lora_r: 4, use_dora: true, weight_decay: 1e-2}\n"
        "range: {learning_rate: [1e-4, 1e-3]}\n"
    )
    flags = ("--config", str(tmp_path / "tune.yaml"), "--seed", "7", "--fix", "lora_r=8", "--no-forecast")
    found = resolved(*flags)["configuration"]
    assert (found["budget"], found["seed"], found["max_length"]) == ("3m", 7, 96)
    assert found["methods"] == ["lora"]
    assert found["forecast"] is False
    assert found["fixed"] == {"lora_r": 8, "use_dora": True, "weight_decay": 0.01}
    assert found["ranges"] == {"learning_rate": [1e-4, 1e-3]}


def test_what_cannot_be_scored_is_null(finished_session: Finished) -> None:
    record = record_of(finished_session.folder)
    base, _, incumbent = record.contenders
    broken = replace(base, test=replace(base.test, loss=float("nan")))
    result = as_result(replace(record, contenders=(broken, incumbent)))
    assert result["validation"]["baseline"] is result["test"]["baseline"] is None
    assert result["test"]["zero_shot"]["loss"] is None
    json.dumps(result, allow_nan=False)


def tried_in(folder: Path) -> list[Run]:
    """The runs of a session's candidates, in the order in which they began."""
    session = json.loads((folder / "session.json").read_text())["id"]
    with Store.open(folder / "runs.sqlite", create=False) as store:
        runs = [run for run in store.runs(session=session) if run.is_candidate]
    return sorted(runs, key=lambda run: run.created_at)


@pytest.mark.parametrize("strategy", ["transfer", "portfolio"])
def test_strategies_that_know_other_tasks_run_to_the_end_and_resume(
    strategy: str, tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    flags = ["--strategy", strategy, "--no-forecast", "--budget", "4-trials", "--epochs", "1"]
    done = finish(tmp_path / "out", tiny_llama, toy_data, *flags)
    assert done.result["winner"] in done.result["test"]
    before = tried_in(tmp_path / "out")
    assert 2 < len(before) <= 4
    state = unfinish(tmp_path / "out", keep=len(before))  # the first run is the base model's
    assert state["configuration"]["strategy"] == strategy
    candidates = [Pipeline(**one) for one in state["candidates"]]
    assert candidates[0] == before[0].pipeline
    assert {run.pipeline.id for run in before} <= {pipeline.id for pipeline in candidates}
    assert set(state["diagnostics"]) <= set(done.result["warnings"])
    again = finish(tmp_path / "out", tiny_llama, toy_data, *flags, "--resume")
    after = tried_in(tmp_path / "out")
    assert [run.id for run in after[: len(before) - 1]] == [run.id for run in before[:-1]]
    assert len(before) - 1 < len(after) <= 4
    assert again.result["test"]["zero_shot"] == done.result["test"]["zero_shot"]
    assert "is not the one" not in " ".join(again.result["warnings"])


@pytest.mark.parametrize("strategy", ["fixed-3e-4", "fixed-best", "nearest-task"])
def test_every_other_strategy_runs_to_the_end(
    strategy: str, tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    flags = ["--strategy", strategy, "--no-forecast", "--budget", "3-trials", "--epochs", "0.5"]
    done = finish(tmp_path / "out", tiny_llama, toy_data, *flags)
    tried = tried_in(tmp_path / "out")
    assert 1 < len(tried) <= 3
    assert len({run.pipeline.id for run in tried}) == len(tried)
    assert tried[0].outcome is Outcome.COMPLETED
    assert done.result["incumbent"]["trial"] in {run.id for run in tried}


def test_a_session_keeps_its_candidates_and_goes_on_without_a_prior_that_it_did_not_begin_with(
    tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    prior, flags = (
        tmp_path / "prior",
        ["--strategy", "transfer", "--no-forecast", "--budget", "3-trials", "--epochs", "1"],
    )
    load_prior().save(prior)
    finish(tmp_path / "out", tiny_llama, toy_data, *flags, "--prior", str(prior))
    state = unfinish(tmp_path / "out", keep=2)
    # What the session wrote down decides, whatever a prior would choose by now.
    baseline = Pipeline(**state["candidates"][0])
    others = [Pipeline("lora", {**baseline.hyperparameters, "lora_r": rank}) for rank in (3, 5)]
    state["candidates"] = [asdict(pipeline) for pipeline in (baseline, *others)]
    (tmp_path / "out" / "session.json").write_text(json.dumps(state))
    assert state["prior"] == load_prior().identity
    replace(load_prior(), provenance=replace(load_prior().provenance, checksum="of other runs")).save(prior)
    done = finish(tmp_path / "out", tiny_llama, toy_data, *flags, "--prior", str(prior), "--resume")
    assert {run.pipeline.id for run in tried_in(tmp_path / "out")} == {p.id for p in (baseline, *others)}
    doubt = "The prior is not the one that the session began with"
    assert done.messages.count(doubt) == 1
    assert [doubt in warning for warning in done.result["warnings"]].count(True) == 1
    assert doubt in (tmp_path / "out" / "best" / "README.md").read_text()


@pytest.mark.parametrize("strategy", ["transfer", "quick-tune"])
def test_where_no_gain_is_worth_its_seconds_nothing_is_tried_beside_the_baseline(
    strategy: str, tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    flags = ["--strategy", strategy, "--value", "1e-6", "--no-forecast", "--epochs", "1"]
    done = finish(tmp_path / "out", tiny_llama, toy_data, *flags)
    state = json.loads((tmp_path / "out" / "session.json").read_text())
    assert state["configuration"]["value"] == 1e-6
    (baseline,) = tried_in(tmp_path / "out")
    assert baseline.outcome is Outcome.COMPLETED
    assert done.result["incumbent"]["trial"] == baseline.id


def test_what_was_recommended_is_tried_and_candidates_stay_when_the_session_goes_on(
    tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    flags = ["--no-forecast", "--budget", "4-trials", "--epochs", "1"]
    finish(tmp_path / "out", tiny_llama, toy_data, *flags)
    file = tmp_path / "out" / "session.json"
    state = json.loads(file.read_text())
    assert len(state["recommended"]) > 24
    with Store.open(tmp_path / "out" / "runs.sqlite", create=False) as store:
        tried = {run.pipeline.id for run in store.runs(session=state["id"]) if run.is_candidate}
    known = [Pipeline(**one) for one in state["recommended"]]
    assert tried & {pipeline.id for pipeline in known}
    # What the session wrote down decides, whatever advice says by now.
    del state["record"]
    other = asdict(Pipeline("full", {**known[0].hyperparameters, "learning_rate": 1e-7}))
    baseline = state["candidates"][0]
    file.write_text(json.dumps({**state, "candidates": [baseline, other]}))
    shutil.rmtree(tmp_path / "out" / "trials")
    (tmp_path / "out" / "runs.sqlite").unlink()
    again = finish(tmp_path / "out", tiny_llama, toy_data, *flags, "--resume")
    assert again.result["winner"]
    with Store.open(tmp_path / "out" / "runs.sqlite", create=False) as store:
        rates = {run.pipeline.hyperparameters.get("learning_rate") for run in store.runs()}
    assert 1e-7 in rates


@pytest.mark.parametrize(
    ("command", "begun", "said"),
    [
        ("tune", True, "tune --resume --output-dir {out}"),
        ("tune", False, "nothing was written"),
        ("train", True, "the same command and --resume"),
    ],
)
def test_who_interrupts_is_told_how_to_go_on(
    command: str,
    begun: bool,
    said: str,
    tiny_llama: Path,
    toy_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(settings: SessionSettings, *_: object, **__: object) -> None:
        if begun:
            OutputFolder(Path(settings.output_dir)).write_session("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(f"tunecast.api.{command}", interrupted)
    out, pipeline = tmp_path / "out", tmp_path / "pipeline.json"
    pipeline.write_text('{"method": "lora"}')
    flags = ("--model", str(tiny_llama), "--data", str(toy_data), "--output-dir", str(out))
    code, _, err = call_main(command, *flags, *(("--pipeline", str(pipeline)) if command == "train" else ()))
    assert code == 130
    assert said.format(out=out) in err
    assert ("continue with" in err) == begun


@pytest.mark.slow
def test_from_a_folder_of_documents_to_a_card(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "manuals"
    folder.mkdir()
    for number in range(30):
        text = f"Oil the gear of machine {number} every {number + 2} weeks, but never before noon."
        (folder / f"{number}.md").write_text(f"# Oiling machine {number}\n\n{text}\n")
    (folder / "empty.md").write_text("")
    output = tmp_path / "out"
    given = ("--model", str(tiny_llama), "--output-dir", str(output), "--documents", str(folder))
    spent = ("--budget", "1-trials", "--no-forecast", "--final-training", "none")
    code, _, err = call_main("tune", *given, *spent, *FLAGS, *IN_PROCESS)
    assert code == 0, err
    assert "Note: not read: empty.md has no text." in err
    assert "Not used: 'source'" not in err
    card = (output / "best" / "README.md").read_text()
    assert "- made by: heading (30)" in card
    assert "- from 30 documents: 0.md, 1.md, " in card
    code, _, err = call_main("tune", *given, *spent, *FLAGS, *IN_PROCESS, "--resume")
    assert code == 0, err
    pairs = tmp_path / "out-pairs.jsonl"
    with pairs.open("a") as file:
        file.write('{"prompt": "By hand?", "completion": "Yes, by hand.", "split": "train"}\n')
    edited = pairs.read_text()
    for message in ("already holds a session", "out-pairs.jsonl already exists"):
        code, _, err = call_main("tune", *given, *spent, *FLAGS, *IN_PROCESS)
        assert code == 2
        assert message in err
        assert pairs.read_text() == edited
        shutil.rmtree(output, ignore_errors=True)


def test_a_plan_of_documents_makes_pairs_that_a_later_call_replaces(tiny_llama: Path, tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.md").write_text(
            f"# Oiling machine {number}\n\nOil the gear of machine {number} every {number + 2} weeks.\n"
        )
    given = ("--model", str(tiny_llama), "--output-dir", str(tmp_path / "out"), "--documents", str(tmp_path))
    for _ in range(2):
        code, _, err = call_main("tune", *given, *FLAGS, *IN_PROCESS, "--dry-run")
        assert code == 0, err
    pairs = (tmp_path / "out-pairs.jsonl").read_text()
    assert len(pairs.splitlines()) == 20
    assert not (tmp_path / "out").exists()
    # A session keeps the pairs that it began with.
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "session.json").write_text("{}")
    (tmp_path / "0.md").write_text("# Oiling machine 0\n\nOil the gear of machine 0 every day.\n")
    code, _, err = call_main("tune", *given, *FLAGS, *IN_PROCESS)
    assert code == 2, err
    assert (tmp_path / "out-pairs.jsonl").read_text() == pairs


def test_a_search_without_gains_ends_early(tiny_llama: Path, toy_data: Path, tmp_path: Path) -> None:
    flags = (
        "--budget",
        "12-trials",
        "--patience",
        "3",
        "--no-forecast",
        "--range",
        "learning_rate=1e-9:1e-8",
    )
    ended = finish(
        tmp_path / "out", tiny_llama, toy_data, *flags, "--methods", "lora", "--strategy", "random"
    )
    assert "points in a row had no lower validation loss (--patience 3)" in ended.messages
    assert len({run.id for run in runs_in(ended.folder) if run.is_candidate}) < 12
