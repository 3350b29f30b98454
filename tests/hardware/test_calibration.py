"""Measurements of this machine are kept, and forgotten when they are old, damaged or impossible."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tunecast.hardware.calibration import (
    WORKER_SECONDS,
    Calibration,
    read_calibration,
    read_worker_machine,
    write_calibration,
    write_worker_machine,
)
from tunecast.records import Machine

MACHINE = Machine("cpu", 4, 2, 8_000_000_000, 8_000_000_000, {"float32": 1e11, "bfloat16": 2e11}, 2e10)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNECAST_CACHE", str(tmp_path))
    return tmp_path


def kept(cache: Path) -> Path:
    (file,) = (cache / "machines").glob("*.json")
    return file


def test_a_workers_rates_are_read_again_for_as_many_threads() -> None:
    assert read_worker_machine(2) is None
    write_worker_machine(MACHINE)
    found = read_worker_machine(2)
    assert found is not None
    assert (found.flops_per_second, found.bandwidth_bytes_per_second, found.threads) == (
        *(MACHINE.flops_per_second, 2e10, 2),
    )
    assert read_worker_machine(4) is None


def test_a_measurement_is_repeated_after_a_week(cache: Path) -> None:
    write_worker_machine(MACHINE)
    before = time.time() - WORKER_SECONDS - 60
    os.utime(kept(cache), (before, before))
    assert read_worker_machine(2) is None


@pytest.mark.parametrize(
    "change",
    [
        {"flops_per_second": {}},
        {"flops_per_second": {"float32": 0.0}},
        {"flops_per_second": {"float32": "fast"}},
        {"flops_per_second": [1]},
        {"bandwidth_bytes_per_second": float("inf")},
        {"bandwidth_bytes_per_second": None},
        {"colour": "red"},
    ],
)
def test_what_no_machine_has_is_measured_again(cache: Path, change: dict[str, Any]) -> None:
    write_worker_machine(MACHINE)
    content = json.loads(kept(cache).read_text())
    kept(cache).write_text(json.dumps(content | change))
    assert read_worker_machine(2) is None


def test_a_calibration_comes_back_by_device() -> None:
    calibration = Calibration(MACHINE, {"float32": 0.5, "bfloat16": 0.25})
    write_calibration(calibration, "cpu")
    assert read_calibration("cpu") == calibration
    assert read_calibration("cuda", "H100") is None
    other = replace(calibration, efficiency={"float32": 0.1, "bfloat16": 0.2})
    write_calibration(other, "cuda", "H100")
    assert (read_calibration("cpu"), read_calibration("cuda", "H100")) == (calibration, other)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"machine": {}}', '{"machine": 3, "efficiency": {}}'])
def test_a_damaged_calibration_counts_as_none(cache: Path, text: str) -> None:
    write_calibration(Calibration(MACHINE, {"float32": 0.5, "bfloat16": 0.25}), "cpu")
    kept(cache).write_text(text)
    assert read_calibration("cpu") is None
