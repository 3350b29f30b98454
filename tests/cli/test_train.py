"""``tunecast train``: one pipeline to its end, as a session would have trained it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sessions import FLAGS, IN_PROCESS, Finished, call_main
from tunecast.store import Store


def test_an_incumbent_is_trained_again(
    finished_session: Finished,
    tiny_llama: Path,
    toy_data: Path,
    tmp_path: Path,
) -> None:
    pipeline = finished_session.result["incumbent"]["pipeline"]
    (tmp_path / "pipeline.json").write_text(json.dumps(pipeline))
    folder = tmp_path / "out"
    flags = ("--model", str(tiny_llama), "--data", str(toy_data), "--output-dir", str(folder))
    train = ("train", "--pipeline", str(tmp_path / "pipeline.json"), *flags, *FLAGS, *IN_PROCESS)
    code, out, err = call_main(*train, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["test"]["baseline"] is None
    assert result["incumbent"]["pipeline"] == pipeline
    assert result["test"]["incumbent"]["loss"] == pytest.approx(
        finished_session.result["test"]["incumbent"]["loss"], abs=1e-6
    )
    with Store.open(folder / "runs.sqlite", create=False) as store:
        runs = list(store.runs())
    assert [run.pipeline.method for run in runs] == ["zero-shot", pipeline["method"]]
    assert runs[1].outcome == "completed"
    assert "Training helped" in (folder / "best" / "README.md").read_text()
    assert "baseline" not in (folder / "best" / "README.md").read_text()
    code, out, _ = call_main(*train, "--resume")
    assert code == 0
    assert "incumbent" in out


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ('{"method": "lora", "lora_rank": 8}', ("no hyperparameter 'lora_rank'", "Did you mean lora_r?")),
        ('{"method": "lora", "lora_r": "high"}', ("lora_r=high: this is not a value",)),
        ('{"method": "lorra"}', ("no finetuning method 'lorra'", "Did you mean lora?")),
        ('{"method": "zero-shot", "hyperparameters": {}}', ("nothing to train", "incumbent")),
    ],
)
def test_a_file_that_no_model_can_be_trained_by(
    tiny_llama: Path,
    toy_data: Path,
    tmp_path: Path,
    content: str,
    parts: tuple[str, ...],
) -> None:
    (tmp_path / "p.json").write_text(content)
    flags = ("--model", str(tiny_llama), "--data", str(toy_data), "--output-dir", str(tmp_path / "out"))
    code, _, err = call_main("train", "--pipeline", str(tmp_path / "p.json"), *flags)
    assert (code, f"--pipeline {tmp_path / 'p.json'}" in err, "--fix" in err) == (2, True, False)
    for part in parts:
        assert part in err
    assert not (tmp_path / "out").exists()
