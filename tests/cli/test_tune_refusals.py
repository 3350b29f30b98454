"""Bad input to ``tunecast tune``: one clear message, exit code 2, and nothing half-written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import tiny
from sessions import FLAGS, IN_PROCESS, Finished, call_main, call_main_limited_to
from shared_server import in_fork
from tunecast.session import folder as folder_module
from tunecast.session.folder import OutputFolder


class Case:
    """A correct command line; each test breaks one part of it."""

    def __init__(self, model: Path, data: Path, output: Path) -> None:
        self.flags = {"--model": str(model), "--data": str(data), "--output-dir": str(output)}
        self.flags |= {"--budget": "2-trials"}
        self.output = output

    def refused(self, *parts: str, extra: tuple[str, ...] = (), **changed: object) -> None:
        """Run with some flags changed; every part must be in the one message on stderr."""
        flags = {
            **self.flags,
            **{f"--{name.replace('_', '-')}": str(value) for name, value in changed.items()},
        }
        arguments = [text for pair in flags.items() for text in pair]
        code, out, err = call_main("tune", *arguments, *FLAGS, *IN_PROCESS, *extra)
        assert code == 2, err
        assert out == ""
        assert "Traceback" not in err
        message = err[err.index("tunecast: ") :]
        assert message.count("\n") <= 3, message
        for part in parts:
            assert part in message
        assert not self.output.exists(), "something was left behind"


@pytest.fixture
def case(tiny_llama: Path, toy_data: Path, tmp_path: Path) -> Case:
    return Case(tiny_llama, toy_data, tmp_path / "out")


def test_missing_file(case: Case, tmp_path: Path) -> None:
    case.refused("nowhere.jsonl", data=tmp_path / "nowhere.jsonl")


def test_empty_file(case: Case, tmp_path: Path) -> None:
    case.refused("empty.jsonl", "empty", data=tiny.write_jsonl(tmp_path / "empty.jsonl", []))


def test_wrong_columns(case: Case, tmp_path: Path) -> None:
    rows = [{"frage": row["prompt"], "nummer": 3} for row in tiny.toy_rows(20)]
    case.refused("frage", "--prompt-column", data=tiny.write_jsonl(tmp_path / "wrong.jsonl", rows))


def test_one_bad_row_in_ten_thousand(case: Case, tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in tiny.toy_rows(10_000)]
    lines[7776] = lines[7776][:-4]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    case.refused("7777", "rows.jsonl", data=tmp_path / "rows.jsonl")


def test_prompts_longer_than_the_context(case: Case, tmp_path: Path) -> None:
    rows = [{**row, "prompt": row["prompt"] * 40} for row in tiny.toy_rows(40)]
    case.refused(
        "128", "longest sequence", "--max-length", data=tiny.write_jsonl(tmp_path / "long.jsonl", rows)
    )


def test_max_length_beyond_the_context(case: Case) -> None:
    case.refused("--max-length 4096", "128", max_length=4096)


def test_unknown_model(case: Case) -> None:
    case.refused("--model", "nobody/nothing", model="nobody/nothing")
    case.refused("--model", "no folder", model="./nothing/here")


def test_model_without_tokenizer(case: Case, tiny_llama: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_llama / name, bare)
    case.refused("tokenizer", str(bare), model=bare)


def test_model_with_damaged_weights(case: Case, tiny_llama: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(tiny_llama, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"not weights")
    case.refused("cannot load", "weights", model=damaged)


@pytest.mark.parametrize(
    ("flag", "value", "parts"),
    [
        ("strategy", "ashaa", ("--strategy", "ashaa", "Did you mean asha?")),
        ("methods", "lorra", ("lorra", "Did you mean lora?")),
        ("methods", ",", ("--methods",)),
        ("objective", "exact_mach", ("--objective", "exact_mach", "Did you mean exact_match?")),
        ("fix", "lora_r", ("--fix", "lora_r=16")),
        ("fix", "lora_rank=8", ("--fix", "lora_rank", "lora_r")),
        ("fix", "learning_rate=high", ("--fix", "learning_rate")),
        ("fix", "lora_r=[", ("--fix", "lora_r=[", "lora_r=16")),
        ("fix", "lora_r=[1,2]", ("--fix lora_r=[1,2]", "not a list", "lora_r=16")),
        ("fix", "lora_r=null", ("--fix lora_r=null", "NoneType")),
        ("fix", "=3", ("--fix", "lora_r=16")),
        ("range", "learning_rate=1e-3", ("--range", "learning_rate=1e-5:1e-3")),
        ("range", "learning_rate=1e-3:1e-5", ("--range", "learning_rate")),
        ("range", "learning_rat=1e-5:1e-3", ("--range", "learning_rat")),
        ("budget", "soon", ("--budget", "'soon'", "30m")),
        ("budget", "0.5-trials", ("--budget",)),
        ("budget", "9" * 400 + "-tokens", ("--budget", "30m")),
        ("budget", "9" * 400 + "s", ("--budget", "30m")),
        ("workers", "0", ("--workers", "at least 1")),
        ("epochs", "-1", ("--epochs", "above 0")),
        ("epochs", "inf", ("--epochs", "finite")),
        ("max-memory-gb", "0", ("--max-memory-gb", "above 0")),
        ("seed", "-1", ("--seed",)),
        ("dtype", "float8", ("--dtype", "bfloat16")),
        ("device", "tpu", ("--device", "cpu")),
        ("device", "cuda:77", ("--device cuda:77", "cpu")),
        ("store", "mysql://somewhere", ("mysql", "sqlite:///")),
        ("config", "/nowhere.yaml", ("--config", "/nowhere.yaml")),
    ],
)
def test_flag_that_makes_no_sense(case: Case, flag: str, value: str, parts: tuple[str, ...]) -> None:
    case.refused(*parts, **{flag: value})


@pytest.mark.parametrize(
    ("flag", "value", "part"),
    [
        ("methods", "lorra", "Did you mean lora?"),
        ("fix", "lora_rank=8", "no hyperparameter 'lora_rank'"),
        ("range", "learning_rat=1e-5:1e-3", "no hyperparameter 'learning_rat'"),
        ("range", "learning_rate=1e-3:1e-5", "the lower end is not below"),
        ("fix", "keep_share=0.3", "for lora"),
    ],
)
@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_names_are_checked_before_anything_is_read(
    case: Case, flag: str, value: str, part: str, dry_run: tuple[str, ...]
) -> None:
    flags = {"data": "nowhere.jsonl", "model": "./nothing/here", "methods": "lora", flag: value}
    case.refused(part, extra=dry_run, **flags)


def test_what_only_strategies_that_know_other_tasks_take(case: Case) -> None:
    case.refused("--value", "transfer", "quick-tune", strategy="asha", extra=("--value", "2"))
    case.refused("--prior", "transfer", "quick-tune", strategy="asha", extra=("--prior", "some.safetensors"))


def test_two_pipelines_that_would_be_one(case: Case) -> None:
    case.refused("fixed-3e-4", "fixed-baseline", strategy="fixed-3e-4", extra=("--fix", "learning_rate=3e-4"))


def test_fixed_rate_that_contradicts_the_strategy(case: Case) -> None:
    case.refused(
        "fixed-3e-4", "fixed-baseline", strategy="fixed-3e-4", extra=("--range", "learning_rate=1e-5:1e-4")
    )


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("budgett: 3m", ("budgett", "budget")),
        ("- budget", ("list",)),
        ("epochs: many", ("epochs",)),
        ("budget: 300", ("budget", "string")),
        ("budget: [", ("YAML", "line 1")),
        ("budget: \x00", ("YAML", "not allowed")),
        ("budget: 2026-13-45", ("YAML", "month")),
        ("fix: [lora_r]", ("fix must be", "list", "lora_r: 16")),
        ("fix: {lora_r: [8]}", ("tune.yaml", "lora_r", "not a list")),
        ("range:", ("range must be", "NoneType")),
    ],
)
def test_configuration_file_that_makes_no_sense(
    case: Case, tmp_path: Path, content: str, parts: tuple[str, ...]
) -> None:
    file = tmp_path / "tune.yaml"
    file.write_text(content)
    if content.startswith("budget:"):
        del case.flags["--budget"]
    case.refused(*parts, config=file)


def test_model_and_data_are_needed() -> None:
    code, _, err = call_main("tune", "--budget", "3m")
    assert (code, "--model and --data missing" in err) == (2, True)


def test_going_on_where_there_is_no_session(tmp_path: Path) -> None:
    code, _, err = call_main("tune", "--resume", "--output-dir", str(tmp_path / "none"))
    assert (code, f"There is no session in {tmp_path / 'none'}" in err) == (2, True)


def test_what_was_fixed_to_no_value_is_said_once_before_anything_else(case: Case) -> None:
    case.refused("--fix lora_r=-3", "lora_r takes", extra=("--fix", "lora_r=-3"))
    _, _, err = call_main(
        "tune", *[text for pair in case.flags.items() for text in pair], "--fix", "lora_r=-3"
    )
    assert err.count("lora_r=-3") == 1
    assert "Nothing is predicted" not in err


def test_folder_of_an_unknown_user(case: Case) -> None:
    case.refused("--output-dir ~nosuchuser/out", "user", output_dir="~nosuchuser/out")
    assert not Path("~nosuchuser").exists()


def test_unknown_flag(case: Case) -> None:
    code, _, err = call_main("tune", "--nonsense", "3")
    assert (code, "--nonsense" in err) == (2, True)


def test_budget_too_small_in_tokens_names_one_that_suffices(case: Case) -> None:
    case.refused("--budget 50-tokens", "Give at least --budget", budget="50-tokens")


def test_budget_too_small_in_seconds_names_one_that_suffices(case: Case) -> None:
    case.refused("--budget 0.01s", "optimiser steps", "Give at least --budget", budget="0.01s")


def test_unwritable_folder(case: Case, toy_data: Path) -> None:
    case.output = toy_data / "out"
    case.refused("--output-dir", "cannot be written", "Choose another", output_dir=toy_data / "out")
    case.refused("--output-dir", "cannot be written", output_dir="/proc/out")


def test_folder_in_use(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "LOCK_PATIENCE_SECONDS", 0.2)
    used = OutputFolder(tmp_path / "used")
    try:
        case.refused("in use by another session", output_dir=tmp_path / "used")
    finally:
        used.close()


def test_folder_that_holds_a_session(case: Case, finished_session: Finished) -> None:
    before = (finished_session.folder / "session.json").read_text()
    case.refused("already holds a session", "--resume", output_dir=finished_session.folder)
    case.refused(
        "--seed", "--epochs", output_dir=finished_session.folder, extra=("--resume",), seed=1, epochs=2
    )
    assert (finished_session.folder / "session.json").read_text() == before


def test_resuming_on_other_data(case: Case, tmp_path: Path) -> None:
    rows = tiny.toy_rows(40)
    file = tiny.write_jsonl(tmp_path / "rows.jsonl", rows)
    state = {"id": "0", "configuration": {}, "dataset_fingerprint": "of other rows"}
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "session.json").write_text(json.dumps(state))
    case.refused("--resume", "other values", data=file, output_dir=tmp_path / "begun", extra=("--resume",))


@pytest.mark.parametrize("content", ['{"id": ', "[]", "null", '{"configuration": 3}'])
def test_damaged_session(case: Case, tmp_path: Path, content: str) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / "session.json").write_text(content)
    case.refused("session.json", "damaged", output_dir=folder, extra=("--resume",))


def test_full_disk(tiny_llama: Path, toy_data: Path, tmp_path: Path) -> None:
    flags = ["--model", str(tiny_llama), "--data", str(toy_data), "--output-dir", str(tmp_path / "out")]
    flags += ["--budget", "1-trials", "--fix", "lora_r=64", "--methods", "lora", *FLAGS]
    code, _, err = in_fork(call_main_limited_to, 400_000, "tune", *flags, *IN_PROCESS)
    assert code == 2, err[-2000:]
    assert "Traceback" not in err
    assert "cannot write" in err
    assert "--resume" in err
    code, out, err = call_main("tune", *flags, *IN_PROCESS, "--resume", "--json")
    assert code == 0, err[-2000:]
    assert json.loads(out)["test"]["baseline"]["loss"] > 0


@pytest.mark.parametrize("store", ["mysql://host/runs", "oracle://x", "://"])
def test_a_store_of_an_unsupported_kind_is_told_first(store: str, case: Case) -> None:
    case.refused("Use a file (runs.sqlite)", store=store, data="not looked at")


def test_places_of_the_results_are_checked_first(case: Case, tmp_path: Path) -> None:
    case.output = tmp_path / "nothing"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "best").write_text("mine")
    case.refused("best is a file", output_dir=tmp_path / "out", data="not looked at")
    case.refused("cannot be written", output_dir="/dev/null", data="not looked at")


def test_documents_beside_data_or_without_pairs(case: Case, tmp_path: Path) -> None:
    case.refused("--data and --documents are both given", extra=("--documents", str(tmp_path)))
    del case.flags["--data"]
    (tmp_path / "empty").mkdir()
    case.refused("holds no document", extra=("--documents", str(tmp_path / "empty")))
    assert not list(tmp_path.glob("out-pairs*"))


def test_guards_that_cannot_be_scored(case: Case, tmp_path: Path) -> None:
    case.refused("--guard pyton: there is no such file", "Did you mean python?", guard="pyton")
    case.refused("--guard", "nowhere.jsonl", guard=tmp_path / "nowhere.jsonl")
    case.refused("--guard", "empty.jsonl", "empty", guard=tiny.write_jsonl(tmp_path / "empty.jsonl", []))
    prose = tmp_path / "prose.md"
    prose.write_text("No rows at all.")
    case.refused("--guard", "prose.md", guard=prose)


def test_limits_of_guards(case: Case) -> None:
    case.refused("--guard-limit needs a --guard", guard_limit="2%")
    case.refused("--guard-limit 'some'", "Write it as 2%", guard="python", guard_limit="some")
    case.refused("--guard-limit must be at least 0", guard="python", guard_limit="-1%")
    case.refused("--guard-limit must be at most 1,000", guard="python", guard_limit="2000%")
    case.refused("--guard-limit must be a finite number", guard="python", guard_limit="nan")
