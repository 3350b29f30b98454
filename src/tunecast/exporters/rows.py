"""The rows of exported data: token ids with labels, or messages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tunecast.data import EncodedExample, Example
from tunecast.data.encode import IGNORED


def tokenised(examples: Iterable[EncodedExample], tokenizer: Any) -> str:
    """Return a JSON line for each example: its text and trained parts, for readers; its ids, for training."""
    return _lines(
        {
            "text": tokenizer.decode(example.input_ids),
            "trained": [tokenizer.decode(span) for span in _trained_spans(example)],
            "input_ids": list(example.input_ids),
            "labels": list(example.labels),
        }
        for example in examples
    )


def masked(examples: Iterable[EncodedExample]) -> str:
    """Return a JSON line for each example with only what Axolotl reads: ids, labels and attention mask."""
    return _lines(
        {
            "input_ids": list(example.input_ids),
            "attention_mask": [1] * len(example.input_ids),
            "labels": list(example.labels),
        }
        for example in examples
    )


def messages(examples: Iterable[Example], *, has_chat_template: bool) -> str:
    """Return a JSON line for each example with its messages.

    Without a chat template, a line break follows every message that is not trained, as Tunecast joins them.
    """
    return _lines(_messages(example, has_chat_template) for example in examples)


def _messages(example: Example, has_chat_template: bool) -> dict[str, Any]:
    turns = example.turns
    if turns[-1].role == "text":
        return {"text": turns[-1].content}
    following = [turn.content for turn in turns[1:]] + [""]
    written = []
    for turn, after in zip(turns, following, strict=True):
        content = turn.content
        joined = has_chat_template or turn.trained or not content
        if not joined and not content[-1].isspace() and not after[:1].isspace():
            content += "\n"
        written.append({"role": turn.role, "content": content})
    return {"messages": written}


def _trained_spans(example: EncodedExample) -> list[list[int]]:
    spans: list[list[int]] = []
    inside = False
    for label in example.labels:
        if label != IGNORED:
            spans = spans if inside else [*spans, []]
            spans[-1].append(label)
        inside = label != IGNORED
    return spans


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
