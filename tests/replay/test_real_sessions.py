"""The benchmark of whole sessions keeps apart what was measured in different settings."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

import tunecast
from tunecast.surrogates import load_prior


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("real_sessions")


def test_another_setting_is_another_result(benchmark: ModuleType) -> None:
    first = benchmark.Setting("models/a", "1k-tokens", 100, 1, "1 a")
    others = [
        benchmark.Setting("models/b", "1k-tokens", 100, 1, "1 a"),
        benchmark.Setting("models/a", "2k-tokens", 100, 1, "1 a"),
        benchmark.Setting("models/a", "1k-tokens", 50, 1, "1 a"),
        benchmark.Setting("models/a", "1k-tokens", 100, 2, "1 a"),
        benchmark.Setting("models/a", "1k-tokens", 100, 1, "1 b"),
    ]
    keys = [setting.key("t", "", "asha", 0) for setting in (first, *others)]
    keys += [first.key("u", "", "asha", 0), first.key("t", "bleu", "asha", 0), first.key("t", "", "asha", 1)]
    assert len(set(keys)) == len(keys)
    assert first.key("x/t", "", "asha", 0) == first.key("y/t", "", "asha", 0)


def test_a_folder_is_shortened_and_what_is_none_is_passed_on(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "colours").mkdir()
    for split in ("train", "test"):
        (tmp_path / "colours" / f"{split}.jsonl").write_text("{}\n" * 5)
    score = {"loss": 1.0}
    ended = {"winner": "expert", "incumbent": {"pipeline": {"method": "lora"}}, "budget": {"used_seconds": 9}}
    asked: list[tuple[str, int | None]] = []

    def session(*arguments: str) -> dict[str, object]:
        data = arguments[arguments.index("--data") + 1]
        rows = [len((Path(data) / "test.jsonl").read_text().splitlines()) for _ in range(Path(data).is_dir())]
        asked.append((Path(data).name, *(rows or [None])))
        return {**ended, "test": dict.fromkeys(("expert", "incumbent", "zero_shot"), score)}

    monkeypatch.setattr(benchmark, "_tunecast", session)
    setting = benchmark.Setting("models/a", "1k-tokens", 2, 1, "1 a")
    for data in ("stdlib", str(tmp_path / "colours")):
        setting.session(data, "", "asha", 0)
    assert asked == [("stdlib", None), ("colours", 2)]


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


def test_those_that_tie_share_rank_and_first_place(benchmark: ModuleType) -> None:
    losses = {"one": (2.0, 1.0), "two": (1.0, 1.0), "three": (1.0, 1.0)}
    found = {
        ("a", name, seed): {"loss": loss, "metric": None, "zero_shot": 5.0}
        for name, of_seeds in losses.items()
        for seed, loss in enumerate(of_seeds)
    }
    lines = benchmark.table(found, ["one", "two", "three"]).splitlines()
    assert lines[3] == "| best of a seed |  | 0.333 | 0.833 | 0.833 |"
    assert lines[4] == "| mean rank |  | 2.50 | 1.75 | 1.75 |"
    turned = benchmark.table(found, ["three", "two", "one"]).splitlines()
    assert turned[3] == "| best of a seed |  | 0.833 | 0.833 | 0.333 |"


def test_what_validation_chose_stands_beside_what_was_delivered(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = {
        "incumbent": {"pipeline": {"method": "lora", "learning_rate": 0.01}},
        "test": {"zero_shot": {"loss": 5.0}, "expert": {"loss": 2.0}, "incumbent": {"loss": 2.5}},
        "winner": "expert",
        "budget": {"used_seconds": 9},
        "score": {"metric": 0.5},
    }
    monkeypatch.setattr(benchmark, "_tunecast", lambda *arguments: told)
    (tmp_path / "a").mkdir()
    setting = benchmark.Setting("models/a", "1k-tokens", 100, 1, "1 a")
    found = {("a", "one", 0): setting.session(str(tmp_path / "a"), "token_f1", "one", 0)}
    assert benchmark.table(found, ["one"]).splitlines()[2] == "| a | 5.0000 | 2.0000 (0.500) |"
    chosen = benchmark.table(found, ["one"], benchmark.INCUMBENT).splitlines()
    assert chosen[2] == "| a | 5.0000 | 2.5000 |"


def test_a_result_says_by_what_code_and_prior_it_was_made(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = benchmark.made_by()
    assert first == benchmark.made_by()
    assert first.startswith(f"{tunecast.__version__} {load_prior().provenance.checksum[:12]} ")
    other = tmp_path / "prior"
    other.write_bytes(b"trained anew on the same runs")
    monkeypatch.setattr(benchmark, "shipped_prior", lambda: other)
    assert benchmark.made_by() != first
    monkeypatch.setattr(benchmark, "shipped_prior", lambda: None)
    assert "no prior" in benchmark.made_by()
