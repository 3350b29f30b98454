"""The table of accelerators and the forgiving look-up."""

from __future__ import annotations

import pytest

from tunecast.errors import ConfigurationError
from tunecast.hardware.accelerators import ACCELERATORS, as_machine, find_accelerator


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("H100", "H100 SXM"),
        ("h100-pcie", "H100 PCIe"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("a100 40gb", "A100 40GB"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L40", "L40"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("rtx4090", "RTX 4090"),
        ("4090", "RTX 4090"),
        ("3090", "RTX 3090"),
        ("rtx-3090", "RTX 3090"),
        ("RTX 3090 24GB", "RTX 3090"),
        ("3090 Ti", "RTX 3090 Ti"),
        ("NVIDIA GeForce RTX 3090 Ti", "RTX 3090 Ti"),
        ("A6000", "RTX A6000"),
        ("NVIDIA RTX A6000", "RTX A6000"),
        ("RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("NVIDIA A10", "A10"),
        ("a10g", "A10G"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("H100 80GB", "H100 SXM"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80GB"),
        ("Tesla V100-SXM2-32GB", "V100 32GB"),
        ("GH200", "GH200"),
        ("L4 24GB", "L4"),
        ("Tesla T4", "T4"),
    ],
)
def test_spelling_is_forgiven(asked: str, name: str) -> None:
    assert find_accelerator(asked).name == name


@pytest.mark.parametrize(
    ("asked", "suggestion"), [("H10", "H100"), ("RTX 4099", "RTX 4090"), ("L50", "L40"), ("", "B200")]
)
def test_the_nearest_is_suggested(asked: str, suggestion: str) -> None:
    with pytest.raises(ConfigurationError, match="is unknown") as caught:
        find_accelerator(asked)
    assert suggestion in caught.value.hint


@pytest.mark.parametrize("asked", ["RTX 3090 48GB", "A100 60GB", "6000", "100"])
def test_a_name_that_may_mean_several_or_has_another_memory_is_refused(asked: str) -> None:
    with pytest.raises(ConfigurationError, match="is unknown"):
        find_accelerator(asked)


def test_names_are_unique_and_figures_plausible() -> None:
    names = [name for item in ACCELERATORS for name in (item.name, *item.aliases)]
    assert len(set(names)) == len(names)
    for item in ACCELERATORS:
        assert item.float32 < item.float16
        assert item.bfloat16 in (0, item.float16)
        assert 10e9 < item.memory_bytes < 300e9
        assert 1e11 < item.bandwidth < 1e13


@pytest.mark.parametrize(("name", "sold_gb"), [("RTX 4090", 24), ("L4", 24), ("A100 40GB", 40), ("T4", 16)])
def test_a_card_offers_the_gib_it_is_sold_with_minus_what_is_reserved(name: str, sold_gb: int) -> None:
    assert 0.9 * sold_gb < find_accelerator(name).memory_bytes / 2**30 < sold_gb


def test_machine_leaves_out_what_the_hardware_lacks() -> None:
    machine = as_machine(find_accelerator("T4"))
    assert "bfloat16" not in machine.flops_per_second
    assert machine.device_memory_bytes == round(14.7 * 2**30)
