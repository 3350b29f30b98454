from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tunecast.collect.planfile import DatasetChoice, ModelChoice, Plan, read_plan
from tunecast.collect.run_specs import RunSpec, expand
from tunecast.errors import ConfigurationError, DataError, ModelError
from tunecast.hardware.dtype import COMPUTE_DTYPES
from tunecast.progress import Silent

MODELS = [
    {"path": "{world}/models/narrow", "runs_per_dataset": 23},
    {"path": "{world}/models/wide", "runs_per_dataset": 13},
]


@pytest.fixture
def plan(write_plan: Callable[..., Path], roots: dict[str, str]) -> Plan:
    return read_plan(write_plan(models=MODELS), roots)


def _one_dtype(dtype: str, device: str, width: int) -> str:
    return dtype


def listed(plan: Plan) -> list[RunSpec]:
    return expand(plan, device="cpu", progress=Silent()).run_specs


def test_ids_are_unique_and_the_same_each_time(plan: Plan) -> None:
    run_specs = listed(plan)
    assert len({run_spec.id for run_spec in run_specs}) == len(run_specs) == 3 * (23 + 13)
    assert [run_spec.id for run_spec in run_specs] == [run_spec.id for run_spec in listed(plan)]


def test_what_changes_a_run_changes_its_id(plan: Plan) -> None:
    ids = {run_spec.id for run_spec in listed(plan)}
    assert ids.isdisjoint(run_spec.id for run_spec in listed(plan.model_copy(update={"exclusive": True})))
    assert ids.isdisjoint(run_spec.id for run_spec in listed(plan.model_copy(update={"seeds": (7, 8)})))


@pytest.mark.parametrize("exclusive", [False, True])
def test_processors_of_different_dtypes_recognise_each_others_runs(
    plan: Plan, exclusive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan.model_copy(update={"exclusive": exclusive})
    by_dtype = {}
    for dtype in COMPUTE_DTYPES:
        monkeypatch.setattr("tunecast.collect.run_specs.choose_dtype", partial(_one_dtype, dtype))
        by_dtype[dtype] = listed(plan)
    for one, other in zip(*by_dtype.values(), strict=True):
        assert one.id != other.id
        # Seconds in another dtype say nothing about this processor.
        assert one.in_other_dtypes == (() if exclusive else (other.id,))
        assert other.in_other_dtypes == (() if exclusive else (one.id,))


def test_zero_shot_and_baselines_are_always_there(plan: Plan) -> None:
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for run_spec in listed(plan):
        if run_spec.number < 0:
            rate = run_spec.pipeline.hyperparameters.get("learning_rate")
            found[run_spec.model, run_spec.dataset.path].append(f"{run_spec.pipeline.method} {rate}")
            assert run_spec.measures_metric == (run_spec.dataset.metric != "loss")
    assert len(found) == 6
    assert {tuple(sorted(names)) for names in found.values()} == {
        ("lora 0.0002", "lora 0.0003", "zero-shot None")
    }


def test_the_untouched_model_comes_first_on_every_dataset(plan: Plan) -> None:
    for always in (plan.always, tuple(reversed(plan.always))):
        begun: set[tuple[str, str]] = set()
        for run_spec in listed(plan.model_copy(update={"always": always})):
            where = (run_spec.model, run_spec.dataset.path)
            assert (where in begun) == (run_spec.pipeline.method != "zero-shot")
            begun.add(where)


def test_most_pipelines_are_shared_by_all_datasets(plan: Plan) -> None:
    by_pipeline: dict[tuple[str, str], set[str]] = defaultdict(set)
    drawn = [run_spec for run_spec in listed(plan) if run_spec.number >= 0]
    for run_spec in drawn:
        by_pipeline[run_spec.model, run_spec.pipeline.id].add(run_spec.dataset.path)
    assert sum(run_spec.shared for run_spec in drawn) / len(drawn) == pytest.approx(0.6, abs=0.01)
    for run_spec in drawn:
        assert len(by_pipeline[run_spec.model, run_spec.pipeline.id]) == (3 if run_spec.shared else 1)


def test_subset_sizes_follow_the_dataset(plan: Plan) -> None:
    sizes: dict[str, set[int]] = defaultdict(set)
    for run_spec in listed(plan):
        sizes[Path(run_spec.dataset.path).name].add(run_spec.unique_examples)
    assert sizes == {"apples": {16, 32, 60}, "houses": {16, 32, 60}, "rivers": {16, 24}}


def test_runs_get_enough_steps(plan: Plan) -> None:
    lengths = {2000: 1.0, 8000: 1.0, 32000: 1.0}
    for least in (1, 16, 60):
        for run_spec in listed(plan.model_copy(update={"least_steps": least, "full_lengths": lengths})):
            batch = run_spec.pipeline.number("per_device_train_batch_size")
            if run_spec.number >= 0:
                assert run_spec.full_length_tokens / (43 * batch) >= 0.75 * least
    drawn = listed(plan.model_copy(update={"least_steps": 10_000}))
    assert {run_spec.full_length_tokens for run_spec in drawn} == {1600}
    assert {c.pipeline.number("per_device_train_batch_size") for c in drawn if c.number >= 0} == {4}


def test_every_prefix_is_balanced(plan: Plan) -> None:
    run_specs = listed(plan)
    for count in range(24, len(run_specs) + 1, 12):
        part = run_specs[:count]
        datasets = Counter(run_spec.dataset.path for run_spec in part)
        assert max(datasets.values()) - min(datasets.values()) <= 2 * plan.chunk
        models = Counter(Path(run_spec.model).name for run_spec in part)
        assert abs(models["narrow"] - count * 23 / 36) <= 2 * plan.chunk
        drawn = [run_spec for run_spec in part if run_spec.number >= 0]
        for value in (
            lambda run_spec: run_spec.pipeline.method,
            lambda run_spec: run_spec.full_length_tokens,
            lambda run_spec: run_spec.seed,
        ):
            counts = Counter(map(value, drawn))
            assert min(counts.values()) >= 0.3 * len(drawn), (count, counts)


def test_a_chunk_is_one_model_and_one_dataset(plan: Plan) -> None:
    for chunk in expand(plan, device="cpu", progress=Silent()).chunks:
        assert 1 <= len(chunk) <= plan.chunk
        assert len({(run_spec.model, run_spec.dataset) for run_spec in chunk}) == 1


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, text: str) -> None:
        self.lines.append(text)


def test_what_cannot_be_used_is_told_once_and_changes_no_other_run(plan: Plan, tmp_path: Path) -> None:
    apples, houses, rivers = plan.datasets
    narrow, wide = plan.models
    expected = [c for c in listed(plan) if c.dataset != houses and c.model != narrow.path]
    assert len(expected) == 2 * wide.runs_per_dataset
    gone, empty = str(tmp_path / "gone"), str(tmp_path)
    datasets = (apples, houses.model_copy(update={"path": gone}), rivers)
    models = (narrow.model_copy(update={"path": empty}), wide)
    said = Said()
    expansion = expand(
        plan.model_copy(update={"datasets": datasets, "models": models}), device="cpu", progress=said
    )
    assert expansion.run_specs == expected
    assert expansion.unusable == 3 * (23 + 13) - len(expected)
    assert len(said.lines) == 2
    assert gone in said.lines[0]
    assert empty in said.lines[1]


def test_a_base_model_that_a_method_cannot_train_is_left_out(
    write_plan: Callable[..., Path], roots: dict[str, str], tiny_gpt2: Path
) -> None:
    methods = {"methods": {"lora": 1, "oft": 1}}
    alone = read_plan(write_plan(pipelines=methods), roots)
    gpt2 = ModelChoice(path=str(tiny_gpt2), runs_per_dataset=4)
    said = Said()
    both = expand(alone.model_copy(update={"models": (*alone.models, gpt2)}), device="cpu", progress=said)
    assert {run_spec.id for run_spec in both.run_specs} == {run_spec.id for run_spec in listed(alone)}
    assert both.unusable == 3 * 4
    assert "the method oft of the plan small cannot be used" in said.lines[0].lower()
    with pytest.raises(ConfigurationError, match="The method oft of the plan small"):
        listed(alone.model_copy(update={"models": (gpt2,)}))


def test_a_plan_of_which_nothing_can_be_used_is_an_error(plan: Plan, tmp_path: Path) -> None:
    gone = DatasetChoice(path=str(tmp_path / "gone"))
    with pytest.raises(DataError, match="gone"):
        listed(plan.model_copy(update={"datasets": (gone,)}))
    empty = ModelChoice(path=str(tmp_path), runs_per_dataset=5)
    with pytest.raises(ModelError):
        listed(plan.model_copy(update={"models": (empty,)}))


def test_a_grid_has_every_pipeline_at_every_amount(
    write_plan: Callable[..., Path], roots: dict[str, str]
) -> None:
    grid = [
        {"method": "full", "rate": 0.2},
        {"method": "lora", "rate": 1, "hyperparameters": {"lora_r": 4, "lora_alpha": 8}},
    ]
    models = [{**model, "runs_per_dataset": 99} for model in MODELS]
    plan = read_plan(write_plan(models=models, pipelines={"grid": grid}), roots)
    found = Counter(
        (c.model, Path(c.dataset.path).name, c.pipeline.id, c.unique_examples, c.full_length_tokens, c.seed)
        for c in listed(plan)
    )
    assert set(found.values()) == {1}
    # Two base models, two pipelines, two lengths, two seeds; the smallest dataset has fewer subset sizes.
    assert Counter(key[1] for key in found) == {"apples": 48, "houses": 48, "rivers": 32}
    low_rank = [run_spec for run_spec in listed(plan) if run_spec.pipeline.method == "lora"]
    assert {run_spec.pipeline["lora_r"] for run_spec in low_rank} == {4}
    rates = {Path(run_spec.model).name: run_spec.pipeline.number("learning_rate") for run_spec in low_rank}
    assert rates["narrow"] > rates["wide"]
