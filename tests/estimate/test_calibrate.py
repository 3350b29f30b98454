"""This machine measured once, and remembered."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from sample_runs import sample_machine
from tunecast.errors import ConfigurationError
from tunecast.estimate import seconds
from tunecast.estimate.calibrate import calibrate, measure_device
from tunecast.hardware import calibration, local_machine
from tunecast.hardware.calibration import Calibration, read_calibration, write_calibration


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNECAST_CACHE", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path


def test_what_was_measured_is_remembered_and_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seconds, "STEPS", 1)  # how exactly is not the question here
    assert read_calibration("cpu") is None
    assert not local_machine.this_machine().efficiency
    found = measure_device("cpu")
    assert found.efficiency.keys() == found.machine.flops_per_second.keys()
    assert all(0.001 < share < 10.0 for share in found.efficiency.values()), "also on a busy machine"
    assert read_calibration("cpu") == found
    target = local_machine.this_machine()
    assert target.efficiency == found.efficiency
    assert target.machine.flops_per_second == found.machine.flops_per_second
    half = local_machine.processor_target(1, 10**9)
    share = 1 / found.machine.cores
    assert half.machine.flops_per_second["float32"] == share * found.machine.flops_per_second["float32"]
    assert half.efficiency == found.efficiency


def made_up() -> Calibration:
    return Calibration(sample_machine(), dict.fromkeys(sample_machine().flops_per_second, 0.3))


def test_a_damaged_file_or_another_processors_is_not_read(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_calibration(made_up(), "cpu")
    (file,) = (cache / "machines").iterdir()
    whole = file.read_text()
    for damaged in ("", "[]", "{}", whole[: len(whole) // 2], whole.replace("cores", "kernels")):
        file.write_text(damaged)
        assert read_calibration("cpu") is None
    file.write_text(whole)
    assert read_calibration("cpu") == made_up()
    assert read_calibration("cpu", "an accelerator") is None
    monkeypatch.setattr(calibration, "processor_name", lambda: "another processor")
    assert read_calibration("cpu") is None


def test_an_accelerator_that_torch_cannot_use_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNECAST_CACHE", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if torch.cuda.is_available():
        pytest.skip("torch can use this machine's accelerator")
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'NVIDIA A100-SXM4-80GB, 81920'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ConfigurationError, match="cannot measure the NVIDIA A100"):
        calibrate()


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    monkeypatch.setenv("TUNECAST_CACHE", str(file))
    write_calibration(made_up(), "cpu")
    assert read_calibration("cpu") is None
