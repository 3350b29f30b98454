"""Raw facts: exact counts, and none of the text."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

import tiny
from tunecast.data import Dataset, read
from tunecast.data import facts as facts_module
from tunecast.data.examples import Example, Turn
from tunecast.data.facts import EDGES, collect, histogram, words


def dataset(pairs: list[tuple[str, str]]) -> Dataset:
    train = tuple(
        Example((Turn("user", prompt, False), Turn("assistant", completion, True)), row)
        for row, (prompt, completion) in enumerate(pairs, start=1)
    )
    return Dataset("d", "d", "prompt-completion", train, (), ())


def test_words() -> None:
    assert words("Hello, World! It's 42.") == ["hello", "world", "it", "s", "42"]
    assert words("漢字かな kana") == ["漢", "字", "か", "な", "kana"]


def test_edges_grow_evenly() -> None:
    assert list(EDGES) == sorted(set(EDGES))
    assert EDGES[:9] == (0, 1, 2, 3, 4, 6, 8, 12, 16)
    assert EDGES[-1] >= 1 << 20


def test_histograms_hold_every_value_in_its_bin() -> None:
    draw = random.Random(0)
    values = [int(2 ** draw.uniform(0, 22)) - 1 for _ in range(2000)]
    found = histogram(values)
    assert sum(found["counts"]) == len(values)
    for low, high, count in zip(EDGES, [*EDGES[1:], 1 << 40], found["counts"], strict=False):
        assert count == sum(low <= value < high for value in values)
    assert found["total"] == sum(values)
    assert found["largest"] == max(values)


def test_counts() -> None:
    pairs = [("Say red: the red one", "red")] * 3 + [
        ("Say blue: the old one", "green"),
        ("Say x: the y one", "red"),
    ]
    found = collect(dataset(pairs))
    assert found["examples"] == found["sampled_examples"] == 5
    assert found["completions"]["distinct"] == 2
    assert found["completions"]["seen_once"] == 1
    assert found["completions"]["top_counts"] == [4, 1]
    assert found["completions"]["entropy_nats"] == pytest.approx(0.5004, abs=1e-4)
    assert found["copied"] == {"mean_share": pytest.approx(0.6), "whole": 3}
    assert found["conversation"]["distinct_prompt_keys"] == 3
    assert found["conversation"]["turns"] == {"2": 5}
    assert found["completion"]["distinct_words"] == 2
    assert found["sizes"]["completion"]["characters"]["total"] == 17
    assert found["prompts"]["common_beginning_share"] == pytest.approx(4 * 5 / 93, abs=0.03)


def test_tokens_are_the_tokenizers(toy_data: Path, tiny_llama: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    data = read(str(toy_data))
    found = collect(data, tokenizer)
    lengths = [len(tokenizer(example.turns[0].content)["input_ids"]) for example in data.train]
    assert found["token_unit"] == "tokens"
    assert found["prompt"]["tokens"] == histogram(lengths)
    assert collect(data)["token_unit"] == "words"
    assert collect(data)["prompt"]["tokens"] == collect(data)["prompt"]["words"] == found["prompt"]["words"]


def strings(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set().union(*(strings(part) for part in value.values()))
    if isinstance(value, list):
        return set().union(*map(strings, value))
    return {value} if isinstance(value, str) else set()


def test_no_text_of_the_dataset_enters_the_facts() -> None:
    found = collect(dataset([("zebra quagga", "okapi")] * 10))
    text = json.dumps(found)
    assert not any(word in text for word in ("zebra", "quagga", "okapi"))
    assert strings(found) == {"words"}


def test_large_datasets_are_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(row["prompt"], row["completion"]) for row in tiny.toy_rows(1000)]
    whole = collect(dataset(rows))
    monkeypatch.setattr(
        facts_module, "SAMPLE_CHARACTERS", whole["sizes"]["prompt"]["characters"]["total"] // 3
    )
    part = collect(dataset(rows))
    assert 200 < part["sampled_examples"] < 340
    assert part["sizes"] == whole["sizes"]
    assert part["completions"] == whole["completions"]
    assert part["prompt"]["tokens"]["mean_log1p"] == pytest.approx(
        whole["prompt"]["tokens"]["mean_log1p"], rel=0.02
    )


@pytest.mark.parametrize("pairs", [[("", "a")], [("!", "?")], [("a", "b"), ("", "...")]])
def test_odd_datasets(pairs: list[tuple[str, str]]) -> None:
    json.dumps(collect(dataset(pairs)), allow_nan=False)
