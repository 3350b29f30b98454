"""Answers prompts by a large model that a small finetuned one steers, without Tunecast.

    python generate.py "a prompt" ["another"] [--large MODEL] [--small MODEL] [--alpha A] [--max-new-tokens N]

``proxy.json`` beside this file names the models and alpha. From Python:
``ProxyModel.load(folder).answer(prompt)``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunecast.proxy_tuning.logits import ProxyLogits

MOST_ALPHA = 10.0


class ProxyModel:
    """A large model, a small finetuned one and the same before its finetuning, each with its tokenizer."""

    def __init__(self, models: tuple[Any, Any, Any], tokenizers: tuple[Any, Any, Any], settings: Any) -> None:
        self.models, self.tokenizers = models, tokenizers
        self.alpha, self.vocabulary = float(settings["alpha"]), int(settings["vocabulary"])

    @classmethod
    def load(cls, folder: str | Path, **changes: Any) -> ProxyModel:
        """Load the models that ``proxy.json`` in a folder names; ``changes`` replace its values.

        Raises:
            ValueError: Alpha is out of range, or the models have different tokens.
        """
        folder = Path(folder)
        settings = json.loads((folder / "proxy.json").read_text(encoding="utf-8")) | changes
        if not 0 <= settings["alpha"] <= MOST_ALPHA:
            raise ValueError(f"alpha must be 0 to {MOST_ALPHA:g}, not {settings['alpha']:g}")
        large, small = settings["large"], settings["small"]
        expert = str((folder / settings["expert"]).resolve())
        names = (large, expert, small)
        tokenizers = tuple(AutoTokenizer.from_pretrained(name) for name in names)
        ids = list(range(settings["vocabulary"]))
        words = [tokenizer.convert_ids_to_tokens(ids) for tokenizer in tokenizers]
        for name, own in zip(names, words, strict=True):
            if own != words[1]:
                raise ValueError(f"{name} and {expert} have different tokens")
        models = (_loaded(large), _expert(expert, small), _loaded(small))
        return cls(models, (tokenizers[0], tokenizers[1], tokenizers[2]), settings)

    def answer(self, prompt: str, **options: Any) -> str:
        """Answer one prompt; ``options`` are those of ``generate``, such as ``max_new_tokens``."""
        base, expert, anti = (_asked(tokenizer, prompt) for tokenizer in self.tokenizers)
        steer = ProxyLogits(
            self.models[1],
            self.models[2],
            self.alpha,
            vocabulary=self.vocabulary,
            expert_inputs=expert,
            anti_expert_inputs=anti,
        )
        tokenizer = self.tokenizers[1]
        own = self.models[0].generation_config.eos_token_id
        stops = {tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])} - {None}
        usual = {"max_new_tokens": 256, "do_sample": False, "pad_token_id": tokenizer.eos_token_id}
        output = self.models[0].generate(
            **base, logits_processor=[steer], **{**usual, "eos_token_id": sorted(stops), **options}
        )
        new = output[0, base["input_ids"].shape[1] :]
        return str(tokenizer.decode(new, skip_special_tokens=True)).strip()


def _loaded(name: str) -> Any:
    model = AutoModelForCausalLM.from_pretrained(name, dtype="auto", device_map=_device())
    return model.eval()


def _expert(folder: str, small: str) -> Any:
    if not (Path(folder) / "adapter_config.json").is_file():
        return _loaded(folder)
    from peft import PeftModel

    return PeftModel.from_pretrained(_loaded(small), folder).eval()


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _asked(tokenizer: Any, prompt: str) -> Any:
    """Write a prompt as the model's own tokenizer does."""
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": prompt}]
        prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    else:
        prompt += "" if prompt[-1:].isspace() else "\n"
    asked = tokenizer(prompt, return_tensors="pt", add_special_tokens=not tokenizer.chat_template)
    return {name: asked[name].to(_device()) for name in ("input_ids", "attention_mask")}


def main() -> None:
    """Answer the prompts on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prompt", nargs="+")
    parser.add_argument("--large", help="the model that is steered")
    parser.add_argument("--small", help="the small model before its finetuning")
    parser.add_argument("--alpha", type=float, help="how strongly the small models steer")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    given = parser.parse_args()
    options = {name: getattr(given, name) for name in ("large", "small", "alpha")}
    changes = {name: value for name, value in options.items() if value is not None}
    try:
        model = ProxyModel.load(Path(__file__).parent, **changes)
    except ValueError as error:
        parser.error(str(error))
    for prompt in given.prompt:
        print(model.answer(prompt, max_new_tokens=given.max_new_tokens))


if __name__ == "__main__":
    main()
