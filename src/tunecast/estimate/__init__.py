"""Bytes and seconds of a finetuning from shapes alone, before a weight is loaded.

The dry run is the reference; formulas fitted to it are its fast form. A caller turns its finetuning into a
:class:`Workload` and asks :func:`estimate_bytes` and :func:`estimate_seconds`.
"""

from tunecast.estimate.estimates import estimate_bytes, estimate_seconds, step_effort
from tunecast.estimate.peak_bytes import cached_dry_run, estimate_memory
from tunecast.estimate.remedies import what_would_fit
from tunecast.estimate.workload import Footprint, MemoryEstimate, Part, SecondsEstimate, Workload

__all__ = [
    "Footprint",
    "MemoryEstimate",
    "Part",
    "SecondsEstimate",
    "Workload",
    "cached_dry_run",
    "estimate_bytes",
    "estimate_memory",
    "estimate_seconds",
    "step_effort",
    "what_would_fit",
]
