"""Labels as tokens: those that examples with the label are trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import normalizers

from tunecast import data, models
from tunecast.data import Example, Turn, encode_labels, with_answer
from tunecast.data.encode import IGNORED
from tunecast.errors import DataError

ANSWERS = (" green", "red", " green", "not red\n")


def examples() -> list[Example]:
    return [
        Example((Turn("user", f"Which one is number {row}?", False), Turn("assistant", text, True)), row)
        for row, text in enumerate(ANSWERS, start=1)
    ]


@pytest.mark.parametrize("model", ["llama", "gpt2", "t5"])
def test_a_prompt_and_its_label_are_the_trained_example(model: str, request: pytest.FixtureRequest) -> None:
    resolved = models.resolve(str(request.getfixturevalue(f"tiny_{model}")))
    architecture, tokenizer = models.describe(resolved).architecture, models.load_tokenizer(resolved)
    labels = encode_labels(["green", "red", "not red"], examples(), tokenizer, architecture=architecture)
    ids = {label.text: label.ids for label in labels}
    assert list(ids) == ["green", "red", "not red"]
    assert all(one[-1] == tokenizer.eos_token_id for one in ids.values())
    encoded = data.encode(examples(), tokenizer, max_length=128, architecture=architecture)
    for example, item in zip(examples(), encoded, strict=True):
        prompt = data.encode_prompt(example, tokenizer, max_length=128, architecture=architecture)
        label = ids[data.answer_of(example)]
        if architecture == "encoder-decoder":
            assert (item.input_ids, item.labels) == (prompt, label)
        else:
            assert item.input_ids == (*prompt, *label)


@pytest.mark.parametrize("model", ["llama", "gpt2", "t5"])
def test_an_explained_label_ends_where_its_explanation_begins(
    model: str, request: pytest.FixtureRequest
) -> None:
    resolved = models.resolve(str(request.getfixturevalue(f"tiny_{model}")))
    architecture, tokenizer = models.describe(resolved).architecture, models.load_tokenizer(resolved)
    tokenizer.add_tokens([".\n"])  # as in the vocabularies of Llama 3 and Qwen
    question, answer = Turn("user", "Do they match?", False), Turn("assistant", "", True)
    rows = [Example((question, replace(answer, content=text)), 1) for text in ("Yes.", "No", "No match.")]
    labels = encode_labels(
        ["Yes.", "No", "No match."], rows, tokenizer, architecture=architecture, explained=True
    )
    for label, ending in zip(labels, (".\n", "\n", ".\n"), strict=True):
        assert tokenizer.decode(label.ids) == f"{label.text}\n"
        assert tokenizer.decode(label.ids[-1:]) == ending
        explained = with_answer(rows[0], f"{label.text}\nattribute=name")
        (whole,) = data.encode([explained], tokenizer, max_length=128, architecture=architecture)
        trained = tuple(token for token in whole.labels if token != IGNORED)
        assert trained[: len(label.ids)] == label.ids


def test_labels_that_are_the_same_tokens_are_refused(tiny_llama: Path) -> None:
    tokenizer = models.load_tokenizer(models.resolve(str(tiny_llama)))
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    rows = [*examples(), Example((examples()[0].turns[0], Turn("assistant", "Red", True)), 5)]
    with pytest.raises(DataError, match=r"labels 'red' and 'Red' are the same .* tokens"):
        encode_labels(["red", "Red"], rows, tokenizer, architecture="decoder-only")
