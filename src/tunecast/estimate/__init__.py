"""Memory arithmetic: what a finetuning will hold on a device, without loading a weight."""

from tunecast.estimate.peak_bytes import cached_dry_run, estimate_memory
from tunecast.estimate.remedies import what_would_fit
from tunecast.estimate.request import MemoryEstimate, MemoryRequest

__all__ = [
    "MemoryEstimate",
    "MemoryRequest",
    "cached_dry_run",
    "estimate_memory",
    "what_would_fit",
]
