"""Memory arithmetic: what a finetuning will hold on a device, without loading a weight."""

from tunecast.models.memory.advice import what_would_fit
from tunecast.models.memory.estimate import cached_dry_run, estimate_memory
from tunecast.models.memory.request import MemoryEstimate, MemoryRequest

__all__ = [
    "MemoryEstimate",
    "MemoryRequest",
    "cached_dry_run",
    "estimate_memory",
    "what_would_fit",
]
