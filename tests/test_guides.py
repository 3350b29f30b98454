"""Every command of the guides is run, on tiny stand-ins for their models, data and budgets."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

import tiny
from planted_runs import planted_runs
from sessions import IN_PROCESS, call_main
from test_readme import one_core  # noqa: F401 (a fixture)
from tunecast.store import Store

GUIDES = sorted((Path(__file__).parents[1] / "docs" / "guides").glob("*.md"))
STAND_INS = {"smollm2": "./smollm2-tiny", "stdlib": "train.jsonl"}


def commands(guide: Path) -> list[str]:
    return re.findall(r"^\$ (tunecast .*)$", guide.read_text(encoding="utf-8"), re.MULTILINE)


def table(file: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])


@pytest.fixture
def stage(tmp_path: Path, tiny_llama: Path, toy_data: Path) -> Path:
    """A folder with the files that the guides name."""
    (tmp_path / "smollm2-tiny").symlink_to(tiny_llama)
    (tmp_path / "train.jsonl").symlink_to(toy_data)
    rows = tiny.toy_rows(120)
    tiny.write_jsonl(tmp_path / "orders.jsonl", rows)
    tiny.write_jsonl(tmp_path / "queries.jsonl", rows)
    roles = ("user", "assistant")
    chats = [
        {
            "messages": [
                {"role": role, "content": text} for role, text in zip(roles, row.values(), strict=True)
            ]
        }
        for row in rows
    ]
    tiny.write_jsonl(tmp_path / "chats.jsonl", chats)
    table(tmp_path / "sentences.csv", ("de", "en"), [tuple(row.values()) for row in rows])
    labels = [(row["prompt"], row["completion"].split()[-1]) for row in rows]
    table(tmp_path / "tickets.csv", ("text", "label"), labels)
    products = [
        (number, f"{tiny.COLOURS[number % 8]} {tiny.THINGS[number % 10]} {number}") for number in range(60)
    ]
    for side in ("left", "right"):
        table(tmp_path / f"{side}.csv", ("id", "name"), [(f"{side[0]}{n}", name) for n, name in products])
    pairs = [(f"l{n}", f"r{n}", 1) for n in range(60)] + [(f"l{n}", f"r{(n + 7) % 60}", 0) for n in range(60)]
    table(tmp_path / "labels.csv", ("left_id", "right_id", "label"), pairs)
    with Store.open(tmp_path / "team.sqlite") as store:
        store.put_all(planted_runs(tasks=4, runs=8))
    return tmp_path


def words_of(command: str) -> list[str]:
    """The words of a command behind its name, with its stand-ins."""
    words = [STAND_INS.get(word, word) for word in shlex.split(command)[1:]]
    if "--budget" in words:
        words[words.index("--budget") + 1] = "2-trials"
    if "--max-length" in words:
        words[words.index("--max-length") + 1] = "64"
    more: dict[str, Sequence[str]] = dict.fromkeys(("train", "evaluate"), IN_PROCESS)
    more["tune"] = (*IN_PROCESS, "--no-forecast", "--final-training", "none")
    return [*words, *more.get(words[0], ())]


@pytest.mark.slow
@pytest.mark.usefixtures("one_core")
@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_every_command_of_a_guide_runs(guide: Path, stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stage)
    monkeypatch.setenv("TUNECAST_CACHE", str(stage / "cache"))
    found = commands(guide)
    assert found or guide.stem == "install"
    for command in found:
        code, _, stderr = call_main(*words_of(command))
        assert code == 0, f"{command}\n{stderr}"
        assert "Traceback" not in stderr, command


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_rows_that_a_guide_shows_are_well_formed(guide: Path) -> None:
    text = guide.read_text(encoding="utf-8")
    for rows in re.findall(r'```json title="[^"]+"\n(.*?)\n```', text, re.DOTALL):
        assert all(isinstance(json.loads(row), dict) for row in rows.splitlines())
    for rows in re.findall(r'```csv title="[^"]+"\n(.*?)\n```', text, re.DOTALL):
        assert len({len(row) for row in csv.reader(rows.splitlines())}) == 1
