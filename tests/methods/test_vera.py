"""VeRA: shared random projections and trained scalings."""

from __future__ import annotations

from pathlib import Path

import torch

from adapters import LLAMA_LAYERS, adapted, count, layer, merged_equals_unmerged, trained


def test_trains_scalings_around_projections_that_all_layers_share(tiny_llama: Path) -> None:
    model = adapted(tiny_llama, "vera")
    assert all(".vera_lambda_" in name for name in trained(model))
    assert count(model) == 2 * sum(16 + out for _, out in LLAMA_LAYERS.values())
    projections = {
        module.vera_A["default"].data_ptr() for module in model.modules() if hasattr(module, "vera_lambda_b")
    }
    assert len(projections) == 1
    assert tuple(model.base_model.vera_A["default"].shape) == (16, 64)
    assert tuple(model.base_model.vera_B["default"].shape) == (64, 16)


def test_computes_the_equation(tiny_llama: Path) -> None:
    one, x = layer(adapted(tiny_llama, "vera")), torch.randn(3, 32)
    a, b = one.vera_A["default"][:, :32], one.vera_B["default"][:64]
    d, scale = one.vera_lambda_d["default"], one.vera_lambda_b["default"]
    torch.testing.assert_close(one(x), one.base_layer(x) + scale * ((d * (x @ a.T)) @ b.T))


def test_start(tiny_llama: Path) -> None:
    one = layer(adapted(tiny_llama, "vera", shake=0.0, d_initial=0.01))
    assert not one.vera_lambda_b["default"].any()
    assert torch.equal(one.vera_lambda_d["default"], torch.full((16,), 0.01))


def test_seed_draws_the_projections(tiny_llama: Path) -> None:
    one, same, other = (adapted(tiny_llama, "vera", seed=s).base_model.vera_A["default"] for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_merged_equals_unmerged(tiny_llama: Path) -> None:
    merged_equals_unmerged(adapted(tiny_llama, "vera"))
