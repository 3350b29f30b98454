"""What one layer of each family of decoders consists of, which its bytes, kernels and parameters follow from.

Read from the classes of transformers 5.23. Families are here if their layers are all alike, dense, and what
formulas say of them was compared with dry runs (``tests/models/test_closed_form.py``). Left out are mixtures
of experts, encoder-decoders, state-space models, and decoders that write their attention out in float32,
each in its own way (GPT-J, CodeGen, GPT-Neo, BLOOM).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tunecast.records import ModelFacts


@dataclass(frozen=True)
class Anatomy:
    """What one layer consists of.

    Args:
        gated: Whether the feed-forward block has a gate: three matrices instead of two.
        fused_attention: Whether one matrix makes queries, keys and values.
        fused_gate: Whether one matrix makes the gate and what it gates.
        rms_norms: Norms over the width that are written out in element-wise kernels.
        layer_norms: Norms over the width by torch's own kernel.
        head_norms: Whether queries and keys are normalised.
        rotary: Whether positions turn queries and keys.
        written_activation: Whether the activation is written out, as the old approximation of GELU is.
        capped: Whether attention's scores are capped, which keeps them.
        drops: Whether the family's own configurations drop parts of the residual stream.
        drops_scores: Whether they drop scores of attention, which a CPU then keeps.
        output_found: Whether the choice ``attention`` finds the matrix that leaves attention.
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
    """Hidden width, width inside the feed-forward block, width of all queries, width of all keys."""

    hidden: int
    inner: int
    queries: int
    keys: int


Matrix = tuple[int, int]
"""Width that goes in, width that comes out."""


class Matrices(NamedTuple):
    """The linear layers of one layer by where they are, and :attr:`Anatomy.output_found`."""

    into_attention: tuple[Matrix, ...]
    out_of_attention: Matrix
    feed_forward: tuple[Matrix, ...]
    output_found: bool

    def of(self, placed: Literal["all-linear", "attention"]) -> tuple[Matrix, ...]:
        """Those that a choice of ``target_modules`` finds."""
        if placed == "attention":
            return (*self.into_attention, *([self.out_of_attention] if self.output_found else []))
        return (*self.into_attention, self.out_of_attention, *self.feed_forward)

    @property
    def parameters(self) -> int:
        """Weights of all of them, without biases."""
        return sum(before * after for before, after in self.of("all-linear"))


_LLAMA = Anatomy()
_NORMED_HEADS = Anatomy(head_norms=True)
_LAYER_NORMS = Anatomy(rms_norms=0, layer_norms=2)
_ONE_NORM = Anatomy(rms_norms=1)

ANATOMIES: Mapping[str, Anatomy] = {
    "arcee": Anatomy(gated=False),
    "cohere": _ONE_NORM,
    "cohere2": _ONE_NORM,
    "ernie4_5": _LLAMA,
    "exaone4": _NORMED_HEADS,
    "falcon": Anatomy(gated=False, fused_attention=True, rms_norms=0, layer_norms=1, output_found=False),
    "gemma": _LLAMA,
    "gemma2": Anatomy(rms_norms=4, capped=True),
    "gemma3_text": Anatomy(rms_norms=4, head_norms=True),
    "glm": Anatomy(fused_gate=True),
    "glm4": Anatomy(fused_gate=True, rms_norms=4),
    "gpt2": Anatomy(
        gated=False,
        fused_attention=True,
        rms_norms=0,
        layer_norms=2,
        rotary=False,
        written_activation=True,
        drops=True,
        drops_scores=True,
        output_found=False,
    ),
    "gpt_bigcode": Anatomy(
        gated=False,
        fused_attention=True,
        rms_norms=0,
        layer_norms=2,
        rotary=False,
        drops=True,
        drops_scores=True,
        output_found=False,
    ),
    "gpt_neox": Anatomy(gated=False, fused_attention=True, rms_norms=0, layer_norms=2, output_found=False),
    "granite": _LLAMA,
    "helium": _LLAMA,
    "hunyuan_v1_dense": _NORMED_HEADS,
    "internlm3": _LLAMA,
    "llama": _LLAMA,
    "ministral": _LLAMA,
    "ministral3": _LLAMA,
    "mistral": _LLAMA,
    "nemotron": Anatomy(gated=False, rms_norms=0, layer_norms=2),
    "olmo": _LAYER_NORMS,
    "olmo2": _NORMED_HEADS,
    "olmo3": _NORMED_HEADS,
    "opt": Anatomy(gated=False, rms_norms=0, layer_norms=2, rotary=False, drops=True, output_found=False),
    "phi": Anatomy(gated=False, rms_norms=0, layer_norms=1, written_activation=True, output_found=False),
    "phi3": Anatomy(fused_attention=True, fused_gate=True),
    "qwen2": _LLAMA,
    "qwen3": _NORMED_HEADS,
    "seed_oss": Anatomy(drops_scores=True),
    "smollm3": _LLAMA,
    "stablelm": _LAYER_NORMS,
    "starcoder2": Anatomy(gated=False, rms_norms=0, layer_norms=2),
}
"""By ``model_type``."""


DEPARTURES: Mapping[str, tuple[str, ...]] = {
    "cohere": ("use_qk_norm",),
    "cohere2": ("use_qk_norm",),
    "falcon": ("alibi",),
    "phi": ("qk_layernorm",),
    "stablelm": ("qk_layernorm", "use_parallel_residual"),
}
"""Fields that, where they are true, give a layer parts that its family's anatomy does not have."""


def departs(family: str, config: Mapping[str, Any]) -> bool:
    """Whether a configuration asks for other layers, or another way into them, than its family's anatomy."""
    if family == "opt":
        width = config.get("hidden_size")
        usual = ("do_layer_norm_before", "enable_bias", "layer_norm_elementwise_affine")
        is_projected = (config.get("word_embed_proj_dim") or width) != width
        return is_projected or not all(config.get(name, True) for name in usual)
    return any(config.get(name) for name in DEPARTURES.get(family, ()))


def widths(model: ModelFacts) -> Widths:
    """The widths inside a layer of a model."""
    head = int(model.config.get("head_dim") or model.width // model.heads)
    return Widths(model.width, model.feed_forward_width, head * model.heads, head * model.key_value_heads)


def matrices(model: ModelFacts) -> Matrices:
    """The linear layers of one layer of a model of a family in :data:`ANATOMIES`."""
    anatomy = ANATOMIES[model.family]
    hidden, inner, queries, keys = widths(model)
    into = ((hidden, queries), (hidden, keys), (hidden, keys))
    fused = ((hidden, queries + 2 * keys),)
    gate = ((hidden, 2 * inner),) if anatomy.fused_gate else ((hidden, inner), (hidden, inner))
    return Matrices(
        fused if anatomy.fused_attention else into,
        (queries, hidden),
        (*(gate if anatomy.gated else ((hidden, inner),)), (inner, hidden)),
        anatomy.output_found,
    )
