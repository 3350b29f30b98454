"""Which exceptions mean what."""

from __future__ import annotations

import errno

import pytest
import torch

from tunecast.records import Outcome
from tunecast.training.failures import DivergedError, describe_failure, is_out_of_memory


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (MemoryError(), Outcome.OUT_OF_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), Outcome.OUT_OF_MEMORY),
        (torch.OutOfMemoryError("CUDA driver error: out of memory"), Outcome.OUT_OF_MEMORY),
        (
            RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported"),
            Outcome.OUT_OF_MEMORY,
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), Outcome.OUT_OF_MEMORY),
        (
            RuntimeError("CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
            Outcome.OUT_OF_MEMORY,
        ),
        (RuntimeError("CUDA error: device-side assert triggered"), Outcome.FAILED),
        (RuntimeError("std::bad_alloc"), Outcome.OUT_OF_MEMORY),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), Outcome.OUT_OF_MEMORY),
        (DivergedError("step 3: loss nan"), Outcome.DIVERGED),
        (RuntimeError("shapes do not match"), Outcome.FAILED),
        (OSError(errno.ENOSPC, "No space left on device"), Outcome.FAILED),
    ],
)
def test_outcome(error: Exception, outcome: Outcome) -> None:
    described, record = describe_failure(error)
    assert described is outcome
    assert (record.kind, record.text) == (type(error).__name__, str(error))


def test_a_real_allocation_that_fails() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
