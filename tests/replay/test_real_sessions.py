"""The benchmark of whole sessions keeps apart what was measured in different settings."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("real_sessions")


def test_another_setting_is_another_result(benchmark: ModuleType) -> None:
    first = benchmark.Setting("models/a", "1k-tokens", 100)
    others = [
        benchmark.Setting("models/b", "1k-tokens", 100),
        benchmark.Setting("models/a", "2k-tokens", 100),
        benchmark.Setting("models/a", "1k-tokens", 50),
    ]
    keys = [setting.key("t", "", "asha", 0) for setting in (first, *others)]
    keys += [first.key("u", "", "asha", 0), first.key("t", "bleu", "asha", 0), first.key("t", "", "asha", 1)]
    assert len(set(keys)) == len(keys)
    assert first.key("x/t", "", "asha", 0) == first.key("y/t", "", "asha", 0)


def test_the_table_says_who_was_best(benchmark: ModuleType) -> None:
    def result(loss: float, metric: float | None = None) -> dict[str, object]:
        return {"loss": loss, "metric": metric, "zero_shot": 5.0}

    found = {
        ("a", "one", 0): result(1.0, 0.5),
        ("a", "two", 0): result(2.0, 0.25),
        ("a", "one", 1): result(3.0, 0.7),
        ("a", "two", 1): result(2.5, 0.75),
        ("b", "one", 0): result(1.0),
        ("b", "two", 0): result(1.5),
        ("b", "one", 1): result(1.0),
        ("b", "two", 1): result(1.5),
    }
    lines = benchmark.table(found, ["one", "two"]).splitlines()
    assert lines[2] == "| a | 5.0000 | 2.0000 (0.600) | 2.2500 (0.500) |"
    assert lines[3] == "| b | 5.0000 | 1.0000 | 1.5000 |"
    assert lines[4] == "| best of a seed |  | 3 | 1 |"
    assert lines[5] == "| mean rank |  | 1.25 | 1.75 |"
