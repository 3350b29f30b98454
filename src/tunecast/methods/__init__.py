"""Finetuning methods: one file each, one register line each, and the space of pipelines they span."""

from tunecast.methods.base import Method
from tunecast.methods.full import Full
from tunecast.methods.ia3 import IA3
from tunecast.methods.lora import Lora
from tunecast.methods.prompts import PrefixTuning, PromptTuning, PTuning
from tunecast.methods.registry import get_method, method_names, register
from tunecast.methods.space import EXPERT, Restrictions, expert_pipeline, pipeline_space, sample_pipelines

register(Lora())
register(Full())
register(IA3())
register(PromptTuning())
register(PrefixTuning())
register(PTuning())

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
