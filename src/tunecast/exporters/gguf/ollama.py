"""Writes a Modelfile, by which Ollama serves a GGUF file with the model's template and stop token.

Ollama's templates are Go's, so the pieces of text that a chat template puts around messages are found from
its renderings, and put together again. A template that is more than that is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunecast.data import Turn
from tunecast.data.templates import separated, template_errors
from tunecast.data.tokens import special_affixes
from tunecast.errors import ModelError

MODELFILE = "Modelfile"
SYSTEM, USER, ANSWER, AGAIN = "systemcontent", "usercontent", "answercontent", "secondcontent"
Message = dict[str, str]


class _Unlike(ValueError):
    """A chat template that is more than text around messages."""


@dataclass(frozen=True)
class ChatPieces:
    """The text that a chat template puts around messages.

    Args:
        begin: Text before everything.
        around: Text before and after the messages of each role.
        generation: Text before a new answer.
        joined: Text between a system message and the user's first one, if a template writes both as one
            message; empty if it writes them apart.
        default: System message of conversations without one.
    """

    begin: str
    around: Mapping[str, tuple[str, str]]
    generation: str
    joined: str = ""
    default: str = ""

    def render(self, messages: Sequence[Message]) -> str:
        """Return a conversation with the header of the next answer."""
        system, rest = messages[:1], list(messages[1:])
        if not system or system[0]["role"] != "system":
            system, rest = [], list(messages)
        before = system[0]["content"] if system else self.default
        text = self.begin
        if before and self.joined:
            rest[0] = {"role": "user", "content": before + self.joined + rest[0]["content"]}
        elif before:
            rest.insert(0, {"role": "system", "content": before})
        for one in rest:
            start, end = self.around[one["role"]]
            text += start + one["content"] + end
        return text + self.generation


def modelfile(gguf: str, tokenizer: Any, stop: str, *, is_text: bool, opening: Sequence[Turn] = ()) -> str:
    """Return the Modelfile of a GGUF file.

    Args:
        gguf: The file's name, in the same folder.
        tokenizer: The model's tokenizer.
        stop: The token that ends an answer.
        is_text: Whether the model continues running text.
        opening: Messages that were before every prompt in training.

    Raises:
        ModelError: The chat template cannot be written as one of Ollama's, or a message not in a Modelfile.
    """
    messages: list[str] = []
    if tokenizer.chat_template and not is_text:
        pieces = _pieces(tokenizer)
        template, messages = _go_template(pieces), _message_lines(opening, pieces.default)
    elif is_text:
        template = "{{ .Prompt }}"
    else:
        before = "".join(separated(turn.content) for turn in opening)
        template = _literal(before) + "{{ .Prompt }}" + _literal("\n")
    lines = [
        f"# ollama create NAME --file {MODELFILE}",
        f"FROM ./{gguf}",
        f'TEMPLATE """{template}"""',
        *messages,
        f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}",
    ]
    return "\n".join(lines) + "\n"


def _message_lines(opening: Sequence[Turn], default: str) -> list[str]:
    """Return the lines for the system message, and for the other messages before every prompt."""
    turns = list(opening)
    if not (turns and turns[0].role == "system") and default:
        turns.insert(0, Turn("system", default, trained=False))
    if any('"""' in turn.content for turn in turns):
        raise ModelError(
            "--to ollama: a message before every prompt holds three quotation marks, which would end the "
            "text in a Modelfile.",
            "Use --to gguf, and send the message with every prompt.",
        )
    is_system = bool(turns) and turns[0].role == "system"  # Ollama keeps one system message
    words = ["SYSTEM" if is_system and turn is turns[0] else f"MESSAGE {turn.role}" for turn in turns]
    return [f'{word} """{turn.content}"""' for word, turn in zip(words, turns, strict=True)]


def _pieces(tokenizer: Any) -> ChatPieces:
    """Find the pieces of a tokenizer's chat template, and check that they give what it renders.

    Raises:
        ModelError: They do not.
    """

    def rendered(messages: Sequence[Message], *, generation: bool = True) -> str:
        try:
            return str(
                tokenizer.apply_chat_template(
                    list(messages), tokenize=False, add_generation_prompt=generation
                )
            )
        except template_errors():
            if messages[0]["role"] != "system":
                raise
            system, user, *rest = messages  # such a template is trained with both in one message
            joined = _message("user", f"{system['content']}\n\n{user['content']}")
            return rendered([joined, *rest], generation=generation)

    try:
        pieces = _found(rendered)
        pairs = [(messages, rendered(messages)) for messages in _conversations(pieces)]
    except template_errors():  # ValueError among them, which _Unlike is
        pairs = []
    if not pairs or any(pieces.render(messages) != text for messages, text in pairs):
        raise ModelError(
            "--to ollama: the model's chat template cannot be written as one of Ollama's.",
            "Use --to gguf, and serve the file with llama.cpp's server, which reads the template itself.",
        )
    start, _ = special_affixes(tokenizer)
    if start and tokenizer.decode(start) == pieces.begin:  # llama.cpp adds it itself
        return ChatPieces("", pieces.around, pieces.generation, pieces.joined, pieces.default)
    return pieces


def _found(rendered: Any) -> ChatPieces:
    user, answer, again = (_message("user", USER), _message("assistant", ANSWER), _message("user", AGAIN))
    first, between, after, _ = _cut(rendered([user, answer, again]), USER, ANSWER, AGAIN)
    _, user_end = _cut(rendered([user], generation=False), USER)
    answer_end = _cut(rendered([user, answer], generation=False), USER, ANSWER)[-1]
    user_start = _without(after, prefix=answer_end)
    generation = _without(_cut(rendered([user]), USER)[-1], prefix=user_end)
    around = {"user": (user_start, user_end), "assistant": (_without(between, prefix=user_end), answer_end)}
    begin = _without(first, suffix=user_start)
    before, gap, _ = _cut(rendered([_message("system", SYSTEM), user]), SYSTEM, USER)
    if not gap.endswith(user_start):
        return ChatPieces(_without(before, suffix=user_start), around, generation, joined=gap)
    system_end = _without(gap, suffix=user_start)
    if before.startswith(begin):
        around["system"] = (_without(before, prefix=begin), system_end)
        return ChatPieces(begin, around, generation)
    around["system"] = (before, system_end)
    default = _without(_without(begin, prefix=before), suffix=system_end)
    return ChatPieces("", around, generation, default=default)


def _conversations(pieces: ChatPieces) -> list[list[Message]]:
    user, answer, again = (_message("user", USER), _message("assistant", ANSWER), _message("user", AGAIN))
    found = [[user], [user, answer, again]]
    if pieces.joined or "system" in pieces.around:
        found += [[_message("system", SYSTEM), *one] for one in tuple(found)]
    return found


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _cut(text: str, *marks: str) -> list[str]:
    """Return the text before, between and after marks."""
    parts = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found:
            raise _Unlike(mark)
        parts.append(before)
    return [*parts, text]


def _without(text: str, *, prefix: str = "", suffix: str = "") -> str:
    if not (text.startswith(prefix) and text.endswith(suffix)):
        raise _Unlike(text)
    return text.removeprefix(prefix).removesuffix(suffix)


def _literal(text: str) -> str:
    """Return a text as a constant of a Go template; Go reads JSON's escapes."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""


def _go_template(pieces: ChatPieces) -> str:
    """Return a template over ``.Messages``; an answer at the end is one that is to be continued."""
    last = "(eq (len (slice $.Messages $i)) 1)"
    user_start, user_end = map(_literal, pieces.around["user"])
    answer_start, answer_end = map(_literal, pieces.around["assistant"])
    joined = ""
    system = ""
    if pieces.joined:
        joined = (
            "{{ if and $.System (not $told) }}{{ $told = true }}{{ $.System }}"
            + _literal(pieces.joined)
            + "{{ end }}"
        )
    elif "system" in pieces.around:
        start, end = map(_literal, pieces.around["system"])
        system = '{{ if eq .Role "system" }}' + start + "{{ .Content }}" + end + "{{ end }}"
    return (
        ("{{ $told := false }}" if joined else "")
        + _literal(pieces.begin)
        + "{{ range $i, $_ := .Messages }}"
        + system
        + '{{ if eq .Role "user" }}'
        + f"{user_start}{joined}{{{{ .Content }}}}{user_end}{{{{ end }}}}"
        + '{{ if eq .Role "assistant" }}'
        + f"{answer_start}{{{{ .Content }}}}{{{{ if not {last} }}}}{answer_end}{{{{ end }}}}{{{{ end }}}}"
        + f'{{{{ if and (ne .Role "assistant") {last} }}}}{_literal(pieces.generation)}{{{{ end }}}}'
        + "{{ end }}"
    )
