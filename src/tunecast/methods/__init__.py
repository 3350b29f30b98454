"""Finetuning methods: one file each, one register line each, and the space of pipelines they span."""

from tunecast.methods.apet import Apet
from tunecast.methods.base import Method
from tunecast.methods.bias import Bias
from tunecast.methods.full import Full
from tunecast.methods.gmt import GradientMask
from tunecast.methods.ia3 import IA3
from tunecast.methods.lora import Lora
from tunecast.methods.mezo import Mezo
from tunecast.methods.registry import get_method, method_names, register
from tunecast.methods.semantic_freezing import SemanticFreezing
from tunecast.methods.space import EXPERT, Restrictions, expert_pipeline, pipeline_space, sample_pipelines
from tunecast.methods.top_layers import TopLayers

register(Lora())
register(Full())
register(IA3())
register(Bias())
register(TopLayers())
register(Mezo())
register(GradientMask())
register(SemanticFreezing())
register(Apet())

__all__ = [
    "EXPERT",
    "Method",
    "Restrictions",
    "expert_pipeline",
    "get_method",
    "method_names",
    "pipeline_space",
    "register",
    "sample_pipelines",
]
