"""Finished models read new prompts as they read those of their training."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

import sessions
import tiny
from tunecast import models
from tunecast.data import Example, Turn, encode_prompt
from tunecast.session.provenance import Origin
from tunecast.training.compute import Compute
from tunecast.training.label_likelihood import choose_labels

RULE = "Judge the colour."
FLAGS = ("--budget", "1-trials", "--strategy", "fixed-baseline", "--no-forecast", "--epochs", "4")


def moods(answer: str) -> list[dict[str, Any]]:
    """Conversations of one system message; the last word of the user's tells the label."""
    words = (("red", "bad"), ("green", "good"), ("blue", "bad"))
    return [
        {
            "messages": [
                {"role": "system", "content": RULE},
                {"role": "user", "content": f"{number} is {words[number % 3][0]}"},
                {"role": "assistant", "content": answer.format(words[number % 3][1])},
            ]
        }
        for number in range(90)
    ]


@pytest.fixture(scope="module", params=[("llama", "{}"), ("gpt2", " {}")], ids=["llama", "gpt2"])
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> sessions.Finished:
    """A classifier, with and without a chat template; without one, white space begins its labels."""
    family, answer = request.param
    folder = tmp_path_factory.mktemp(f"moods-{family}")
    data = tiny.write_jsonl(folder / "moods.jsonl", moods(answer))
    model = request.getfixturevalue(f"tiny_{family}")
    flags = (*FLAGS, "--fix", "learning_rate=0.02", "--pattern", "{prompt}, so")
    return sessions.finish(folder / "out", model, data, *flags)


@pytest.fixture(scope="module")
def explained(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> sessions.Finished:
    """A matcher of colours that explains its answers."""
    folder = tmp_path_factory.mktemp("explained")
    answers = {"bad": "No.", "good": "Yes."}
    rows = [
        {"prompt": asked["content"], "completion": f"{answers[label['content']]}\nnumber={number}"}
        for number, (_, asked, label) in enumerate(row["messages"] for row in moods("{}"))
    ]
    data = tiny.write_jsonl(folder / "explained.jsonl", rows)
    return sessions.finish(folder / "out", tiny_llama, data, *FLAGS, "--fix", "learning_rate=0.02")


def evaluated(finished: sessions.Finished, folder: Path, *flags: str) -> list[dict[str, Any]]:
    """Return what an evaluation of all rows answers, in their order."""
    file = folder / "answers.jsonl"
    words = ("--model", str(finished.folder), "--split", "all", "--answers", str(file), *flags)
    code, _, err = sessions.call_main("evaluate", *words, *sessions.IN_PROCESS)
    assert code == 0, err
    return sorted(map(json.loads, file.read_text().splitlines()), key=lambda one: int(one["row"]))


def asked(command: str, finished: sessions.Finished, *flags: str) -> list[dict[str, Any]]:
    """Return what a command answers to the user's messages alone."""
    prompts = [row["messages"][1]["content"] for row in moods("{}")]
    words = [word for prompt in prompts for word in ("--prompt", prompt)]
    code, out, err = sessions.call_main(
        command, "--model", str(finished.folder), *words, *flags, "--device", "cpu", "--json"
    )
    assert code == 0, err
    answers: list[dict[str, Any]] = json.loads(out)
    assert [one["prompt"] for one in answers] == prompts
    return answers


def test_labels_are_chosen_after_the_messages_of_the_training(
    finished: sessions.Finished, tmp_path: Path
) -> None:
    origin = Origin.read(finished.folder / "best")
    assert origin is not None
    assert origin.opening == (Turn("system", RULE, trained=False),)
    expected, found = evaluated(finished, tmp_path), asked("classify", finished)
    assert [one["label"] for one in found] == [one["answer"] for one in expected]
    assert [one["probability"] for one in found] == pytest.approx(
        [one["confidence"] for one in expected], abs=1e-3
    )


def test_answers_are_written_after_the_messages_of_the_training(
    finished: sessions.Finished, tmp_path: Path
) -> None:
    expected = evaluated(finished, tmp_path, "--objective", "exact_match", "--kind", "short-answers")
    found = asked("generate", finished, "--max-new-tokens", "8")
    assert [one["text"] for one in found] == [one["answer"] for one in expected]


def test_the_cards_code_asks_as_the_training_did(
    finished: sessions.Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = finished.folder / "best"
    card = (best / "README.md").read_text(encoding="utf-8")
    assert "The code puts the same messages before every prompt" in card
    assert RULE in (finished.folder / "report.html").read_text(encoding="utf-8")
    code = card.split("```python\n")[1].split("```")[0].replace("folder = '.'", f"folder = {str(best)!r}")
    model = finished.flags[finished.flags.index("--model") + 1]
    code = re.sub(r"^(base = \w+\.from_pretrained\()[^)]*", rf"\1{model!r}", code, flags=re.M)
    expected = asked("classify", finished)[:12]
    for one in expected:
        exec(code.replace('"..."', repr(one["prompt"])), {})
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        one["label"] for one in expected
    ]


def test_labels_of_explained_answers_end_where_explanations_begin(
    explained: sessions.Finished, tiny_llama: Path
) -> None:
    best = explained.folder / "best"
    origin = Origin.read(best)
    assert origin is not None
    assert (origin.labels, origin.label_tokens, origin.explained) == (("No.", "Yes."), (), True)
    found = asked("classify", explained)
    resolved = models.resolve(str(tiny_llama))
    tokenizer = models.load_tokenizer(resolved)
    model = PeftModel.from_pretrained(models.load_model(resolved, dtype=torch.float32, device="cpu"), best)
    turns = ((Turn("user", one["prompt"], False), Turn("assistant", "-", True)) for one in found)
    prompts = [
        encode_prompt(Example(pair, 1), tokenizer, max_length=99, architecture="decoder-only")
        for pair in turns
    ]
    labels = [tokenizer.encode(f"{label}\n", add_special_tokens=False) for label in origin.labels]
    compute = Compute("cpu", "float32", "decoder-only", tokenizer.pad_token_id)
    _, chosen, probability = choose_labels(model, prompts, labels, compute)
    assert [one["label"] for one in found] == [origin.labels[place] for place in chosen]
    assert [one["probability"] for one in found] == pytest.approx(list(probability), abs=1e-3)
