"""A shareable export holds nothing of the machine, its people or the dataset's text."""

from __future__ import annotations

from pathlib import Path

import pytest

from sample_runs import (
    sample_dataset,
    sample_machine,
    sample_model,
    sample_pipeline,
    sample_run,
    sample_score,
)
from tunecast.records import Outcome, Run, RunError, Task, Versions
from tunecast.store import Store, export_parquet, open_for_reading
from tunecast.store.sharing import looks_like_path

SECRET = "zaphod"


def _secretive_run() -> Run:
    """A run with the secret in every text of every field that takes any text."""
    home = f"/home/{SECRET}/data"
    dataset = sample_dataset(
        f"{home}/colours.jsonl",
        fingerprint=f"{SECRET}",
        examples={"train": 4, SECRET: 1},
        facts={
            "first": f"The secret is {SECRET}",
            "prompt": {"mean": 4.5, "texts": [SECRET, 3], f"labels of {SECRET}": 4},
            "labels": {SECRET: 4},
            "conversation": {"turns": {"0": 3, "128": 5}},
            "token_unit": "words",
        },
        meta_features={"mean": 1.5},
    )
    config = {
        "_name_or_path": f"{home}/model",
        "hidden_size": 576,
        "model_type": "llama",
        "id2label": {"0": SECRET},
        "auto_map": {"AutoModel": f"{home}--modeling.{SECRET} x"},
        "rope_scaling": {"rope_type": "linear", "factor": 2.0, "cache_dir": SECRET},
        "architectures": ["LlamaForCausalLM", f"{home}/x"],
        "task_specific_params": {"a": {"prefix": SECRET}},
    }
    return sample_run(
        1,
        session=f"{SECRET}@host",
        task=Task(f"{home}/colours.jsonl", f"{home}/smollm2"),
        dataset=dataset,
        model=sample_model(f"{home}/smollm2", config=config, weights_hash=f"{SECRET}!"),
        machine=sample_machine(device="cpu"),
        pipeline=sample_pipeline(adapter=f"{home}/adapter", lora_target_modules="q_proj,v_proj"),
        validation_hash=f"{home}",
        versions=Versions("0.1.0", f"3.11 ({SECRET} build)", "2.13.0+cpu", "5.23.0", "0.21.2"),
        outcome=Outcome.FAILED,
        error=RunError("OSError", f"No such file: {home}"),
        test=sample_score(1.5, metric=0.5, metric_name=f"my {SECRET} metric"),
        extra={
            "source": "csv",
            "unknown": ["seconds", f"of {SECRET}"],
            "host": SECRET,
            "retries": 2,
            "nested": {"user": SECRET, "n": [1, SECRET]},
        },
    )


@pytest.fixture
def shared(tmp_path: Path) -> Run:
    path = tmp_path / "shared.parquet"
    with Store.open(":memory:") as store:
        store.put(_secretive_run())
        export_parquet(store, path)
    assert SECRET.encode() not in path.read_bytes()
    with open_for_reading(path) as store:
        return next(store.runs())


def test_no_secret_is_left_anywhere(shared: Run) -> None:
    assert SECRET not in repr(shared)
    assert "/home" not in repr(shared)


def test_what_can_be_learned_from_is_kept(shared: Run) -> None:
    run = _secretive_run()
    for name in ("id", "seed", "full_length_tokens", "unique_examples", "created_at", "machine", "outcome"):
        assert getattr(shared, name) == getattr(run, name)
    assert shared.task == Task("colours.jsonl", "smollm2")
    assert [point.validation for point in shared.curve] == [point.validation for point in run.curve]
    assert shared.curve[1].training == run.curve[1].training
    assert shared.error == RunError("OSError", "")
    assert shared.pipeline["learning_rate"] == run.pipeline["learning_rate"]
    assert shared.pipeline["lora_target_modules"] == "q_proj,v_proj"
    assert shared.test is not None
    assert (shared.test.metric, shared.test.metric_name) == (0.5, "")
    assert shared.versions.torch == "2.13.0+cpu"
    kept = {"retries": 2, "nested": {"n": [1]}, "source": "csv", "unknown": ["seconds"]}
    assert shared.extra == kept


def test_facts_are_kept_as_numbers(shared: Run) -> None:
    assert shared.dataset.facts == {
        "prompt": {"mean": 4.5, "texts": [3]},
        "conversation": {"turns": {"0": 3, "128": 5}},
        "token_unit": "words",
    }
    assert shared.dataset.examples == {"train": 4}
    assert shared.dataset.meta_features == {"mean": 1.5}
    assert shared.model.parameters == sample_model().parameters
    assert shared.model.config == {
        "hidden_size": 576,
        "model_type": "llama",
        "auto_map": {},
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "architectures": ["LlamaForCausalLM"],
    }


def test_an_ordinary_run_is_shared_whole(tmp_path: Path) -> None:
    run = sample_run(1, model=sample_model("HuggingFaceTB/SmolLM2-135M", weights_hash="0a" * 8))
    with Store.open(":memory:") as store:
        store.put(run)
        export_parquet(store, tmp_path / "x.parquet")
    with open_for_reading(tmp_path / "x.parquet") as store:
        got = next(store.runs())
    for name in ("task", "pipeline", "dataset", "model", "machine", "versions", "validation", "test"):
        assert getattr(got, name) == getattr(run, name)


def test_every_fact_that_tunecast_collects_of_a_dataset_is_shared(tmp_path: Path, toy_data: Path) -> None:
    from tunecast.data import describe, read

    facts = describe(read(str(toy_data)))
    with Store.open(":memory:") as store:
        store.put(sample_run(1, dataset=facts))
        export_parquet(store, tmp_path / "x.parquet")
    with open_for_reading(tmp_path / "x.parquet") as store:
        assert next(store.runs()).dataset == facts


@pytest.mark.parametrize(
    "name",
    ["/a/b", "~/b", "./b", "../b", "C:\\b", "a\\b", "a/b/c", "data/x.jsonl", "s3://bucket/x", "sqlite:///x"],
)
def test_paths(name: str) -> None:
    assert looks_like_path(name)


@pytest.mark.parametrize("name", ["colours", "org/name", "org/name-1.5B", "colours.jsonl", "SmolLM2-135M"])
def test_names(name: str) -> None:
    assert not looks_like_path(name)
