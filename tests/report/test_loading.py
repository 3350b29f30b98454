from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from report.sample_session import make_runs
from tunecast.data import Example, Turn, encode
from tunecast.methods import get_method, method_names
from tunecast.records import ZERO_SHOT, Pipeline, Run
from tunecast.report.loading import delivery
from tunecast.session.provenance import Origin


@pytest.fixture
def run() -> Run:
    return make_runs(1)[1]


def test_adapter_of_a_hub_model(run: Run) -> None:
    given = delivery(run, "org/model-1B")
    assert (given.adapter, given.bundled_base, given.library) == (True, False, "peft")
    assert "base = AutoModelForCausalLM.from_pretrained('org/model-1B')" in given.code("best")


@pytest.mark.parametrize("base", ["smollm2", "/models/x.Q4_K_M.GGUF"])
def test_gguf_base_lies_beside_the_adapter(run: Run, base: str) -> None:
    given = delivery(run, base)
    assert given.bundled_base
    assert 'from_pretrained(folder + "/base")' in given.code("best")


@pytest.mark.parametrize("pipeline", [Pipeline("full", {"learning_rate": 1e-5}), ZERO_SHOT])
def test_whole_model_needs_no_peft(run: Run, pipeline: Pipeline) -> None:
    given = delivery(dataclasses.replace(run, pipeline=pipeline), "smollm2")
    assert given.library == "transformers"
    assert "peft" not in given.code("best")
    assert "model = AutoModelForCausalLM.from_pretrained(folder)" in given.code("best")


@pytest.mark.parametrize("method", method_names())
def test_every_method_is_loaded_as_what_it_delivers(run: Run, method: str) -> None:
    pipeline = Pipeline(method, {"learning_rate": 1e-3})
    given = delivery(dataclasses.replace(run, pipeline=pipeline), "smollm2")
    whole = get_method(method).delivers == "model"
    assert (given.adapter, given.bundled_base) == (not whole, not whole)
    assert ("PeftModel" in given.code("best")) is not whole


def test_encoder_decoder(run: Run) -> None:
    model = dataclasses.replace(run.model, architecture="encoder-decoder")
    code = delivery(dataclasses.replace(run, model=model), "google/t5").code("best")
    assert "AutoModelForSeq2SeqLM" in code
    assert "shape[1]" not in code


def test_files_go_before_names(run: Run, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    assert not delivery(run, "org/model", tmp_path).adapter
    (tmp_path / "adapter_config.json").touch()
    (tmp_path / "base").mkdir()
    assert delivery(run, "org/model", tmp_path).bundled_base


def test_paths_of_the_user_stay_private(run: Run) -> None:
    assert delivery(run, "/home/someone/secret/model").base_model == "smollm2"
    assert delivery(run, "smollm2").base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_code_is_valid_python(run: Run) -> None:
    for base in ("org/model", "smollm2"):
        compile(delivery(run, base).code("it's"), "card", "exec")


@pytest.mark.parametrize("adapter", [True, False], ids=["adapter", "whole model"])
def test_code_loads_a_real_model_and_answers(
    run: Run, tiny_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], adapter: bool
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(tmp_path)
    if adapter:
        base.save_pretrained(tmp_path / "base")
        config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
        get_peft_model(base, config).save_pretrained(tmp_path)
    else:
        base.save_pretrained(tmp_path)
    given = delivery(run, "smollm2", tmp_path)
    assert given.adapter == adapter
    exec(given.code(str(tmp_path)).replace("max_new_tokens=128", "max_new_tokens=2"), {})
    assert capsys.readouterr().out.endswith("\n")


OPENING = (Turn("system", "Be kind.", trained=False),)


@pytest.mark.parametrize(
    ("has_chat_template", "pattern", "label"),
    [(True, "", "Yes."), (False, "", "Yes."), (False, "", " Yes."), (False, "Is it? {prompt} ", "Yes.")],
)
def test_code_reads_a_prompt_as_training_did(
    run: Run, tiny_llama: Path, tmp_path: Path, has_chat_template: bool, pattern: str, label: str
) -> None:
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(tiny_llama).save_pretrained(tmp_path)
    tokenizer = saved_tokenizer(tiny_llama, tmp_path, has_chat_template)
    origin = Origin(0, "moods", "f", labels=(label,), opening=OPENING)
    model = dataclasses.replace(run.model, has_chat_template=has_chat_template)
    run = dataclasses.replace(run, model=model)
    given = delivery(run, "smollm2", tmp_path, pattern=pattern, origin=origin)
    prompt = Turn("user", pattern.replace("{prompt}", "...") or "...", trained=False)
    example = Example((*OPENING, prompt, Turn("assistant", label, trained=True)), 1)
    (trained,) = encode([example], tokenizer, architecture="decoder-only", max_length=64)
    first = next(place for place, token in enumerate(trained.labels) if token >= 0)
    assert read_by(given.code(str(tmp_path))) == list(trained.input_ids[:first])


def test_code_reads_a_prompt_of_an_encoder_decoder_as_training_did(
    run: Run, tiny_t5: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForSeq2SeqLM

    AutoModelForSeq2SeqLM.from_pretrained(tiny_t5).save_pretrained(tmp_path)
    tokenizer = saved_tokenizer(tiny_t5, tmp_path, has_chat_template=False)
    model = dataclasses.replace(run.model, architecture="encoder-decoder", has_chat_template=False)
    origin = Origin(0, "moods", "f", opening=OPENING)
    given = delivery(dataclasses.replace(run, model=model), "smollm2", tmp_path, origin=origin)
    turns = (*OPENING, Turn("user", "...", trained=False), Turn("assistant", "Yes.", trained=True))
    (trained,) = encode([Example(turns, 1)], tokenizer, architecture="encoder-decoder", max_length=64)
    assert read_by(given.code(str(tmp_path))) == list(trained.input_ids)


def saved_tokenizer(model: Path, folder: Path, has_chat_template: bool) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    if not has_chat_template:
        tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    return tokenizer


def read_by(code: str) -> list[int]:
    """The tokens of the prompt that a card's code reads."""
    found: dict[str, Any] = {}
    exec(code.replace("max_new_tokens=128", "max_new_tokens=1"), found)
    tokens: list[int] = found["inputs"]["input_ids"][0].tolist()
    return tokens
