"""``tunecast synth``: pairs on disk, counts on the screen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from documents import samples
from tunecast.cli import app
from tunecast.errors import ConfigurationError


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["synth", *arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_counts_and_the_next_command(tmp_path: Path, tiny_llama: Path) -> None:
    (tmp_path / "a.html").write_text(samples.PAGE)
    output = str(tmp_path / "pairs.jsonl")
    said = run(str(tmp_path / "a.html"), "--output", output).splitlines()
    assert said[0].startswith("3 pairs kept of 3: ")
    assert said[1] == "made by: definition 2, question 1"
    assert said[-1] == f"Train on them: tunecast tune --model smollm2 --data {output}"
    said = run(
        str(tmp_path / "a.html"), "--output", output, "--resume", "--model", str(tiny_llama)
    ).splitlines()
    assert said[-1] == f"Train on them: tunecast tune --model {tiny_llama} --data {output}"


def test_json(tmp_path: Path) -> None:
    samples.docx(tmp_path / "a.docx")
    output = str(tmp_path / "pairs.jsonl")
    report = json.loads(run(str(tmp_path), "--output", output, "--json"))
    assert (report["documents"], report["output"], report["kept"]) == (["a.docx"], output, {"train": 1})


def test_the_page_for_marks_is_named(tmp_path: Path) -> None:
    samples.docx(tmp_path / "a.docx")
    said = run(str(tmp_path), "--output", str(tmp_path / "pairs.jsonl"), "--audit", "5").splitlines()
    assert said[-1] == f"Mark a sample in a browser: {tmp_path / 'pairs.audit.html'}"
    assert "1 pairs of pairs" in (tmp_path / "pairs.audit.html").read_text()


@pytest.mark.parametrize("flag", ["--prompts", "--examples", "--labels", "--budget"])
def test_what_needs_a_writer(flag: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"{flag} needs a writer"):
        run(str(tmp_path), "--output", str(tmp_path / "pairs.jsonl"), flag, "30m")
    assert not list(tmp_path.iterdir())
