"""The parts of one layer in each family of decoders, which determine its bytes, kernels and parameters.

Read from the classes of transformers 5.23. A family is listed if its layers are dense and all alike, and if
the formulas were compared with dry runs (``tests/estimate/test_closed_form.py``). Mixtures of experts,
encoder-decoders and state-space models are not listed, nor are decoders that compute attention in float32,
each in its own way (GPT-J, CodeGen, GPT-Neo, BLOOM).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from tunecast.records import ModelFacts


@dataclass(frozen=True)
class LayerSpec:
    """The parts of one layer.

    Args:
        gated: Whether the feed-forward block has a gate: three matrices instead of two.
        fused_attention: Whether one matrix computes queries, keys and values.
        fused_gate: Whether one matrix computes the gate and the gated activations.
        rms_norms: Norms over the width that run as element-wise kernels.
        layer_norms: Norms over the width that run as torch's fused kernel.
        head_norms: Whether queries and keys are normalised.
        rotary: Whether positions rotate queries and keys.
        written_activation: Whether the activation is a chain of kernels, like the old approximation of GELU.
        capped: Whether attention scores are capped, which keeps them in memory.
        drops: Whether the family's default configurations use dropout on the residual stream.
        drops_scores: Whether they use dropout on attention scores, which a CPU then keeps in memory.
        output_found: Whether ``target_modules: attention`` finds the output projection.
    """

    gated: bool = True
    fused_attention: bool = False
    fused_gate: bool = False
    rms_norms: int = 2
    layer_norms: int = 0
    head_norms: bool = False
    rotary: bool = True
    written_activation: bool = False
    capped: bool = False
    drops: bool = False
    drops_scores: bool = False
    output_found: bool = True


class Widths(NamedTuple):
    """The widths of the hidden state, the feed-forward block, all queries and all keys."""

    hidden: int
    inner: int
    queries: int
    keys: int


Matrix = tuple[int, int]
"""Input width, output width."""


class Matrices(NamedTuple):
    """The matrices of one layer by their place."""

    into_attention: tuple[Matrix, ...]
    out_of_attention: Matrix
    feed_forward: tuple[Matrix, ...]
    output_found: bool

    def of(self, placed: Literal["all-linear", "attention"]) -> tuple[Matrix, ...]:
        """Return the matrices that a choice of ``target_modules`` finds."""
        if placed == "attention":
            return (*self.into_attention, *([self.out_of_attention] if self.output_found else []))
        return (*self.into_attention, self.out_of_attention, *self.feed_forward)

    @property
    def parameters(self) -> int:
        """The number of weights, without biases."""
        return sum(before * after for before, after in self.of("all-linear"))


_NORMED_HEADS = LayerSpec(head_norms=True)
_PLAIN = LayerSpec(gated=False, rms_norms=0, layer_norms=2)
_GPT = replace(_PLAIN, fused_attention=True, rotary=False, drops=True, drops_scores=True, output_found=False)

_LIKE_LLAMA = (
    *("ernie4_5", "gemma", "granite", "helium", "internlm3", "llama", "ministral", "ministral3", "mistral"),
    *("qwen2", "smollm3"),
)

LAYER_SPECS: Mapping[str, LayerSpec] = {
    **dict.fromkeys(_LIKE_LLAMA, LayerSpec()),
    **dict.fromkeys(("exaone4", "hunyuan_v1_dense", "olmo2", "olmo3", "qwen3"), _NORMED_HEADS),
    **dict.fromkeys(("cohere", "cohere2"), LayerSpec(rms_norms=1)),
    **dict.fromkeys(("olmo", "stablelm"), LayerSpec(rms_norms=0, layer_norms=2)),
    **dict.fromkeys(("nemotron", "starcoder2"), _PLAIN),
    "arcee": LayerSpec(gated=False),
    "falcon": replace(_PLAIN, layer_norms=1, fused_attention=True, output_found=False),
    "gemma2": LayerSpec(rms_norms=4, capped=True),
    "gemma3_text": LayerSpec(rms_norms=4, head_norms=True),
    "glm": LayerSpec(fused_gate=True),
    "glm4": LayerSpec(fused_gate=True, rms_norms=4),
    "gpt2": replace(_GPT, written_activation=True),
    "gpt_bigcode": _GPT,
    "gpt_neox": replace(_PLAIN, fused_attention=True, output_found=False),
    "opt": replace(_PLAIN, rotary=False, drops=True, output_found=False),
    "phi": replace(_PLAIN, layer_norms=1, written_activation=True, output_found=False),
    "phi3": LayerSpec(fused_attention=True, fused_gate=True),
    "seed_oss": LayerSpec(drops_scores=True),
}
"""By ``model_type``."""


DEVIATING_FIELDS: Mapping[str, tuple[str, ...]] = {
    "cohere": ("use_qk_norm",),
    "cohere2": ("use_qk_norm",),
    "falcon": ("alibi",),
    "phi": ("qk_layernorm",),
    "stablelm": ("qk_layernorm", "use_parallel_residual"),
}
"""Configuration fields that, if true, give a layer parts that its family's spec lacks."""


def deviates(family: str, config: Mapping[str, Any]) -> bool:
    """Return whether a configuration's layers, or its input to them, differ from its family's spec."""
    if family == "opt":
        width = config.get("hidden_size")
        usual = ("do_layer_norm_before", "enable_bias", "layer_norm_elementwise_affine")
        is_projected = (config.get("word_embed_proj_dim") or width) != width
        return is_projected or not all(config.get(name, True) for name in usual)
    return any(config.get(name) for name in DEVIATING_FIELDS.get(family, ()))


def widths(model: ModelFacts) -> Widths:
    """Return the widths inside a layer of a model."""
    head = int(model.config.get("head_dim") or model.width // model.heads)
    return Widths(model.width, model.feed_forward_width, head * model.heads, head * model.key_value_heads)


def matrices(model: ModelFacts) -> Matrices:
    """Return the matrices of one layer; the model's family must be in :data:`LAYER_SPECS`."""
    spec = LAYER_SPECS[model.family]
    hidden, inner, queries, keys = widths(model)
    into = ((hidden, queries), (hidden, keys), (hidden, keys))
    fused = ((hidden, queries + 2 * keys),)
    gate = ((hidden, 2 * inner),) if spec.fused_gate else ((hidden, inner), (hidden, inner))
    return Matrices(
        fused if spec.fused_attention else into,
        (queries, hidden),
        (*(gate if spec.gated else ((hidden, inner),)), (inner, hidden)),
        spec.output_found,
    )
