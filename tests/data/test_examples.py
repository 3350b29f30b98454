"""The canonical form: what counts as the same prompt, and what the fingerprint depends on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tunecast.data.examples import (
    Dataset,
    Example,
    Turn,
    opening,
    prompt_key,
    prompt_text,
    reference,
    trained_text,
)

PAIR = Example((Turn("user", "What  is\nit?", False), Turn("assistant", "A cat.", True)), 1)
CHAT = Example(
    (
        Turn("system", "Be brief.", False),
        Turn("user", "Hi", False),
        Turn("assistant", "Hello", True),
        Turn("user", "Bye", False),
        Turn("assistant", "Ciao", True),
    ),
    2,
)
TEXT = Example((Turn("text", "Once upon a time.", True),), 3)


def dataset(*train: Example) -> Dataset:
    return Dataset("d", "d.jsonl", "messages", train, (PAIR,), (TEXT,))


def test_prompt_and_completion_of_a_conversation() -> None:
    assert prompt_text(CHAT) == "Be brief.\nHi\nHello\nBye"
    assert reference(CHAT) == "Ciao"
    assert trained_text(CHAT) == "Hello\nCiao"
    assert prompt_text(TEXT) == ""


@pytest.mark.parametrize("prompt", ["what is it?", " What is  it? ", "WHAT\tIS IT?"])
def test_case_and_white_space_do_not_make_a_new_prompt(prompt: str) -> None:
    other = Example((Turn("user", prompt, False), Turn("assistant", "A dog.", True)), 9)
    assert prompt_key(other) == prompt_key(PAIR)


def test_examples_without_prompt_are_told_apart_by_their_text() -> None:
    assert prompt_key(TEXT) != prompt_key(replace(TEXT, turns=(Turn("text", "Another.", True),)))


def test_fingerprint_is_that_of_the_contents() -> None:
    base = dataset(CHAT, PAIR)
    assert base.fingerprint == replace(base, name="e", source="f", warnings=("w",)).fingerprint
    assert base.fingerprint == dataset(replace(CHAT, row=77), PAIR).fingerprint
    turns = CHAT.turns
    changed = [
        dataset(PAIR, CHAT),
        dataset(CHAT),
        dataset(replace(CHAT, turns=(*turns[:-1], replace(turns[-1], content="Ciao!"))), PAIR),
        dataset(replace(CHAT, turns=(*turns[:2], replace(turns[2], trained=False), *turns[3:])), PAIR),
        replace(base, validation=(), test=(PAIR, TEXT)),
    ]
    assert len({base.fingerprint, *(other.fingerprint for other in changed)}) == 6


def test_an_opening_is_what_all_examples_have_before_the_prompt() -> None:
    system, hello, answer, asked = CHAT.turns[:4]
    short = Example((system, Turn("user", "Who?", False), CHAT.turns[-1]), 4)
    assert opening([CHAT, short]) == (system,)
    assert opening([CHAT, replace(CHAT, row=5)]) == (system, hello, replace(answer, trained=False))
    other = replace(CHAT, turns=(system, hello, Turn("assistant", "Hey", True), asked, CHAT.turns[-1]))
    assert opening([CHAT, other]) == (system,), "a prompt cannot follow a user's message"
    assert opening([CHAT, PAIR]) == opening([PAIR]) == opening([TEXT]) == opening([]) == ()
