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
from functools import cached_property
from typing import Any

from tunecast.data.examples import Example, Turn
from tunecast.errors import DataError

Message = dict[str, str]
Span = tuple[int, int]


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


def prompt_segments(segments: Sequence[Segment]) -> list[Segment]:
    """The segments before the last trained one: what a generated answer continues."""
    last = max(index for index, segment in enumerate(segments) if segment.trained)
    return list(segments[:last])


class Renderer:
    """Turns examples into segments for a decoder-only model.

    Args:
        tokenizer: A transformers tokenizer; only its chat template and its special tokens are used.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        specials = sorted(added | set(tokenizer.all_special_tokens), key=len, reverse=True)
        # The longest first; without any, a pattern that never matches.
        self._specials = re.compile("|".join(map(re.escape, specials)) or r"(?!)")

    def render(self, example: Example) -> list[Segment]:
        """The segments of an example, in order; the last one is trained.

        Raises:
            DataError: The chat template refuses the example, or alters its turns beyond recognition.
        """
        if not uses_chat_template(example, self._tokenizer):
            return _render_plain(example.turns)
        messages = [{"role": turn.role, "content": turn.content} for turn in example.turns]
        trained = [index for index, turn in enumerate(example.turns) if turn.trained]
        try:
            whole = self._apply(messages)
        except _template_errors() as error:
            merged = _merge_system(example)
            if merged is None:
                raise DataError(
                    f"Row {example.row}: the model's chat template refuses the conversation ({error}).",
                    "Templates commonly expect user and assistant to take turns, beginning with the user.",
                ) from None
            return self.render(merged)
        spans = self._spans(messages, trained, whole, example.row)
        return self._cut(whole, spans)

    def _apply(self, messages: list[Message], *, generation: bool = False) -> str:
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)
        return str(text)

    def _spans(self, messages: list[Message], trained: Sequence[int], whole: str, row: int) -> list[Span]:
        """Character spans of the trained turns in the whole rendering.

        Raises:
            DataError: A trained turn is neither what a rendered prefix is followed by nor found by its text.
        """
        spans = []
        cursor = 0
        for index in range(len(messages)):
            span = self._span_by_prefix(messages, index, whole) if index in trained else None
            if span is None or span[0] < cursor:
                span = self._span_by_search(messages, index, whole, cursor)
            if span is not None:
                cursor = span[1]
            if index in trained:
                if span is None:
                    raise DataError(
                        f"Row {row}: the model's chat template alters message {index + 1}; which tokens "
                        "to train cannot be told.",
                        "Remove what the template rewrites, such as reasoning, from the messages.",
                    )
                spans.append(span)
        return spans

    def _span_by_search(self, messages: list[Message], index: int, whole: str, start: int) -> Span | None:
        """The span of one turn by its text, or None where that does not occur from ``start`` on."""
        content = messages[index]["content"].strip()
        found = whole.find(content, start)
        return None if found < 0 else (found, self._turn_end(whole, found + len(content)))

    def _span_by_prefix(self, messages: list[Message], index: int, whole: str) -> Span | None:
        """The span of one turn, or None where the conversation up to it is not rendered as in the whole."""
        if index == 0:
            return None
        last = index == len(messages) - 1
        try:
            before = self._apply(messages[:index], generation=True)
            through = whole if last else self._apply(messages[: index + 1])
        except _template_errors():
            return None
        content = messages[index]["content"].strip()
        found = through.find(content, len(before))
        if found < 0 or not (through.startswith(before) and whole.startswith(through)):
            return None
        gap = through[len(before) : found]
        start = len(before) if self._writes_header or not gap.strip() else found
        return start, self._turn_end(through, found + len(content))

    @cached_property
    def _writes_header(self) -> bool:
        """Whether the template opens the assistant's turn when asked to.

        Where it does not, what stands before an answer's text is that header: it belongs to the prompt, or a
        model would learn to write it into its answers.
        """
        question = [{"role": "user", "content": "a"}]
        try:
            return self._apply(question, generation=True) != self._apply(question)
        except _template_errors():
            return True

    def _turn_end(self, text: str, content_end: int) -> int:
        """End of the end-of-turn token that follows the content; without one, the end of the content."""
        match = self._specials.search(text, content_end)
        # A special token further on than the next word opens another turn; it does not end this one.
        if match is None or text[content_end : match.start()].strip():
            return content_end
        return match.end()

    def _cut(self, whole: str, spans: Sequence[Span]) -> list[Segment]:
        """The rendering as segments, without what follows the last trained turn, which is never predicted."""
        segments: list[Segment] = []
        cursor = 0
        for number, (start, end) in enumerate(spans, start=1):
            if start > cursor:
                segments.append(Segment(whole[cursor:start], trained=False))
            text = whole[start:end]
            closed = any(match.end() == len(text) for match in self._specials.finditer(text))
            # A template without an end-of-turn token would leave a model that never stops.
            segments.append(Segment(text, trained=True, ends=number == len(spans) and not closed))
            cursor = end
        return segments


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
