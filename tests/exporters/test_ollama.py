"""The pieces of a chat template, put together again, give what it renders."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tunecast.data import Turn
from tunecast.errors import ModelError
from tunecast.exporters.gguf.ollama import modelfile
from tunecast.models import load_tokenizer

LLAMA_3 = (
    "{% for m in messages %}{% set content = '<|start|>' + m['role'] + '<|end|>\n\n' + m['content'] | trim "
    "+ '<|eot|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{%- set first = messages[0]['content'] + '\n\n' if messages[0]['role'] == 'system' else '' -%}"
    "{%- set rest = messages[1:] if messages[0]['role'] == 'system' else messages -%}"
    "{%- for m in rest -%}{{ '<turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' }}"
    "{{- first if loop.first else '' }}{{ m['content'] | trim }}{{ '<end>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<turn>model\n' }}{%- endif -%}"
)
DEFAULT = (
    "{% if messages[0]['role'] != 'system' %}{{ '<s>Be \"brief\".</s>' }}{% endif %}{% for m in messages %}"
    "{{ '<' + m['role'][0] + '>' + m['content'] + '</' + m['role'][0] + '>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<a>' }}{% endif %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{{ '[' + m['role'] + ']' + m['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)
CONVERSATION = (("system", "Be kind."), ("user", "Hi {{ you }}!"), ("assistant", "Hello."), ("user", "Bye."))


def go(template: str, messages: list[dict[str, str]]) -> str:
    """What Go makes of the few constructs that a template of ours has."""
    tokens = re.split(r"(\{\{.*?\}\}(?!\}))", template)
    system = "".join(one["content"] for one in messages if one["role"] == "system")
    state = {"told": False}
    start = next(i for i, token in enumerate(tokens) if token.startswith("{{ range"))

    def literal(token: str) -> str:
        found = re.fullmatch(r'\{\{ ("(?:[^"\\]|\\.)*") \}\}', token)
        assert found, token
        import json

        return str(json.loads(found[1]))

    def body(index: int) -> str:
        message, last, shown, text = messages[index], index == len(messages) - 1, [True], ""
        for token in tokens[start + 1 : -2]:
            inner = token.removeprefix("{{ ").removesuffix(" }}")
            if not token or inner == "$told = true":
                state["told"] |= bool(token) and all(shown)
            elif inner == "end":
                shown.pop()
            elif inner.startswith("if eq .Role"):
                shown.append(message["role"] == inner.split('"')[1])
            elif inner.startswith("if not (eq (len"):
                shown.append(not last)
            elif inner.startswith("if and (ne .Role"):
                shown.append(message["role"] != "assistant" and last)
            elif inner == "if and $.System (not $told)":
                shown.append(bool(system) and not state["told"])
            elif all(shown):
                text += {".Content": message["content"], "$.System": system}.get(inner) or literal(token)
        return text

    before = "".join(literal(token) for token in tokens[:start] if token and ":=" not in token)
    return before + "".join(body(index) for index in range(len(messages)))


def parts(text: str) -> dict[str, str]:
    found = dict(re.findall(r'^(TEMPLATE|SYSTEM) """(.*?)"""$', text, re.MULTILINE | re.DOTALL))
    return {"SYSTEM": "", **found}


@pytest.mark.parametrize("template", ["", LLAMA_3, GEMMA, DEFAULT, NO_SYSTEM], ids=str.__len__)
@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("end", [2, 4])
def test_a_template_renders_conversations_as_the_models_own(
    template: str, start: int, end: int, tiny_llama: Path
) -> None:
    tokenizer = load_tokenizer(str(tiny_llama))
    tokenizer.chat_template = template or tokenizer.chat_template
    messages = [{"role": role, "content": content} for role, content in CONVERSATION[start:end]]
    known = messages
    if template == NO_SYSTEM and not start:  # as training writes it
        joined = {"role": "user", "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
        known = [joined, *messages[2:]]
    wanted = tokenizer.apply_chat_template(known, tokenize=False, add_generation_prompt=True)
    found = parts(modelfile("model-f16.gguf", tokenizer, "<|im_end|>", is_text=False))
    if found["SYSTEM"] and start:
        messages.insert(0, {"role": "system", "content": found["SYSTEM"]})
    assert go(found["TEMPLATE"], messages) == wanted


def test_the_file_names_model_and_stop_token(tiny_llama: Path, tiny_gpt2: Path) -> None:
    text = modelfile("model-q8_0.gguf", load_tokenizer(str(tiny_llama)), "<|im_end|>", is_text=False)
    assert "\nFROM ./model-q8_0.gguf\n" in text
    assert '\nPARAMETER stop "<|im_end|>"\n' in text
    plain = modelfile("m.gguf", load_tokenizer(str(tiny_gpt2)), "<|endoftext|>", is_text=False)
    assert 'TEMPLATE """{{ .Prompt }}{{ "\\n" }}"""' in plain  # as Tunecast joins prompt and completion


def test_messages_before_every_prompt_are_kept(tiny_llama: Path, tiny_gpt2: Path) -> None:
    opening = [Turn(role, content, trained=False) for role, content in CONVERSATION[:3]]
    tokenizer = load_tokenizer(str(tiny_llama))
    text = modelfile("m.gguf", tokenizer, "<|im_end|>", is_text=False, opening=opening)
    assert (
        '\nSYSTEM """Be kind."""\nMESSAGE user """Hi {{ you }}!"""\nMESSAGE assistant """Hello."""\n' in text
    )
    tokenizer.chat_template = DEFAULT
    text = modelfile("m.gguf", tokenizer, "<|im_end|>", is_text=False, opening=opening[:1])
    assert parts(text)["SYSTEM"] == "Be kind."
    plain = modelfile("m.gguf", load_tokenizer(str(tiny_gpt2)), "<e>", is_text=False, opening=opening[:1])
    assert 'TEMPLATE """{{ "Be kind.\\n" }}{{ .Prompt }}{{ "\\n" }}"""' in plain
    quotes = [Turn("system", 'Say """yes""".', trained=False)]
    with pytest.raises(ModelError, match="three quotation marks"):
        modelfile("m.gguf", load_tokenizer(str(tiny_llama)), "<|im_end|>", is_text=False, opening=quotes)


def test_a_template_that_is_more_than_text_around_messages_is_refused(tiny_llama: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_llama))
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"
    with pytest.raises(ModelError, match="cannot be written as one of Ollama's"):
        modelfile("model.gguf", tokenizer, "<|im_end|>", is_text=False)
