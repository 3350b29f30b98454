"""Facts out of raw configurations of three families."""

from __future__ import annotations

import json
from pathlib import Path

from tunecast.store.importing.model_config import model_facts


def test_families(tiny_llama: Path, tiny_gpt2: Path, tiny_t5: Path) -> None:
    facts = {}
    for folder in (tiny_llama, tiny_gpt2, tiny_t5):
        config = json.loads((folder / "config.json").read_text())
        facts[config["model_type"]] = model_facts("m", config, 1000)
    llama, gpt2, t5 = facts["llama"], facts["gpt2"], facts["t5"]
    assert (llama.layers, llama.width, llama.heads, llama.key_value_heads) == (2, 32, 4, 2)
    assert llama.embedding_parameters == llama.vocabulary * 32
    assert (gpt2.layers, gpt2.has_biases, gpt2.key_value_heads == gpt2.heads) == (2, True, True)
    assert (t5.architecture, t5.context) == ("encoder-decoder", None)
    assert min(t5.layers, t5.width, t5.feed_forward_width, t5.heads) > 0


def test_nothing_is_made_up() -> None:
    facts = model_facts("m", {}, None)
    assert (facts.layers, facts.parameters, facts.context, facts.family) == (0, 0, None, "")
