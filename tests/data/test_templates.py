"""What of a rendered conversation is trained, under chat templates of many habits."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

import tiny
from tunecast.data.examples import Example, Turn
from tunecast.data.templates import Renderer, end_of_answer, prompt_segments
from tunecast.errors import DataError

LOOP = "{% for m in messages %}"
END = "{% endfor %}"
HEADER = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
PLAIN_TURN = "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"

TEMPLATES = {
    "chatml": tiny.CHAT_TEMPLATE,
    "default system": "{% if messages[0]['role'] != 'system' %}"
    "<|im_start|>system\nHelp.<|im_end|>\n{% endif %}"
    + LOOP + PLAIN_TURN + END + HEADER,
    "trims": LOOP + "{{ '<|im_start|>' + m['role'] + '\n' + (m['content'] | trim) + '<|im_end|>\n' }}"
    + END + HEADER,
    "no header for generation": LOOP + "{{ m['role'] + ': ' + m['content'] + '<|im_end|>' }}" + END,
    "end of text after the last turn": LOOP + PLAIN_TURN + END
    + "{% if add_generation_prompt %}<|im_start|>assistant\n{% else %}<|endoftext|>{% endif %}",
    "no system role": "{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('no system role') }}{% endif %}"
    + LOOP + PLAIN_TURN + END + HEADER,
    "thinks in the last turn only": LOOP + "{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}" + END + HEADER,
    "space before the end": LOOP + "{% if m['role'] == 'assistant' %}{{ ' ' + m['content'] + ' <|im_end|>' }}"
    "{% else %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% endif %}" + END,
}  # fmt: skip

SPECIAL = re.compile(r"<\|[\w▁]+\|>|<\uff5c[^\uff5c'\"]+\uff5c>|<(?:end|start)_of_turn>|<eos>")

SINGLE = Example((Turn("user", "Q one", False), Turn("assistant", "A one", True)), 5)
CHAT = Example(
    (
        Turn("system", "Be kind", False),
        Turn("user", "Q one", False),
        Turn("assistant", "A one", True),
        Turn("user", "Q two", False),
        Turn("assistant", "A two", True),
    ),
    6,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny.build_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def with_template(tokenizer: Any, template: str | None) -> Renderer:
    tokenizer.chat_template = template
    return Renderer(tokenizer)


def trained(renderer: Renderer, example: Example) -> list[str]:
    return [segment.text for segment in renderer.render(example) if segment.trained]


@pytest.mark.parametrize("name", TEMPLATES)
def test_trained_are_the_answers_with_their_end_of_turn(tokenizer: Any, name: str) -> None:
    renderer = with_template(tokenizer, TEMPLATES[name])
    (answer,) = trained(renderer, SINGLE)
    assert answer.removeprefix("<think>\n\n</think>\n\n").replace(" <", "<").lstrip() == "A one<|im_end|>"
    texts = trained(renderer, CHAT)
    assert len(texts) == 2
    for text, number in zip(texts, ("one", "two"), strict=True):
        assert f"A {number}" in text
        assert text.endswith("<|im_end|>")
        assert "Q" not in text
        assert "assistant" not in text


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("example", [SINGLE, CHAT], ids=["single", "chat"])
def test_the_segments_are_the_rendering_up_to_the_last_end_of_turn(
    tokenizer: Any, name: str, example: Example
) -> None:
    renderer = with_template(tokenizer, TEMPLATES[name])
    segments = renderer.render(example)
    messages = [{"role": turn.role, "content": turn.content} for turn in example.turns]
    if name == "no system role" and example is CHAT:
        messages = [{"role": "user", "content": "Be kind\n\nQ one"}, *messages[2:]]
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    joined = "".join(segment.text for segment in segments)
    assert whole.startswith(joined)
    assert whole[len(joined) :].strip() in ("", "<|endoftext|>")
    assert segments[-1].trained
    assert not any(segment.ends for segment in segments)


@pytest.mark.parametrize("name", [name for name in TEMPLATES if name != "thinks in the last turn only"])
@pytest.mark.parametrize("example", [SINGLE, CHAT], ids=["single", "chat"])
def test_the_prompt_is_what_generation_starts_from(tokenizer: Any, name: str, example: Example) -> None:
    renderer = with_template(tokenizer, TEMPLATES[name])
    messages = [{"role": turn.role, "content": turn.content} for turn in example.turns]
    if name == "no system role" and example is CHAT:
        messages = [{"role": "user", "content": "Be kind\n\nQ one"}, *messages[2:]]
    expected = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    prompt = "".join(segment.text for segment in prompt_segments(renderer.render(example)))
    if name == "no header for generation":
        expected += "assistant: "
    assert prompt == expected


FAMILIES = (
    "llama3",
    "llama3_2",
    "gemma",
    "gemma3",
    "phi3",
    "qwen2_5",
    "qwen3",
    "qwen3_training",
    "qwen3_5_think",
)
FAMILIES += ("deepseekv3", "gptoss", "cohere", "glm4moe_training", "lfm2_v2", "nemotron_3_nano")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("example", [SINGLE, CHAT], ids=["single", "chat"])
def test_templates_of_real_families(tmp_path: Path, family: str, example: Example) -> None:
    trl = pytest.importorskip("trl")
    file = Path(trl.__file__).parent / "chat_templates" / f"{family}.jinja"
    if not file.exists():
        pytest.skip(f"this version of trl has no template {family}")
    template = file.read_text(encoding="utf-8")
    tokenizer = tiny.build_tokenizer(tmp_path)
    tokenizer.add_special_tokens({"extra_special_tokens": sorted(set(SPECIAL.findall(template)))})
    tokenizer.chat_template = template
    segments = Renderer(tokenizer).render(example)
    answers = [segment.text for segment in segments if segment.trained]
    assert len(answers) == sum(turn.trained for turn in example.turns)
    for answer, turn in zip(answers, [turn for turn in example.turns if turn.trained], strict=True):
        # Nothing but what the family writes before an answer, the answer, and one end-of-turn token.
        before, after = answer.split(turn.content)
        assert (
            before.strip() in ("", "<think>\n\n</think>", "</think>", "<think></think>") or "final" in before
        )
        assert SPECIAL.fullmatch(after.strip()), after
    # Two families open a thought in the header, which a completion without one does not continue;
    # and one has no system role.
    if family not in ("deepseekv3", "nemotron_3_nano") and not (family == "gemma" and example is CHAT):
        messages = [{"role": turn.role, "content": turn.content} for turn in example.turns[:-1]]
        header = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert "".join(segment.text for segment in prompt_segments(segments)) == header


def test_a_template_without_end_of_turn_gets_the_end_of_sequence(tokenizer: Any) -> None:
    renderer = with_template(tokenizer, LOOP + "{{ m['role'] + ': ' + m['content'] + '\n' }}" + END)
    segments = renderer.render(CHAT)
    assert [segment.text for segment in segments if segment.trained] == ["A one", "A two"]
    assert [segment.ends for segment in segments if segment.trained] == [False, True]


def test_the_end_of_an_answer_is_the_templates_own_or_the_end_of_the_sequence(tokenizer: Any) -> None:
    for template, token in (
        (tiny.CHAT_TEMPLATE, "<|im_end|>"),
        (tiny.CHAT_TEMPLATE.replace("<|im_end|>", "<|pad|>"), "<|pad|>"),
        (None, "<|im_end|>"),
    ):
        with_template(tokenizer, template)
        assert end_of_answer(tokenizer) == token


def test_a_special_token_of_the_next_turn_does_not_end_this_one(tokenizer: Any) -> None:
    renderer = with_template(tokenizer, LOOP + "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}" + END)
    assert all("<|im_start|>" not in text.removeprefix("<|im_start|>") for text in trained(renderer, CHAT))


def test_a_conversation_the_template_refuses_is_named(tokenizer: Any) -> None:
    template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(DataError, match=r"Row 6: .*roles must alternate"):
        with_template(tokenizer, template).render(CHAT)


def test_a_template_that_rewrites_answers_is_refused(tokenizer: Any) -> None:
    template = LOOP + "{{ m['content'] | upper }}<|im_end|>" + END
    with pytest.raises(DataError, match=r"Row 5: .* changes message 2"):
        with_template(tokenizer, template).render(SINGLE)


def test_a_conversation_that_the_assistant_opens(tokenizer: Any) -> None:
    renderer = with_template(tokenizer, tiny.CHAT_TEMPLATE)
    opened = Example((Turn("assistant", "Hello", True), *SINGLE.turns), 1)
    assert trained(renderer, opened) == ["Hello<|im_end|>", "A one<|im_end|>"]


def test_equal_texts_of_both_sides_are_not_confused(tokenizer: Any) -> None:
    renderer = with_template(tokenizer, TEMPLATES["thinks in the last turn only"])
    same = Example(tuple(Turn(role, "yes", role == "assistant") for role in ("user", "assistant") * 2), 1)
    segments = renderer.render(same)
    assert next(segment.text for segment in segments if segment.trained) == "yes<|im_end|>"
    assert segments[0].text.endswith("assistant\n")


@pytest.mark.parametrize(
    ("prompt", "completion", "expected"),
    [
        ("Q", "A", "Q\n"),
        ("Q ", "A", "Q "),
        ("Q\n", "A", "Q\n"),
        ("Q", " A", "Q"),
        ("", "A", ""),
    ],
)
def test_without_a_template_white_space_separates(
    tokenizer: Any, prompt: str, completion: str, expected: str
) -> None:
    renderer = with_template(tokenizer, None)
    example = Example((Turn("user", prompt, False), Turn("assistant", completion, True)), 1)
    segments = renderer.render(example)
    assert "".join(segment.text for segment in prompt_segments(segments)) == expected
    assert (segments[-1].text, segments[-1].trained, segments[-1].ends) == (completion, True, True)


def test_without_a_template_every_answer_ends(tokenizer: Any) -> None:
    segments = with_template(tokenizer, None).render(CHAT)
    assert [(segment.text, segment.ends) for segment in segments] == [
        ("Be kind\n", False),
        ("Q one\n", False),
        ("A one", True),
        ("Q two\n", False),
        ("A two", True),
    ]


@pytest.mark.parametrize("template", [None, tiny.CHAT_TEMPLATE])
def test_running_text_is_never_templated(tokenizer: Any, template: str | None) -> None:
    text = Example((Turn("text", "Once upon", True),), 1)
    (segment,) = with_template(tokenizer, template).render(text)
    assert (segment.text, segment.trained, segment.ends) == ("Once upon", True, True)


def test_a_template_that_hangs_on_one_row_names_it(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunecast.template_guard.CPU_SECONDS", 0.2)
    hang = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    whole = f"{{% if 'hang' in messages[0]['content'] %}}{hang}{{% endif %}}{tiny.CHAT_TEMPLATE}"
    monkeypatch.setattr(tokenizer, "chat_template", whole)
    renderer = Renderer(tokenizer)
    assert renderer.render(SINGLE)[-1].trained
    question = Turn("user", "hang", False)
    with pytest.raises(DataError, match="Row 7: the model's chat template takes more than"):
        renderer.render(Example((question, SINGLE.turns[1]), 7))


def test_a_long_conversation_has_the_limit_for_each_rendering(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunecast.template_guard.CPU_SECONDS", 0.3)
    render = tokenizer.apply_chat_template

    def slowly(*given: Any, **named: Any) -> Any:
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
        return render(*given, **named)

    monkeypatch.setattr(tokenizer, "apply_chat_template", slowly)
    monkeypatch.setattr(tokenizer, "chat_template", tiny.CHAT_TEMPLATE)
    turns = [Turn("assistant" if i % 2 else "user", f"turn {i}", bool(i % 2)) for i in range(12)]
    segments = Renderer(tokenizer).render(Example(tuple(turns), 1))
    assert sum(segment.trained for segment in segments) == 6, "rendered 12 times, in 0.6 s"
