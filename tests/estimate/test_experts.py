"""Experts without routing, against transformers' own on inputs for which the routing does not matter."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, GptOssConfig, MixtralConfig, PreTrainedConfig

from tunecast.estimate.experts import evenly_used_experts

SIZES = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 1}
SIZES |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "num_local_experts": 8}


@pytest.mark.parametrize("config", [MixtralConfig, GptOssConfig])
@pytest.mark.parametrize("tokens", [1, 13])
def test_equal_experts_give_equal_tokens_what_transformers_gives(
    config: type[PreTrainedConfig], tokens: int
) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(**SIZES), experts_implementation="eager").float()
    experts = next(module for module in model.modules() if hasattr(module, "has_gate"))
    for parameter in experts.parameters():
        parameter.data[:] = torch.randn_like(parameter[:1])
    hidden = torch.randn(1, 32).repeat(tokens, 1)
    chosen = torch.stack([torch.randperm(8)[:2] for _ in range(tokens)])
    weights = torch.rand(tokens, 2)
    found = evenly_used_experts(experts, hidden, chosen, weights)
    torch.testing.assert_close(found, experts(hidden, chosen, weights), rtol=1e-4, atol=1e-4)
