"""``tunecast data`` as it is typed: what goes to stdout, what to stderr, and how it fails."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import tiny
from tunecast.cli import main
from tunecast.progress import Silent
from tunecast.session.prepare import prepare_task
from tunecast.session.settings import SessionSettings


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Done]


@pytest.fixture
def tunecast(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs ``tunecast data`` in this process, since importing transformers again takes seconds."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["tunecast", "data", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        printed = capsys.readouterr()
        return Done(int(exit_.value.code or 0), printed.out, printed.err)

    return run


def test_check_prints_the_marked_example(tunecast: Command, toy_data: Path, tiny_llama: Path) -> None:
    done = tunecast("check", toy_data, "--model", tiny_llama)
    assert done.returncode == 0, done.stderr
    assert "colours: prompt-completion, 128 train, 16 validation, 16 test" in done.stdout
    assert "<|im_start|>assistant\n⟦The " in done.stdout
    assert ".<|im_end|>⟧" in done.stdout
    assert "warning" not in done.stderr


def test_json_owns_stdout(tunecast: Command, toy_data: Path, tiny_t5: Path) -> None:
    done = tunecast("check", toy_data, "--model", tiny_t5, "--max-length", 30, "--json")
    report = json.loads(done.stdout)
    assert report["max_length"] == 30
    assert report["segments"][1][1] is True
    described = json.loads(tunecast("describe", toy_data, "--model", tiny_t5, "--json").stdout)
    assert described["facts"]["token_unit"] == "tokens"
    assert described["fingerprint"] == report["fingerprint"]


def test_check_looks_at_what_tune_would_train_on(tunecast: Command, toy_data: Path, tiny_llama: Path) -> None:
    report = json.loads(tunecast("check", toy_data, "--model", tiny_llama, "--json").stdout)
    settings = SessionSettings(str(tiny_llama), str(toy_data), seed=3, threads=1, device="cpu")
    prepared = prepare_task(settings, Silent())
    assert (report["max_length"], report["context"]) == (prepared.training_task.max_length, 128)
    assert report["max_length"] < 128
    assert report["fingerprint"] != prepared.dataset.fingerprint
    same = json.loads(tunecast("check", toy_data, "--model", tiny_llama, "--seed", 3, "--json").stdout)
    assert same["fingerprint"] == prepared.dataset.fingerprint
    shown = tunecast("check", toy_data, "--model", tiny_llama).stdout.splitlines()
    assert f"{'longest sequence':26}64 tokens" in shown
    assert f"{'context of the model':26}128 tokens" in shown


def test_positions_that_an_encoder_decoder_tells_limit_neither_check_nor_tune(
    tunecast: Command, toy_data: Path, tiny_t5: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_t5, tmp_path / "t5"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 48}))
    report = json.loads(tunecast("check", toy_data, "--model", folder, "--json").stdout)
    settings = SessionSettings(str(folder), str(toy_data), threads=1, device="cpu")
    assert report["max_length"] == prepare_task(settings, Silent()).training_task.max_length == 64
    assert report["context"] is None


def test_describe_for_people(tunecast: Command, toy_data: Path, tiny_llama: Path) -> None:
    done = tunecast("describe", toy_data, "--model", tiny_llama)
    assert done.returncode == 0, done.stderr
    assert "label_entropy_nats" in done.stdout


def test_warnings_go_to_stderr_and_markup_is_text(
    tunecast: Command, tmp_path: Path, tiny_llama: Path
) -> None:
    rows = [{"q": f"[bold]{row['prompt']}", "a": row["completion"], "id": 1} for row in tiny.toy_rows(40)]
    path = tiny.write_jsonl(tmp_path / "d.jsonl", rows)
    done = tunecast("check", path, "--model", tiny_llama, "--prompt-column", "q", "--completion-column", "a")
    assert done.returncode == 0, done.stderr
    assert "[bold]Case" in done.stdout
    assert "warning: Only 'q', 'a' are used. Not used: 'id'." in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "missing.jsonl"], "missing.jsonl does not exist"),
        (["describe", "missing.jsonl"], "missing.jsonl does not exist"),
        (["check", "DATA", "--model", "./no-such-model"], "no-such-model"),
        (["check", "DATA", "--prompt-column", "nope"], "no column 'nope'"),
        (["check", "DATA", "--max-length", "5"], "fill the longest sequence of 5 tokens"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_2(
    tunecast: Command, toy_data: Path, tiny_llama: Path, arguments: list[str], message: str
) -> None:
    given = [str(toy_data) if argument == "DATA" else argument for argument in arguments]
    if "--model" not in given:
        given += ["--model", str(tiny_llama)]
    done = tunecast(*given)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_check_sees_what_a_pattern_and_a_verbaliser_make_of_the_data(
    tunecast: Command, tiny_llama: Path, tmp_path: Path
) -> None:
    rows = [{"prompt": f"text {n}", "completion": ("good", "bad")[n % 2]} for n in range(60)]
    data = tiny.write_jsonl(tmp_path / "moods.jsonl", rows)
    words = ("--pattern", "{prompt} Good?", "--verbaliser", "Yes=good,No=bad")
    report = json.loads(tunecast("check", data, "--model", tiny_llama, *words, "--json").stdout)
    assert set(report["labels"]) == {"Yes", "No"}
    assert " Good?" in report["segments"][0][0]
    settings = SessionSettings(
        str(tiny_llama), str(data), pattern="{prompt} Good?", verbaliser={"Yes": "good", "No": "bad"}
    )
    assert prepare_task(settings, Silent()).dataset.fingerprint == report["fingerprint"]
    for flags, message in (
        (("--pattern", "Good?"), "has {prompt} in it 0 times"),
        (("--verbaliser", "Yes=god,No=bad"), "Did you mean good?"),
    ):
        done = tunecast("check", data, "--model", tiny_llama, *flags)
        assert (done.returncode, done.stdout, message in done.stderr) == (2, "", True), done.stderr
