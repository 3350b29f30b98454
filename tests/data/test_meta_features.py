"""Meta-features: finite on anything, and each says what its name says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from transformers import AutoTokenizer

import tiny
from tunecast.data import Dataset, Example, Turn, describe, read
from tunecast.data.meta_features import DEPENDENCE, META_FEATURES_VERSION, derive


def dataset(pairs: list[tuple[str, str]]) -> Dataset:
    train = tuple(
        Example((Turn("user", prompt, False), Turn("assistant", completion, True)), row)
        for row, (prompt, completion) in enumerate(pairs, start=1)
    )
    return Dataset("d", "d", "prompt-completion", train, (), ())


def features(pairs: list[tuple[str, str]]) -> dict[str, float]:
    return dict(describe(dataset(pairs)).meta_features)


TOY = [(row["prompt"], row["completion"]) for row in tiny.toy_rows(100)]
LABELS = [(prompt, completion.split()[-1]) for prompt, completion in TOY]
ODD = {
    "one row": [("", "a")],
    "no words": [("!", "?")] * 3,
    "emoji": [("😀", "🚀")] * 3,
    "null characters": [("\0", "\0")],
    "white space": [(" ", "a b")],
}


@pytest.mark.parametrize("name", ODD)
def test_finite_on_anything(name: str) -> None:
    found = features(ODD[name])
    assert all(math.isfinite(value) for value in found.values())
    assert set(found) == set(features(TOY)) - {DEPENDENCE}


def test_shares_lie_between_zero_and_one() -> None:
    for pairs in (TOY, LABELS, *ODD.values()):
        for name, value in features(pairs).items():
            if name.endswith("_share") or name == "label_entropy_ratio":
                assert 0 <= value <= 1 + 1e-12, name


def test_labels_are_told_from_free_text() -> None:
    labels, free = features(LABELS), features([(p, f"{c} {n}") for n, (p, c) in enumerate(TOY)])
    assert labels["repeated_completions_share"] > 0.9
    assert free["repeated_completions_share"] == 0
    assert labels["label_entropy_ratio"] < 0.6 < free["label_entropy_ratio"]
    assert labels["log_distinct_completions"] == pytest.approx(math.log1p(8))
    assert labels["copied_words_share"] == 1
    assert labels["completion_log_tokens_mean"] < free["completion_log_tokens_mean"]


def test_scripts_and_kinds() -> None:
    russian = features([("Скажи привет", "привет 12")] * 5)
    assert russian["prompt_cyrillic_share"] == 1
    assert russian["prompt_latin_share"] == 0
    assert russian["completion_digit_share"] == pytest.approx(2 / 9)
    code = features([("f", "x = {y[0]: (1)}")] * 5)
    assert code["completion_code_share"] > 0.4


def test_a_template_around_prompts_is_seen() -> None:
    bare = features(TOY)
    framed = features([(f"Answer the question below.\n\n{p}\nAnswer:", c) for p, c in TOY])
    assert framed["prompt_common_beginning_share"] > bare["prompt_common_beginning_share"] + 0.15
    assert framed["prompt_common_end_share"] > bare["prompt_common_end_share"]


def test_repetition_compresses() -> None:
    varied = features([(f"{n * 7919 % 10007} {n * 104729 % 10007}", f"{n}") for n in range(300)])
    same = features([("the same again and again", "yes")] * 300)
    assert same["prompt_compression_ratio"] < varied["prompt_compression_ratio"] / 5
    assert same["prompt_type_token_ratio"] < varied["prompt_type_token_ratio"]
    assert same["repeated_prompts_share"] > 0.99


def test_turns() -> None:
    chat = tuple(
        Turn(role, "x", role == "assistant") for role in ("system", "user", "assistant", "user", "assistant")
    )
    data = Dataset("d", "d", "messages", (Example(chat, 1), *dataset(TOY).train[:1]), (), ())
    found = describe(data).meta_features
    assert found["turns_mean"] == 3.5
    assert found["multi_turn_share"] == found["system_turn_share"] == 0.5


def test_they_can_be_derived_anew_from_stored_facts(toy_data: Path, tiny_llama: Path) -> None:
    described = describe(read(str(toy_data)), AutoTokenizer.from_pretrained(tiny_llama))
    assert described.meta_features_version == META_FEATURES_VERSION
    assert derive(json.loads(json.dumps(described.facts))) == described.meta_features
