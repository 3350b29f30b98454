"""Tiny randomly initialised models and datasets, built at run time: real classes, real files."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
COLOURS = ("red", "green", "blue", "grey", "brown", "white", "black", "orange")
THINGS = ("apple", "house", "river", "stone", "cloud", "horse", "table", "window", "garden", "letter")


def build_tokenizer(folder: Path, *, chat: bool = True, vocabulary: int = 400) -> Any:
    """Train a byte-level BPE tokenizer on the toy sentences and save it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rows = toy_rows(200, seed=7)
    tokenizer.train_from_iterator([row["prompt"] + " " + row["completion"] for row in rows], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>" if chat else "<|endoftext|>",
        pad_token="<|pad|>",
        model_max_length=128,
    )
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    return fast


def build_llama(folder: Path, *, width: int = 32, layers: int = 2, seed: int = 0) -> Path:
    """A two-layer Llama with grouped-query attention and tied embeddings."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_tokenizer(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def build_gpt2(folder: Path, *, seed: int = 0) -> Path:
    """A two-layer GPT-2: it has biases, Conv1D layers and absolute positions, and no chat template."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = build_tokenizer(folder, chat=False)
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=128,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def build_t5(folder: Path, *, seed: int = 0) -> Path:
    """A two-layer T5 with gated feed-forward."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = build_tokenizer(folder, chat=False)
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def toy_rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Questions that a tiny model can learn to answer: repeat the colour of the thing that is asked for."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        thing, other = draw.sample(THINGS, 2)
        colour, second = draw.sample(COLOURS, 2)
        facts = f"the {thing} is {colour} and the {other} is {second}"
        prompt = f"Case {number}: {facts}. Which colour has the {thing}?"
        rows.append({"prompt": prompt, "completion": f"The {thing} is {colour}."})
    return rows


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write one JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_choices(folder: Path, count: int) -> Path:
    """Define a task of lm-eval with three choices, of several tokens, for each question."""
    words = ["red apple", "green", "blue house and a river", "white", "a black horse", "grey stone", "brown"]
    rows = [
        {
            "asked": f"Case {number}: which colour has the {words[number % 7]}?",
            "said": [words[(number + step) % 7] for step in (1, 2, 4)],
            "right": number * 5 % 3,
        }
        for number in range(count)
    ]
    definition = {
        "task": "choices", "dataset_path": "json", "test_split": "test", "output_type": "multiple_choice",
        "dataset_kwargs": {"data_files": {"test": str(write_jsonl(folder / "choices.jsonl", rows))}},
        "doc_to_text": "{{asked}}", "doc_to_choice": "{{said}}", "doc_to_target": "right",
        "metric_list": [{"metric": "acc"}],
    }  # fmt: skip
    (folder / "choices.yaml").write_text(json.dumps(definition))
    return folder / "choices.yaml"
