"""Which text a model sees for an example, and which parts of it are trained.

An example becomes segments of text that are tokenised one by one and joined. So the tokens before a trained
segment are exactly those that generation starts from, and no token stands half inside the mask.

With a chat template, the trained part of a turn is found by rendering the conversation up to the turn (with
the generation header) and through the turn: it is what the second has and the first has not, up to and
including the end-of-turn token. Templates that write a turn differently once others follow it (some drop
earlier reasoning) have no such prefixes; there the turn's text is searched in the whole rendering.

Without a chat template, turns are joined by a line break unless white space already separates them, and the
end-of-sequence token follows every trained turn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunecast.data.examples import Example, Turn
from tunecast.errors import DataError

__all__ = ["Segment", "prompt_segments", "render", "uses_chat_template"]


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of text that is trained as a whole or not at all.

    Args:
        text: The text, which may hold special tokens.
        trained: Whether its tokens are labels.
        ends: Whether the end-of-sequence token follows it, as a label.
    """

    text: str
    trained: bool
    ends: bool = False


def uses_chat_template(example: Example, tokenizer: Any) -> bool:
    """Whether ``example`` is rendered by the tokenizer's chat template; running text never is."""
    return bool(tokenizer.chat_template) and example.turns[-1].role != "text"


def render(example: Example, tokenizer: Any) -> list[Segment]:
    """The segments of an example for a decoder-only model, in order.

    Raises:
        DataError: The tokenizer's chat template refuses the example, or alters its turns beyond recognition.
    """
    if not uses_chat_template(example, tokenizer):
        return _render_plain(example.turns)
    messages = [{"role": turn.role, "content": turn.content} for turn in example.turns]
    trained = [index for index, turn in enumerate(example.turns) if turn.trained]
    try:
        whole = _apply(tokenizer, messages)
    except _template_errors() as error:
        merged = _merge_system(example)
        if merged is None:
            raise DataError(
                f"Row {example.row}: the model's chat template refuses the conversation ({error}).",
                "Templates commonly expect user and assistant to take turns, beginning with the user.",
            ) from None
        return render(merged, tokenizer)
    spans = _spans_by_prefix(tokenizer, messages, trained, whole)
    if spans is None:
        spans = _spans_by_search(tokenizer, messages, trained, whole, example.row)
    return _cut(whole, spans, _special_tokens(tokenizer))


def prompt_segments(segments: Sequence[Segment]) -> list[Segment]:
    """The segments before the last trained one: what a generated answer continues."""
    last = max(index for index, segment in enumerate(segments) if segment.trained)
    return list(segments[:last])


def _render_plain(turns: Sequence[Turn]) -> list[Segment]:
    segments: list[Segment] = []
    for position, turn in enumerate(turns):
        text = turn.content
        following = turns[position + 1].content if position + 1 < len(turns) else ""
        if not turn.trained and text and not text[-1].isspace() and not following[:1].isspace():
            text += "\n"
        if text:
            segments.append(Segment(text, turn.trained, ends=turn.trained))
    return segments


def _apply(tokenizer: Any, messages: list[dict[str, str]], *, generation: bool = False) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation))


def _template_errors() -> tuple[type[Exception], ...]:
    import jinja2

    # Templates index and slice what they are given, so a refusal may also be a plain Python error.
    return (jinja2.TemplateError, TypeError, KeyError, IndexError, ValueError)


def _merge_system(example: Example) -> Example | None:
    """The example with its system message put before the first user message."""
    turns = example.turns
    if len(turns) < 3 or turns[0].role != "system" or turns[1].role != "user":
        return None
    first = Turn("user", f"{turns[0].content}\n\n{turns[1].content}", trained=False)
    return Example((first, *turns[2:]), example.row)


Span = tuple[int, int]


def _spans_by_prefix(
    tokenizer: Any, messages: list[dict[str, str]], trained: Sequence[int], whole: str
) -> list[Span] | None:
    """Character spans of the trained turns, or None where a rendered prefix is no prefix of the whole."""
    specials = _special_tokens(tokenizer)
    spans = []
    for index in trained:
        if index == 0:
            return None
        last = index == len(messages) - 1
        try:
            before = _apply(tokenizer, messages[:index], generation=True)
            through = whole if last else _apply(tokenizer, messages[: index + 1])
        except _template_errors():
            return None
        if not (through.startswith(before) and whole.startswith(through)):
            return None
        content = messages[index]["content"].strip()
        found = through.find(content, len(before))
        if found < 0:
            return None
        spans.append((len(before), _turn_end(through, found + len(content), specials)))
    return spans


def _spans_by_search(
    tokenizer: Any, messages: list[dict[str, str]], trained: Sequence[int], whole: str, row: int
) -> list[Span]:
    specials = _special_tokens(tokenizer)
    spans = []
    cursor = 0
    for index, message in enumerate(messages):
        content = message["content"].strip()
        found = whole.find(content, cursor)
        if found < 0:
            if index in trained:
                raise DataError(
                    f"Row {row}: the model's chat template alters message {index + 1}, so that the tokens to "
                    "train cannot be told.",
                    "Remove what the template rewrites (such as reasoning) from the assistant's messages.",
                )
            continue
        cursor = found + len(content)
        if index in trained:
            spans.append((found, _turn_end(whole, cursor, specials)))
    return spans


def _special_tokens(tokenizer: Any) -> re.Pattern[str]:
    """Matches any special token of the tokenizer, the longest first; never matches where there is none."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    tokens = sorted(added | set(tokenizer.all_special_tokens), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, tokens)) or r"(?!)")


def _turn_end(text: str, content_end: int, specials: re.Pattern[str]) -> int:
    """End of the end-of-turn token after the content; without one, the end of the content."""
    match = specials.search(text, content_end)
    if match is None:
        return content_end
    between = text[content_end : match.start()]
    # A special token further on than the next word opens another turn; it does not end this one.
    return match.end() if not between.strip() else content_end


def _cut(whole: str, spans: Sequence[Span], specials: re.Pattern[str]) -> list[Segment]:
    """The rendering as segments, without what follows the last trained turn, which is never predicted."""
    segments: list[Segment] = []
    cursor = 0
    for number, (start, end) in enumerate(spans, start=1):
        if start > cursor:
            segments.append(Segment(whole[cursor:start], trained=False))
        text = whole[start:end]
        closed = any(match.end() == len(text) for match in specials.finditer(text))
        # A template without an end-of-turn token would leave a model that never stops.
        segments.append(Segment(text, trained=True, ends=number == len(spans) and not closed))
        cursor = end
    return segments
