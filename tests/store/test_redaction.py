"""A shareable export holds nothing of the machine, its people or the dataset's text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sample_runs import (
    sample_curve,
    sample_dataset,
    sample_machine,
    sample_model,
    sample_pipeline,
    sample_run,
    sample_score,
)
from tunecast.records import (
    FORECAST_ONLY,
    GuardAccuracy,
    GuardScore,
    Outcome,
    Run,
    RunError,
    Task,
    Versions,
    stable_hash,
)
from tunecast.store import Store, export_parquet, import_runs, open_for_reading, shipped
from tunecast.store.codec import loads
from tunecast.store.export_allowlist import (
    CONFIG_NUMBERS,
    CONFIG_PARTS,
    CONFIG_WORDS,
    HYPERPARAMETER_NUMBERS,
    HYPERPARAMETER_WORDS,
)
from tunecast.store.parquet import read_export
from tunecast.store.redaction import shared_name, shared_session

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
        "user": SECRET,
        "hostname": f"{SECRET}-box-3",
        f"{SECRET}_size": 3,
        "hidden_act": f"{SECRET}.corp.example.com",
        "head_dim": SECRET,
    }
    return sample_run(
        1,
        session=f"{SECRET}@host",
        task=Task(f"{home}/colours.jsonl", f"{home}/smollm2"),
        dataset=dataset,
        model=sample_model(f"{home}/smollm2", config=config, weights_hash=f"{SECRET}!"),
        machine=sample_machine(device="cpu"),
        pipeline=sample_pipeline(
            adapter=f"{home}/adapter",
            target_modules="q_proj,v_proj",
            note=f"{SECRET} ran this on gpu-box-3.corp.example.com",
            optim=f"C:\\Users\\{SECRET}\\adapter",
            init_lora_weights=f"{SECRET}.corp.example.com",
            lora_bias=SECRET,
            user=SECRET,
            **{f"{SECRET}_alpha": 3},
        ),
        validation_hash=f"{home}",
        versions=Versions("0.1.0", f"3.11 ({SECRET} build)", "2.13.0+cpu", "5.23.0", "0.21.2"),
        outcome=Outcome.FAILED,
        error=RunError("OSError", f"No such file: {home}"),
        test=sample_score(1.5, metric=0.5, metric_name=f"my {SECRET} metric"),
        extra={
            **FORECAST_ONLY,
            "number": 7,
            "epochs": {SECRET: 2},
            "train_loss": [[8, 2.5], SECRET],
            f"{SECRET}_patients": 3,
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


def test_learnable_content_is_kept(shared: Run) -> None:
    run = _secretive_run()
    for name in ("id", "seed", "full_length_tokens", "unique_examples", "created_at", "machine", "outcome"):
        assert getattr(shared, name) == getattr(run, name)
    assert shared.task == Task(shared_name(run.task.dataset), shared_name(run.task.model))
    assert (shared.dataset.name, shared.model.name) == (shared.task.dataset, shared.task.model)
    assert [point.validation for point in shared.curve] == [point.validation for point in run.curve]
    assert shared.curve[1].training == run.curve[1].training
    assert shared.error == RunError("OSError", "")
    assert shared.pipeline == sample_pipeline(target_modules="q_proj,v_proj")
    assert shared.test is not None
    assert shared.test.metric == 0.5
    assert re.fullmatch("[0-9a-f]{12}", shared.test.metric_name)
    assert shared.versions.torch == "2.13.0+cpu"
    kept = {"number": 7, "train_loss": [[8, 2.5]], "source": "csv", "unknown": ["seconds"]}
    assert shared.extra == kept | FORECAST_ONLY
    assert not shared.is_candidate


def test_what_guards_say_is_shared_without_private_names(tmp_path: Path) -> None:
    accuracy = GuardAccuracy(0.5, 0.25, -0.5, 0.0)
    public = GuardScore("arc_easy", 40, 2.0, 2.5, 0.25, 0.75, accuracy, "0123456789abcdef")
    private = replace(public, guard=f"data/{SECRET}", accuracy=None, examples_hash=SECRET)
    run = sample_run(1).with_guards([(8, public), (16, private)])
    shared = _shared_again(run, tmp_path)
    (first, second) = shared.guard_scores
    assert first == (8, public)
    assert second[0] == 16
    assert SECRET not in repr(second)
    assert replace(second[1], guard="", examples_hash="") == replace(private, guard="", examples_hash="")


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


PLACES = ("/home/alice", "~alice", "~/b", "./b", "..", "C:\\Users\\alice", "C:b", "a/b/c", "data/acme_secret")
HOST = "gpu-box-3.corp.example.com"
HOSTS = (
    HOST,
    "192.168.1.20",
    "10.0.0.7",
    "gpu.3.example.com",
    "alice.laptop",
    "box.local",
    "3.corp",
    "v2.corp",
)
SECRETS = (*PLACES, *HOSTS, "s3://bucket/x", "acme/x.jsonl", "google/", "alice@box", "My patients", "a" * 81)


@pytest.mark.parametrize("name", SECRETS)
def test_names_that_may_be_somebodys_become_hashes(name: str) -> None:
    assert shared_name(name) == stable_hash(name, 12)
    assert shared_name(shared_name(name)) == shared_name(name)


KNOWN = ("", "colours", "colours.v2", "SmolLM2-135M.Q4_1", "phi-1.5", "Qwen2.5-0.5B-Instruct")


@pytest.mark.parametrize("name", [*KNOWN, "HuggingFaceTB/SmolLM2-135M", "google/t5.x"])
def test_names_that_anybody_may_know_stay(name: str) -> None:
    assert shared_name(name) == name


def _shared_again(run: Run, tmp_path: Path) -> Run:
    """The run as an export of it gives it back."""
    path = tmp_path / "one.parquet"
    with Store.open(":memory:") as store:
        store.put(run)
        export_parquet(store, path)
    with open_for_reading(path) as store:
        return next(store.runs())


def test_a_host_does_not_pass_as_a_word(tmp_path: Path) -> None:
    score = sample_score(1.5, metric=0.5, metric_name=HOST)
    run = sample_run(
        1,
        task=Task(HOST, HOST, HOST),
        dataset=sample_dataset(HOST, format=HOST),
        model=sample_model(HOST, family=HOST),
        machine=sample_machine(device=HOST),
        pipeline=sample_pipeline(HOST, optim=HOST),
        versions=Versions(HOST, f"3.{HOST}", "3.corp.example.com", "5.23.0", HOST),
        dtype=HOST,
        curve=tuple(replace(point, validation=score) for point in sample_curve()),
        outcome=Outcome.FAILED,
        error=RunError(HOST, ""),
        test=score,
        extra={"source": HOST, "unknown": [HOST]},
    )
    shared = _shared_again(run, tmp_path)
    assert "corp" not in repr(shared)
    assert (shared.pipeline.method, shared.dtype, shared.versions.transformers) == ("", "", "5.23.0")
    assert _shared_again(shared, tmp_path) == shared


@pytest.mark.parametrize(
    "version",
    ["2.13.0+cpu", "5.0.0.dev0", "3.14.0rc1", "3.12.1+", "2.9.0a0+git1a2b3c", "2.6.0a0+ecf3bae40a.nv25.01"],
)
def test_versions_are_kept(tmp_path: Path, version: str) -> None:
    versions = Versions("0.1.0.dev3+g1a2b3c.d20260101", version, version, version, version)
    assert _shared_again(sample_run(1, versions=versions), tmp_path).versions == versions


def test_words_of_programs_are_kept(tmp_path: Path) -> None:
    score = sample_score(1.5, metric=0.5, metric_name="scoring:accuracy")
    run = sample_run(1, machine=sample_machine(device="cuda:1"), test=score)
    shared = _shared_again(run, tmp_path)
    assert (shared.machine, shared.test) == (run.machine, score)


def test_every_number_beside_the_fields_of_a_run_is_permitted(tmp_path: Path) -> None:
    from tunecast.session.trial import RETRAINED
    from tunecast.store.importing.identity import log_identity
    from tunecast.training.measurement import HELD_BEFORE

    extra = {"number": 3, "shared": True, "test_tokens": 12, RETRAINED: 5, HELD_BEFORE: 6, "epochs": 1.5}
    extra |= log_identity(["max_steps"], [{"step": 1, "loss": 2.5}], {"seed": 1})
    run = sample_run(1, extra=extra | {"train_loss": [[1.0, 2.5]], "metric_error": "ValueError"})
    assert _shared_again(run, tmp_path).extra == run.extra


TOLD = ("Alice ran this on gpu-box-3.corp.example.com", "The patient has (severe) asthma", "C:\\Users\\alice")


@pytest.mark.parametrize("told", TOLD)
@pytest.mark.parametrize("name", ["comments", "target_modules"])
def test_text_of_a_table_is_not_exported(tmp_path: Path, told: str, name: str) -> None:
    (tmp_path / "runs.csv").write_text(f"run,loss,learning_rate,note\na,1.5,0.001,{told}\n")
    with Store.open(":memory:") as store:
        import_runs(tmp_path / "runs.csv", store, mapping={name: "note"})
        assert next(store.runs()).pipeline[name] == told
        export_parquet(store, tmp_path / "x.parquet")
    with open_for_reading(tmp_path / "x.parquet") as store:
        assert next(store.runs()).pipeline.hyperparameters == {"learning_rate": 0.001}


def test_sessions_keep_their_names_when_an_export_is_exported(tmp_path: Path) -> None:
    with Store.open(":memory:") as store:
        store.put_all([sample_run(n, session=f"plan-{n % 2}") for n in range(4)])
        export_parquet(store, tmp_path / "first.parquet")
    with Store.open(":memory:") as store:
        store.put(sample_run(9, session="plan-1"))
        import_runs(tmp_path / "first.parquet", store)
        export_parquet(store, tmp_path / "second.parquet")
    with open_for_reading(tmp_path / "second.parquet") as store:
        sessions = [run.session for run in store.runs()]
    even, odd = shared_session("plan-0"), shared_session("plan-1")
    assert sessions == [even, odd, even, odd, odd]


def test_every_hyperparameter_of_a_method_or_an_importer_is_permitted() -> None:
    from tunecast.methods import get_method, method_names
    from tunecast.methods.restrictions import Restrictions
    from tunecast.methods.space import USUAL_MODEL, pipeline_space
    from tunecast.store.importing import arguments, csv_runs

    read = set(arguments.TRAINING_NAMES) | set(csv_runs._KNOWN_HYPERPARAMETERS)
    read |= {name for names in arguments._PEFT_NAMES.values() for name in names if name != "r"}  # r is lora_r
    own = {
        parameter.name
        for name in method_names()
        for parameter in get_method(name).hyperparameters(USUAL_MODEL)
    }
    space = pipeline_space(USUAL_MODEL, Restrictions(("lora", "full")))
    common = {name.partition(":")[2].partition("@")[0] for name in space if ":" in name}
    assert read | own | common <= HYPERPARAMETER_NUMBERS | HYPERPARAMETER_WORDS


def test_every_part_of_a_configuration_that_tunecast_reads_is_permitted() -> None:
    from tunecast.methods.trainable_tokens import MARKS
    from tunecast.models.layer_specs import DEVIATING_FIELDS
    from tunecast.store.importing.model_config import KNOWN_NAMES

    read = {*KNOWN_NAMES, *MARKS, *(name for names in DEVIATING_FIELDS.values() for name in names)}
    read |= {"head_dim", "d_kv", "num_decoder_layers", "decoder_layers", "word_embed_proj_dim"}
    assert read <= CONFIG_NUMBERS | CONFIG_WORDS


def _shipped_rows(path: Path | None = None) -> list[dict[str, Any]]:
    """The rows of the shipped file, or another export, without points."""
    source = path or shipped()
    assert source is not None
    rows: list[dict[str, Any]] = read_export(source).drop_columns(["points"]).to_pylist()
    return rows


def test_redacting_the_shipped_runs_again_changes_nothing(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    source = shipped()
    assert source is not None
    path = tmp_path / "again.parquet"
    with open_for_reading(source) as store:
        export_parquet(store, path)
    before, after = _shipped_rows(), _shipped_rows(path)
    for column in before[0]:
        assert [row[column] for row in after] == [row[column] for row in before], column
    # The checksum covers the points too, in which not every number equals itself.
    assert pq.read_metadata(path).metadata == pq.read_metadata(source).metadata


def _texts(value: Any) -> Iterator[str]:
    """All names and texts in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        yield from (text for inner in value.values() for text in _texts(inner))
    elif isinstance(value, list):
        yield from (text for inner in value for text in _texts(inner))


def test_the_shipped_runs_contain_only_permitted_words() -> None:
    words = re.compile(r"[A-Za-z0-9_.+,-]{0,80}")
    for row in _shipped_rows():
        parsed = {name: loads(text) for name, text in row.items() if str(text).startswith(("{", "["))}
        values = parsed["hyperparameters"]
        assert values.keys() <= HYPERPARAMETER_NUMBERS | HYPERPARAMETER_WORDS
        assert {n for n, value in values.items() if isinstance(value, str)} <= HYPERPARAMETER_WORDS
        config = parsed["model_facts"]["config"]
        inner = {name for part in CONFIG_PARTS for name in config.get(part, ())}
        assert config.keys() | inner <= CONFIG_NUMBERS | CONFIG_WORDS | CONFIG_PARTS
        assert [text for text in _texts(row | parsed) if not words.fullmatch(text)] == []
