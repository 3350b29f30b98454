"""How a worker computes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tunecast.training.compute import Compute


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_computes_in_its_type_whatever_the_weights_are(dtype: str) -> None:
    compute = Compute("cpu", dtype, "decoder-only", 0)
    with compute.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == getattr(torch, dtype)
    assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_seeds_as_torch_does_and_leaves_other_accelerators_alone(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no accelerator")
    torch.manual_seed(5)
    expected = torch.rand(3, device=device)
    waiting = len(torch.xpu._queued_calls)
    Compute(device, "float32", "decoder-only", 0).seed(5)
    assert torch.equal(torch.rand(3, device=device), expected)
    assert len(torch.xpu._queued_calls) == waiting


@pytest.fixture
def as_before() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cuda.enable_flash_sdp(True)
    torch.backends.cuda.enable_mem_efficient_sdp(True)
    torch.backends.cuda.enable_cudnn_sdp(True)


@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize(("device", "fused"), [("cpu", True), ("cuda:0", False)])
def test_bit_equal_results_use_no_fused_attention_on_an_accelerator(device: str, fused: bool) -> None:
    Compute(device, "float32", "decoder-only", 0).choose_kernels(deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cuda.flash_sdp_enabled() is fused
    assert torch.backends.cuda.mem_efficient_sdp_enabled() is fused
    assert torch.backends.cuda.cudnn_sdp_enabled() is fused
    assert torch.backends.cuda.math_sdp_enabled()


@pytest.mark.usefixtures("as_before")
def test_attention_with_faulty_gradients_is_left_out_on_an_accelerator() -> None:
    for device, used in (("cpu", True), ("cuda", False)):
        Compute(device, "float32", "decoder-only", 0).choose_kernels()
        assert torch.backends.cuda.cudnn_sdp_enabled() is used
        assert torch.backends.cuda.flash_sdp_enabled()
        assert torch.backends.cuda.mem_efficient_sdp_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
