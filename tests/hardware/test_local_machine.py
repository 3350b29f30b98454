"""The machine as advice sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tunecast.errors import ConfigurationError
from tunecast.hardware.local_machine import PROCESSOR, processor_target, target_of, this_machine
from tunecast.hardware.main_memory import main_memory_bytes


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program called nvidia-smi that answers as the real one does, before all others in the path."""
    file = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return file


def answer(file: Path, text: str) -> None:
    file.write_text(f"#!/bin/sh\necho '{text}'\n")
    file.chmod(0o755)


@pytest.fixture
def without_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.mark.usefixtures("without_accelerator")
def test_a_processor_is_measured() -> None:
    machine = this_machine().machine
    assert machine.device == "cpu"
    assert 1e8 < machine.flops_per_second["float32"] < 1e14
    assert 1e8 < machine.bandwidth_bytes_per_second < 1e13
    assert machine.device_memory_bytes == machine.memory_bytes == main_memory_bytes()
    assert this_machine().machine == machine, "it is not measured again"


@pytest.mark.usefixtures("without_accelerator")
def test_narrow_models_are_computed_in_float32() -> None:
    target = this_machine()
    assert target.dtype(64) == "float32"
    assert target_of("H100", None).dtype(64) == "bfloat16"
    assert target_of("T4", None).dtype(4096) == "float32"


def test_memory_is_what_the_user_says() -> None:
    target = target_of("RTX 4090", 20)
    assert target.machine.device_memory_bytes == 20_000_000_000
    assert target.name == "RTX 4090 with 20 GB"


def test_a_worker_has_its_share() -> None:
    target = processor_target(1, 10**9)
    assert (target.machine.threads, target.machine.device_memory_bytes) == (1, 10**9)


def test_an_accelerator_is_known_by_its_driver(driver: Path) -> None:
    answer(driver, "NVIDIA L40S, 46068")
    target = this_machine()
    assert (target.name, target.machine.device) == ("NVIDIA L40S", "cuda")
    assert target.machine.device_memory_bytes == 46068 * 2**20
    assert target.warnings == ()


@pytest.mark.parametrize(
    ("visible", "name"),
    [
        ("0,1", "NVIDIA T400"),
        ("1", "NVIDIA L40S"),
        ("GPU-5a,GPU-7b", "NVIDIA L40S"),
        ("MIG-1", "NVIDIA T400"),
        ("-1", PROCESSOR),
        ("9", PROCESSOR),
    ],
)
def test_an_accelerator_is_the_first_that_may_be_used(
    driver: Path, monkeypatch: pytest.MonkeyPatch, visible: str, name: str
) -> None:
    cases = "*--id=0*) echo 'NVIDIA T400, 4096';; *--id=1*|*--id=GPU-5a*) echo 'NVIDIA L40S, 46068';;"
    cases += " *--id=*) exit 6;; *) echo 'NVIDIA T400, 4096'; echo 'NVIDIA L40S, 46068';;"
    driver.write_text(f'#!/bin/sh\ncase "$*" in {cases} esac\n')
    driver.chmod(0o755)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert this_machine().name == name


def test_rates_of_an_unknown_accelerator_are_said_to_be_assumed(driver: Path) -> None:
    answer(driver, "NVIDIA Zeta 9000, 8192")
    target = this_machine()
    assert "rates of NVIDIA Zeta 9000 are unknown" in target.warnings[0]


def test_a_driver_without_a_device_is_no_accelerator(driver: Path) -> None:
    answer(driver, "No devices were found")
    assert this_machine().machine.device == "cpu"


@pytest.mark.parametrize("memory", [0.0, -3.0, float("nan"), float("inf")])
def test_impossible_memory_is_refused(memory: float) -> None:
    with pytest.raises(ConfigurationError, match="--memory-gb must be"):
        target_of("H100", memory)


def test_torch_is_not_imported() -> None:
    code = "import sys; from tunecast.hardware.local_machine import this_machine; this_machine();"
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
