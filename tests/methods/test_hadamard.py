"""LoHa and LoKr: their products, counts and scales."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adapters import LLAMA_LAYERS, adapted, count, layer, merged_equals_unmerged


def test_loha_is_a_product_of_two_low_rank_updates(tiny_llama: Path) -> None:
    model = adapted(tiny_llama, "loha", loha_scale=2.0)
    assert count(model) == 2 * sum(2 * 4 * sum(widths) for widths in LLAMA_LAYERS.values())
    one, x = layer(model), torch.randn(3, 32)
    parts = [getattr(one, f"hada_{name}")["default"] for name in ("w1_a", "w1_b", "w2_a", "w2_b")]
    update = 2.0 * (parts[0] @ parts[1]) * (parts[2] @ parts[3])
    assert int(torch.linalg.matrix_rank(update)) > 4
    torch.testing.assert_close(one(x), one.base_layer(x) + x @ update.T)


def test_lokr_is_a_kronecker_product(tiny_llama: Path) -> None:
    model = adapted(tiny_llama, "lokr", lokr_scale=2.0)
    expected = sum(4 * 4 + 2 * (out // 4 + width // 4) for width, out in LLAMA_LAYERS.values())
    assert count(model) == 2 * expected
    one, x = layer(model), torch.randn(3, 32)
    second = one.lokr_w2_a["default"] @ one.lokr_w2_b["default"]
    update = 2.0 * torch.kron(one.lokr_w1["default"], second)
    torch.testing.assert_close(one(x), one.base_layer(x) + x @ update.T)


@pytest.mark.parametrize("method", ["loha", "lokr"])
def test_merged_equals_unmerged(method: str, tiny_llama: Path) -> None:
    merged_equals_unmerged(adapted(tiny_llama, method))
