"""Failures of training: out of memory, divergence, and everything else."""

from __future__ import annotations

import errno

from tunecast.records import Outcome, RunError

# Messages of allocators and CUDA libraries beyond those that accelerate knows. A library that cannot create
# its handle has run out of memory.
_ALLOCATION_FAILURES = (
    *("bad_alloc", "could not create a memory object", "not enough memory"),
    *("CUDA error: out of memory", "CUDA driver error: out of memory", "STATUS_ALLOC_FAILED"),
    "when calling `cublasCreate",
)


class DivergedError(RuntimeError):
    """The loss is NaN or infinite, or has exploded."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means that memory ran out, on any device."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    if (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or getattr(error, "errno", None) == errno.ENOMEM
    ):
        return True
    text = str(error)
    return isinstance(error, Exception) and (
        should_reduce_batch_size(error) or any(part in text for part in _ALLOCATION_FAILURES)
    )


def describe_failure(error: BaseException) -> tuple[Outcome, RunError]:
    """Turn an exception into a trial's outcome and its record."""
    if is_out_of_memory(error):
        outcome = Outcome.OUT_OF_MEMORY
    elif isinstance(error, DivergedError):
        outcome = Outcome.DIVERGED
    else:
        outcome = Outcome.FAILED
    return outcome, RunError(type(error).__name__, str(error))
