"""Mixtures of experts on the meta device, where no token can be sent to the expert that its router chose."""

from __future__ import annotations

from typing import Any

NAME = "without_data"
"""What transformers knows ``evenly_used_experts`` by."""


def register_experts(config: Any) -> None:
    """Make a model of this configuration run its experts by ``evenly_used_experts``.

    The kernels that transformers has for experts need data, or take no float32 on the meta device.
    """
    try:
        from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
    except ImportError:  # the first releases of transformers 5 have no such kernels
        return
    ALL_EXPERTS_FUNCTIONS.register(NAME, evenly_used_experts)
    config._experts_implementation = NAME


def evenly_used_experts(self: Any, hidden_states: Any, top_k_index: Any, top_k_weights: Any) -> Any:
    """Run experts as if every one were chosen equally often: the work and the shapes of a balanced router.

    Args:
        self: Module of experts that transformers' ``use_experts_implementation`` decorates.
        hidden_states: Shape ``(tokens, width)``.
        top_k_index: The experts of each token; only its shape ``(tokens, k)`` counts.
        top_k_weights: Their weights, of the same shape.

    Returns:
        Shape ``(tokens, width)``.
    """
    import torch

    pairs = top_k_index.numel()
    used = min(self.num_experts, pairs)
    rows = torch.zeros(used * -(-pairs // used), dtype=torch.long, device=hidden_states.device)
    inner = _linear(self, "gate_up_proj" if self.has_gate else "up_proj", hidden_states[rows], used)
    inner = self._apply_gate(inner) if self.has_gate else self.act_fn(inner)
    out = _linear(self, "down_proj", inner, used)[:pairs]
    if getattr(self, "has_post_expert_norm", False):
        out = self.post_expert_norm(out)
    weighted = out * top_k_weights.reshape(-1, 1)
    return weighted.view(*top_k_index.shape, -1).sum(dim=1).to(hidden_states.dtype)


def _linear(experts: Any, name: str, rows: Any, used: int) -> Any:
    """Give an equal share of the rows to each of the first ``used`` experts' weights of this name."""
    import torch

    def of_used(weights: Any) -> Any:
        return weights if used == len(weights) else weights[:used]  # a slice would have a gradient of its own

    weight = of_used(getattr(experts, name))
    weight = weight if experts.is_transposed else weight.transpose(1, 2)
    out = torch.bmm(rows.to(weight.dtype).view(used, -1, rows.shape[-1]), weight)
    if experts.has_bias:
        out = out + of_used(getattr(experts, f"{name}_bias")).unsqueeze(1)
    return out.flatten(0, 1)
