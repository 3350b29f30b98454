from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tiny
from zeroth_order import main

COLUMNS = ("text", "label")


@pytest.fixture
def asked(tiny_llama: Path, tmp_path: Path) -> list[str]:
    rows = [{"text": row["prompt"], "label": row["completion"].split()[-1]} for row in tiny.toy_rows(160)]
    data = tiny.write_jsonl(tmp_path / "labels.jsonl", rows)
    kept = ["--keep", str(tmp_path / "kept"), "--results", str(tmp_path / "results.jsonl")]
    few = ["--tested", "8", "--validated", "8", "--batch", "4", "--points", "3"]
    return ["train", str(tiny_llama), "--data", str(data), *few, *kept]


def lines(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_an_interrupted_training_goes_on_with_what_it_kept(asked: list[str], tmp_path: Path) -> None:
    ways = ["--way", "mezo:40", "--fix", "learning_rate=0.001"]
    main([*asked, *ways])
    kept = tmp_path / "kept" / "mezo:40"
    points = (kept / "points.jsonl").read_text().splitlines()
    (kept / "points.jsonl").write_text(points[0] + "\n")  # as after a kill behind the first point
    main([*asked, *ways])
    base, whole, _, resumed = lines(tmp_path)
    assert base["way"] == "zero-shot"
    assert (whole["steps"], len(whole["losses"])) == (41, 3)
    exact = ("losses", "test_loss", "accuracy", "checkpoint_bytes", "skipped")
    assert [resumed[name] for name in exact] == [whole[name] for name in exact]


@pytest.mark.slow
def test_the_best_point_is_scored_beside_the_end(asked: list[str], tmp_path: Path) -> None:
    main([*asked, "--way", "mezo:40", "--fix", "learning_rate=0.01"])
    _, trained = lines(tmp_path)
    losses = dict(trained["losses"])
    lowest = min(losses, key=lambda step: losses[step])
    assert trained["best"]["step"] == lowest < trained["steps"], "this rate is too high to the end"
    assert trained["best"]["test_loss"] < trained["test_loss"]
