"""``tunecast runs``: what it prints, what it writes, and what it says of mistakes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sample_runs import diverged_run, sample_dataset, sample_pipeline, sample_run
from tunecast.cli.runs import app
from tunecast.errors import UserError
from tunecast.records import GuardScore, Task
from tunecast.store import Store, meta_dataset

TABLE = "run,dataset,step,loss,learning_rate,colour\na,colours,1,2.5,1e-3,red\nb,colours,1,low,1e-3,red\n"

PUBLISHED = """\
source,licence,model,parameters,dataset,method,learning_rate,metric,unit,value,run
somebody/sweep,Apache-2.0,somebody/model,1000000000,colours,lora,1e-4,accuracy,accuracy,0.5,x
somebody/sweep,Apache-2.0,somebody/model,1000000000,colours,lora,1e-3,accuracy,accuracy,0.25,y
"""


@pytest.fixture
def store(tmp_path: Path) -> str:
    path = tmp_path / "runs.sqlite"
    with Store.open(path) as opened:
        opened.put_all(
            [
                sample_run(1),
                sample_run(
                    2, pipeline=sample_pipeline("full"), dataset=sample_dataset("other"), session="s2"
                ),
                diverged_run(3),
                sample_run(4, curve=()),
            ]
        )
    return str(path)


def _run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def _json(*arguments: object) -> Any:
    refuse = {"parse_constant": lambda name: pytest.fail(f"{name} is no JSON")}
    return json.loads(_run(*arguments, "--json"), **refuse)


def _mistake(*arguments: object) -> UserError:
    with pytest.raises(UserError) as caught:
        CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    return caught.value


def test_list_json_keeps_its_contract(store: str) -> None:
    listed = _json("list", "--store", store)
    assert list(listed) == ["runs"]
    assert listed["runs"][0] == {
        "id": sample_run(1).id,
        "task": "colours",
        "model": "smollm2",
        "method": "lora",
        "outcome": "completed",
        "full_length_tokens": 64_000,
        "final_loss": sample_run(1).final_loss,
        "exclusive": False,
        "published": None,
        "guards": {},
    }
    assert [run["final_loss"] for run in listed["runs"][2:]] == [None, None]


@pytest.mark.parametrize(
    ("flag", "value", "count"),
    [
        ("--task", "other", 1),
        ("--model", "smollm2", 4),
        ("--method", "lora", 3),
        ("--outcome", "diverged", 1),
        ("--session", "s2", 1),
        ("--limit", "2", 2),
        ("--task", "absent", 0),
    ],
)
def test_list_filters(store: str, flag: str, value: str, count: int) -> None:
    assert len(_json("list", "--store", store, flag, value)["runs"]) == count


def test_list_is_a_table(store: str) -> None:
    lines = _run("list", "--store", store).splitlines()
    assert lines[0].split() == ["id", "task", "model", "method", "outcome", "full", "length", "final", "loss"]
    assert lines[1].split()[:6] == [sample_run(1).id, "colours", "smollm2", "lora", "completed", "64,000"]
    assert lines[3].split()[-1] == "nan"
    assert lines[-1] == "4 runs"


def test_runs_with_guards_say_where_the_loss_rose_most(store: str) -> None:
    def score(guard: str, loss: float) -> GuardScore:
        return GuardScore(guard, 40, 2.0, loss, 0.0, 0.5)

    scores = [(8, score("kept", 9.0)), (64, score("kept", 1.9)), (64, score("other", 2.5))]
    with Store.open(store) as opened:
        opened.put(sample_run(1).with_guards(scores))
        opened.put(diverged_run(3).with_guards([(2, score("kept", math.nan))]))
    lines = [line.rstrip() for line in _run("list", "--store", store).splitlines()]
    assert lines[0].endswith("final loss  loss on guards")
    assert lines[1].endswith("+25.0% on other and 1 more")
    assert lines[2].endswith(f"{sample_run(2).final_loss:.4f}"), "it has no guards"
    assert lines[3].endswith("+nan% on kept")
    listed = _json("list", "--store", store)["runs"]
    assert listed[0]["guards"] == {"kept": pytest.approx(-5), "other": pytest.approx(25)}
    assert [run["guards"] for run in listed[1:]] == [{}, {"kept": None}, {}]


def test_a_long_list_shows_its_end(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    with Store.open(path) as opened:
        opened.put_all([sample_run(number, curve=()) for number in range(60)])
    lines = _run("list", "--store", path).splitlines()
    assert lines[-1] == "60 runs; the last 50 are shown, all with --json"
    assert lines[-2].startswith(sample_run(59).id)
    assert len(lines) == 52


def test_a_limit_keeps_the_newest_too(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    with Store.open(path) as opened:
        opened.put_all([sample_run(number, curve=()) for number in range(60)])
    newest = [sample_run(number).id for number in (58, 59)]
    lines = _run("list", "--store", path, "--limit", 2).splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == newest
    assert lines[-1] == "60 runs; the last 2 are shown"
    assert [run["id"] for run in _json("list", "--store", path, "--limit", 2)["runs"]] == newest
    assert len(_run("list", "--store", path, "--limit", 55).splitlines()) == 57


def test_without_a_store_the_shipped_runs_are_listed(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "shipped.parquet"
    _run("export", path, "--store", store)
    monkeypatch.setattr(meta_dataset, "shipped", lambda: path)
    assert len([run for run in _json("list")["runs"] if run["published"] is None]) == 4
    monkeypatch.setattr(meta_dataset, "shipped", lambda: None)
    assert "Name a store with --store" in _mistake("list").hint


def test_show(store: str) -> None:
    text = _run("show", sample_run(1).id, "--store", store)
    for expected in ("colours on smollm2", "rate 3e-4", "of 64 steps", "4.0000"):
        assert expected in text
    longer = _run("show", sample_run(1).id, "--store", store, "--details")
    for detail in ("64,000 tokens, 64 steps", "lora_r", "fingerprint", "134515008", "flops_per_second"):
        assert detail in longer
        assert detail not in text


def test_texts_are_shown_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    texts = (".*[qv]_proj$", "[/x]", "[bold]corpus :smile:")
    run = sample_run(
        1,
        pipeline=sample_pipeline(target_modules=texts[0]),
        task=Task(texts[2], texts[1]),
        dataset=sample_dataset(texts[2]),
    )
    with Store.open(path) as opened:
        opened.put(run)
    shown, listed = _run("show", run.id, "--store", path, "--details"), _run("list", "--store", path)
    assert all(text in shown for text in texts)
    assert all(text in listed for text in texts[1:])


def test_undecodable_names_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    name = "d\udcff"
    run = sample_run(1, pipeline=sample_pipeline(data=name), dataset=sample_dataset(name))
    with Store.open(path) as opened:
        opened.put(run)
    assert _json("list", "--store", path, "--task", name)["runs"][0]["task"] == "d?"
    assert "d\udcff" not in _run("show", run.id, "--store", path, "--details")
    assert _json("show", run.id, "--store", path)["dataset"]["name"] == "d?"


def test_show_json_is_the_whole_record(store: str) -> None:
    shown = _json("show", diverged_run(3).id, "--store", store)
    assert shown["error"] == {"kind": "FloatingPointError", "text": "loss is nan at step 8"}
    assert [point["validation"]["loss"] for point in shown["curve"]][2:] == [None, None]
    assert shown["model"]["config"]["hidden_size"] == 576


def test_show_of_no_run(store: str) -> None:
    assert "no run 'absent'" in str(_mistake("show", "absent", "--store", store))


def test_export_and_import_merge_two_stores(store: str, tmp_path: Path) -> None:
    path, other = tmp_path / "x.parquet", tmp_path / "other.sqlite"
    assert _json("export", path, "--store", store) == {"runs": 4, "path": str(path), "shareable": True}
    read = _json("import", path, "--store", other)
    assert read == {"runs": 4, "points": 18, "new_runs": 4, "new_points": 18, "problems": []}
    assert _json("import", path, "--store", other)["new_runs"] == 0
    assert "Wrote 1 run to" in _run("export", path, "--store", store, "--method", "full", "--full")


def test_where_nothing_is_chosen_an_earlier_export_stays(store: str, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    _run("export", path, "--store", store)
    error = _mistake("export", path, "--store", store, "--task", "colour")
    assert error.what == f"There is no run to export for --store {store} --task colour; nothing was written."
    assert len(_json("list", "--store", path)["runs"]) == 4


def test_export_keeps_texts_only_where_asked(store: str, tmp_path: Path) -> None:
    for flags, text in (((), ""), (("--full",), "loss is nan at step 8")):
        path = tmp_path / f"{len(flags)}.parquet"
        _run("export", path, "--store", store, *flags)
        assert _json("show", diverged_run(3).id, "--store", path)["error"]["text"] == text


def test_import_says_what_it_did_not_understand(tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    table.write_text(TABLE)
    text = _run(
        "import", table, "--store", tmp_path / "new.sqlite", "--map", "lora_r=step", "--map", "step=step"
    )
    assert text.splitlines()[0] == "Read 1 run with 1 point; 1 and 1 were new."
    assert f"{table}, column colour: is unknown" in text
    assert f"{table}, line 3: loss is 'low', not a number" in text
    assert "1 of 1 runs have no model; give it with --model" in text


def test_import_takes_what_the_user_knows(tmp_path: Path) -> None:
    table, store = tmp_path / "runs.csv", tmp_path / "new.sqlite"
    table.write_text(TABLE)
    _run("import", table, "--store", store, "--model", "smollm2", "--method", "lora", "--task", "ignored")
    run = _json("list", "--store", store)["runs"][0]
    assert (run["task"], run["model"], run["method"]) == ("colours", "smollm2", "lora")


@pytest.mark.parametrize("name", ["absent.csv", "bad.csv", "bad.parquet", "bad.txt", "absent.parquet"])
def test_a_failed_import_makes_no_store(tmp_path: Path, name: str) -> None:
    if name.startswith("bad"):
        (tmp_path / name).write_text("nothing\n")
    _mistake("import", tmp_path / name, "--store", tmp_path / "new.sqlite", "--map", "loss=absent")
    assert not (tmp_path / "new.sqlite").exists()
    _mistake("import", tmp_path / name, "--store", tmp_path / "new.sqlite")
    assert not (tmp_path / "new.sqlite").exists()


def test_a_published_table_is_imported_listed_and_shown(store: str, tmp_path: Path) -> None:
    table = tmp_path / "sweep.csv"
    table.write_text(PUBLISHED, encoding="utf-8")
    told = _run("import", "--published", table, "--store", store)
    assert told == "Read 2 runs of published tables; 2 were new.\n"
    listed = _json("list", "--store", store, "--published")["runs"]
    results = {"table": "sweep", "unit": "accuracy", "metric": "accuracy"}
    found = sorted((run["published"] for run in listed), key=lambda told: told["value"])
    assert found == [{**results, "value": value} for value in (0.25, 0.5)]
    assert len(_json("list", "--store", store)["runs"]) == 6
    lines = _run("list", "--store", store, "--published").splitlines()
    assert lines[0].rstrip().endswith("published result")
    told = {line.rstrip().split("  ")[-1].strip() for line in lines[1:3]}
    assert told == {"0.25 accuracy, sweep", "0.5 accuracy, sweep"}
    assert lines[-1] == "2 runs"
    shown = _run("show", listed[0]["id"], "--store", store)
    assert "somebody/sweep" in shown
    assert "Apache-2.0" in shown
    assert "tokens seen" not in shown


def test_a_fault_in_a_published_table_imports_nothing(tmp_path: Path) -> None:
    table, new = tmp_path / "sweep.csv", tmp_path / "new.sqlite"
    table.write_text(PUBLISHED.replace("accuracy,0.25", ",0.25"), encoding="utf-8")
    error = _mistake("import", "--published", table, "--store", new)
    assert error.what == f"{table}, row 3, column 'unit': is empty."
    assert not new.exists()


def test_one_source_is_imported_at_a_time(tmp_path: Path) -> None:
    new = tmp_path / "new.sqlite"
    assert "Name one source" in _mistake("import", "--store", new).what
    assert "Name one source" in _mistake("import", "a.csv", "--published", "b.csv", "--store", new).what
    assert "--map" in _mistake("import", "--published", "b.csv", "--map", "loss=x", "--store", new).what


def test_an_export_is_called_parquet(store: str, tmp_path: Path) -> None:
    error = _mistake("export", tmp_path / "x.txt", "--store", store)
    assert str(error) == f"The export {tmp_path}/x.txt must end in .parquet.\nWrite {tmp_path}/x.txt.parquet."


def test_an_export_may_end_in_capitals(store: str, tmp_path: Path) -> None:
    path = tmp_path / "x.PARQUET"
    assert _run("export", path, "--store", store) == f"Wrote 4 runs to {path}\n"
    assert len(_json("list", "--store", path)["runs"]) == 4


def test_a_malformed_mapping(tmp_path: Path) -> None:
    error = _mistake("import", tmp_path / "x.csv", "--store", tmp_path / "new.sqlite", "--map", "loss")
    assert error.what == "--map 'loss' is not OURS=COLUMN."


def test_a_mistake_is_one_message_and_exit_code_2(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from tunecast.cli import main; main()"]
    arguments = ["runs", "list", "--store", str(tmp_path / "absent.sqlite")]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[0] == f"tunecast: There is no store {tmp_path}/absent.sqlite."
    assert "Traceback" not in done.stderr
