"""How a worker computes."""

from __future__ import annotations

import pytest
import torch

from tunecast.training.compute import Compute


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_computes_in_its_type_whatever_the_weights_are(dtype: str) -> None:
    compute = Compute("cpu", dtype, "decoder-only", 0)
    with compute.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == getattr(torch, dtype)
    assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
