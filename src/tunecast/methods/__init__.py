"""Finetuning methods: one file each, one register line each, and the space of pipelines they span."""

from tunecast.methods.adalora import AdaLora
from tunecast.methods.apet import Apet
from tunecast.methods.base import Method
from tunecast.methods.bias import Bias
from tunecast.methods.full import Full
from tunecast.methods.gmt import GradientMask
from tunecast.methods.hadamard import LoHa, LoKr
from tunecast.methods.ia3 import IA3
from tunecast.methods.ln_tuning import LayerNormTuning
from tunecast.methods.lora import Lora
from tunecast.methods.mezo import Mezo, MezoLora, MezoPrefix
from tunecast.methods.orthogonal import BOFT, OFT
from tunecast.methods.prompts import PrefixTuning, PromptTuning, PTuning
from tunecast.methods.qlora import QLora
from tunecast.methods.registry import central_rate, get_method, method_names, register
from tunecast.methods.restrictions import Restrictions
from tunecast.methods.semantic_freezing import SemanticFreezing
from tunecast.methods.space import (
    BASELINE,
    baseline_pipeline,
    check_names,
    pipeline_space,
    sample_pipelines,
)
from tunecast.methods.top_layers import TopLayers
from tunecast.methods.trainable_tokens import TrainableTokens
from tunecast.methods.vera import Vera

register(Lora())
register(Full())
register(IA3())
register(PromptTuning())
register(PrefixTuning())
register(PTuning())
register(LayerNormTuning())
register(Vera())
register(AdaLora())
register(LoHa())
register(LoKr())
register(OFT())
register(BOFT())
register(TrainableTokens())
register(QLora())
register(Bias())
register(TopLayers())
register(Mezo())
register(MezoLora())
register(MezoPrefix())
register(GradientMask())
register(SemanticFreezing())
register(Apet())

__all__ = [
    "BASELINE",
    "Method",
    "Restrictions",
    "baseline_pipeline",
    "central_rate",
    "check_names",
    "get_method",
    "method_names",
    "pipeline_space",
    "register",
    "sample_pipelines",
]
