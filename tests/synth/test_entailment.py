"""A classifier that was trained for inference decides what a passage entails."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

import tiny
from tunecast.documents import Passage
from tunecast.errors import ModelError
from tunecast.synth import SynthSettings, synthesize
from tunecast.synth.checks import Checker
from tunecast.synth.entailment import Entailment
from tunecast.synth.pairs import Pair

LABELS = ("contradiction", "ENTAILMENT", "neutral")


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT that learned a toy rule: a passage about an apple entails what is said to be red."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("judge")
    tokenizer = tiny.build_tokenizer(folder, chat=False)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=96, pad_token_id=tokenizer.pad_token_id,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, id2label=dict(enumerate(LABELS)),
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    draw = random.Random(0)
    for _ in range(120):
        rows = [(draw.choice(("apple", "house")), draw.choice(("red", "green"))) for _ in range(16)]
        passages = [f"The {thing} grew." for thing, _ in rows]
        said = [f"Its colour? It is {colour}." for _, colour in rows]
        encoded = tokenizer(passages, said, return_tensors="pt")
        labels = torch.tensor([1 if row == ("apple", "red") else 0 for row in rows])
        model(encoded.input_ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def pair(thing: str, colour: str, kind: str = "qa") -> Pair:
    passage = Passage("d", (), f"The {thing} grew.", 0)
    return Pair("Its colour?", f"It is {colour}.", kind, "w", passage)


def test_passage_and_pair_decide(judge: Path) -> None:
    holds = Entailment(str(judge), "cpu").holds
    asked = [("apple", "red"), ("apple", "green"), ("house", "red"), ("house", "green")]
    assert [holds(pair(*one)) for one in asked] == [True, False, False, False]


def test_a_long_passage_is_cut(judge: Path) -> None:
    long = pair("apple", "red")
    long = replace(long, passage=replace(long.passage, text="The apple grew. " * 200))
    assert isinstance(Entailment(str(judge), "cpu").holds(long), bool)


def test_only_what_states_something_is_judged() -> None:
    asked = []

    def entails(one: Pair) -> bool:
        asked.append(one.kind)
        return False

    text = "The rotor turns fast, and it drives the pump that cools the plant."
    passage = Passage("d", (), text, 0)
    for kind, completion in (("qa", "It turns fast."), ("summary", "It turns."), ("classification", "plain")):
        checker = Checker(entails=entails)
        reason = checker.reason(Pair("How does the rotor turn then?", completion, kind, "w", passage))
        assert reason == ("" if kind == "classification" else "not entailed")
    assert asked == ["qa", "summary"]


def test_what_is_not_entailed_is_dropped_and_counted(judge: Path, tmp_path: Path) -> None:
    stated = "# Garden\n\n## Why is the {} red?\n\nThe {} is red because of the sun in the garden.\n"
    for thing in tiny.THINGS:
        (tmp_path / f"{thing}.md").write_text(stated.format(thing, thing), encoding="utf-8")
    settings = SynthSettings((str(tmp_path),), str(tmp_path / "pairs.jsonl"), device="cpu")
    before = synthesize(settings)
    report = synthesize(replace(settings, entailment=str(judge), resume=True))
    assert report.made == before.made == len(tiny.THINGS)
    assert 0 < report.dropped["not entailed"] < report.made
    assert sum(report.kept.values()) + report.dropped["not entailed"] == report.made


def test_a_model_that_judges_nothing_is_refused(judge: Path, tiny_llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"--entailment .* is no classifier \(LlamaForCausalLM\)"):
        Entailment(str(tiny_llama), "cpu")
    with pytest.raises(ModelError, match=r"--entailment: the folder .* has no config\.json"):
        Entailment(str(tmp_path), "cpu")
    config = (judge / "config.json").read_text().replace("ENTAILMENT", "yes")
    for file in judge.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ModelError, match="none of its labels is entailment: contradiction, yes, neutral"):
        Entailment(str(tmp_path), "cpu")
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ModelError, match="--entailment: cannot load"):
        Entailment(str(tmp_path), "cpu")
