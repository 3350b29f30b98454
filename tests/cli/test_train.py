"""``tunecast train``: one pipeline to its end, as a session would have trained it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tiny
from sessions import FLAGS, IN_PROCESS, Finished, call_main, unfinish
from tunecast import models
from tunecast.methods import BASELINE
from tunecast.records import Pipeline
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
    assert pipeline.items() <= result["incumbent"]["pipeline"].items(), "what is missing has its usual value"
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


def test_a_method_without_a_file_stops_where_validation_no_longer_improves(
    tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    """At a rate of next to nothing all points are equal, so the first stays the best."""
    folder = tmp_path / "out"
    chosen = ("--method", "lora", "--fix", "lora_r=2", "--fix", "learning_rate=1e-30", "--patience", "2")
    flags = ("--model", str(tiny_llama), "--data", str(toy_data), "--output-dir", str(folder))
    train = ("train", *chosen, *flags, "--epochs", "4", *FLAGS, *IN_PROCESS)
    code, out, err = call_main(*train, "--json")
    assert code == 0, err
    with Store.open(folder / "runs.sqlite", create=False) as store:
        (run,) = [run for run in store.runs() if run.is_candidate]
    assert run.pipeline == Pipeline("lora", {**BASELINE.hyperparameters, "lora_r": 2, "learning_rate": 1e-30})
    assert len(run.curve) == 3
    first, _, last = (point.step for point in run.curve)
    result = json.loads(out)
    assert result["training"]["incumbent"]["steps"] == first
    stopped = f"Training stopped early at step {last} of {run.total_steps}: for 2 points"
    assert any(warning.startswith(stopped) for warning in result["warnings"])
    assert f"step 0 of {run.total_steps}, " in err
    for beside_the_point in ("budget ", "Predicted", "worth it", "candidates", "per trial"):
        assert beside_the_point not in err
    unfinish(folder, keep=2)
    code, out, err = call_main(*train, "--resume", "--json")
    assert code == 0, err
    assert f"Going on after step {last} of {run.total_steps}, best validation loss" in err
    assert json.loads(out)["training"] == result["training"]


def test_a_method_that_the_model_has_no_room_for_is_one_message(tiny_gpt2: Path, tmp_path: Path) -> None:
    tokenizer = models.load_tokenizer(models.resolve(str(tiny_gpt2)))
    words = next(n for n in range(1, 200) if len(tokenizer("blue " * n).input_ids) > 118)
    rows = [{"prompt": "blue " * words + str(number), "completion": "red"} for number in range(20)]
    rows += [{"prompt": "blue " * words + str(number), "completion": "green"} for number in range(20, 40)]
    data = tiny.write_jsonl(tmp_path / "long.jsonl", rows)
    flags = ("--method", "prompt_tuning", "--model", str(tiny_gpt2), "--data", str(data), *IN_PROCESS)
    code, _, err = call_main("train", *flags, "--output-dir", str(tmp_path / "out"))
    assert code == 2
    assert "prompt_tuning cannot train this model on these data" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("chosen", "parts"),
    [
        ((), ("--pipeline and --method are missing", "--method lora --fix lora_r=16")),
        (("--method", "lora", "--pipeline", "p.json"), ("are both given",)),
        (("--method", "lorra"), ("no finetuning method 'lorra'", "Did you mean lora?")),
        (("--method", "lora", "--fix", "lr=1e-4"), ("'lr' for lora", "Did you mean learning_rate?")),
        (("--method", "full", "--fix", "lora_r=4"), ("'lora_r' for full",)),
        (("--method", "lora", "--patience", "0"), ("--patience must be at least 1",)),
    ],
)
def test_what_to_train_must_be_said_once(
    tmp_path: Path, chosen: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    flags = ("--model", "smollm2", "--data", "stdlib", "--output-dir", str(tmp_path / "out"))
    code, _, err = call_main("train", *chosen, *flags)
    assert code == 2
    for part in parts:
        assert part in err
    assert not (tmp_path / "out").exists()


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
