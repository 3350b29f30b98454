from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import tiny
from tunecast.methods import registry
from tunecast.models import load_model, resolve
from tunecast.progress import Silent
from tunecast.session.prepare import prepare_task
from tunecast.session.settings import SessionSettings
from tunecast.training.runner import Runner
from tunecast.training.training_task import TrainingTask
from tunecast_benchmarks.page_figures import MARK
from where_to_train import (
    ARMS,
    CONTROLS,
    KEPT,
    RATES,
    TASKS,
    Arm,
    Cell,
    arms,
    main,
    pipeline_of,
    show,
    trained,
)

RANDOM, LARGEST, LAYERS, LORA = CONTROLS


@pytest.fixture(autouse=True)
def methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry of the test's own: other tests must not meet the controls."""
    monkeypatch.setattr(registry._METHODS, "_plugins", dict(registry._METHODS.all()))


@pytest.fixture
def controls(methods: None) -> None:
    """The controls, registered."""
    for control in CONTROLS:
        registry.register(control)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_llama(tmp_path_factory.mktemp("model"), layers=4)


@pytest.fixture(scope="module")
def task(model: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingTask:
    file = tiny.write_jsonl(tmp_path_factory.mktemp("data") / "toy.jsonl", tiny.toy_rows(60))
    settings = SessionSettings(str(model), str(file), objective="loss", threads=1)
    return prepare_task(settings, Silent()).training_task


@pytest.fixture
def base(model: Path) -> torch.nn.Module:
    return load_model(resolve(str(model)), dtype=torch.float32, device="cpu")


@pytest.mark.usefixtures("controls")
@pytest.mark.parametrize("control", [RANDOM, LARGEST])
def test_a_mask_lets_a_fifth_of_each_matrix_through(
    control: object, base: torch.nn.Module, task: TrainingTask
) -> None:
    pipeline = pipeline_of(Arm("", control.name, {"keep_share": KEPT}), 1.0, task.facts)
    attached = control.attach(base, pipeline, 0)
    for parameter in attached.parameters():
        parameter.grad = torch.ones_like(parameter)
    control.before_update(attached, 1e-3)
    for parameter in attached.parameters():
        through = parameter.grad != 0
        if parameter.ndim == 1:
            assert through.all(), "vectors are not masked"
        else:
            assert float(through.float().mean()) == pytest.approx(KEPT, abs=0.05)
            if control is LARGEST:
                assert parameter[through].abs().min() >= parameter[~through].abs().max()


@pytest.mark.usefixtures("controls")
@pytest.mark.parametrize("control", [LAYERS, LORA])
def test_only_the_listed_layers_are_trained(
    control: object, base: torch.nn.Module, task: TrainingTask
) -> None:
    pipeline = pipeline_of(Arm("", control.name, {"layers": "[0, 2]"}), 1.0, task.facts)
    attached = control.attach(base, pipeline, 0)
    names = [name for name, parameter in attached.named_parameters() if parameter.requires_grad]
    layers = {name.split("layers.")[1].split(".")[0] for name in names if "layers." in name}
    assert layers == {"0", "2"}
    rest = [name for name in names if "layers." not in name]
    assert rest == (["model.norm.weight"] if control is LAYERS else [])


def test_controls_train_as_many_layers_and_parameters(task: TrainingTask) -> None:
    found = {arm.name: arm for seed in range(3) for arm in arms("layers", task, seed)}
    assert tuple(found) == ARMS["layers"]
    chosen = json.loads(str(found["full, semantic"].values["layers"]))
    assert chosen == list(range(chosen[0], 4))
    assert chosen[0] >= 2
    assert len(json.loads(str(found["full, random"].values["layers"]))) == len(chosen)
    assert found["lora, last"].values["layers"] == "[3]"
    assert tuple(arm.name for arm in arms("masks", task, 0)) == ARMS["masks"]
    assert tuple(arm.name for arm in arms("places", task, 0)) == ARMS["places"]


@pytest.mark.usefixtures("controls")
@pytest.mark.parametrize("study", list(ARMS))
def test_every_arm_learns(study: str, task: TrainingTask) -> None:
    runner = Runner(task)
    untouched = runner.score(None, 0, "test").score.loss
    for arm in arms(study, task, 0):
        found = trained(runner, arm, Cell(study, "m", "toy", arm.name, 1.0, 0))
        assert found["test"] < untouched, arm
        assert found["cpu"] > 0


def test_the_best_rate_of_each_seed_counts_and_known_runs_are_not_repeated(tmp_path: Path) -> None:
    known = {
        Cell("masks", "m", task, arm, rate, seed): {
            "validation": abs(rate - 1.0), "test": 2.0 + seed + rate, "cpu": 4.0, "values": {},
        }
        for task in TASKS for arm in ARMS["masks"] for rate in RATES for seed in range(2)
    }  # fmt: skip
    file, page = tmp_path / "results.jsonl", tmp_path / "page.md"
    file.write_text("".join(json.dumps({**asdict(cell), **out}) + "\n" for cell, out in known.items()))
    page.write_text(f"Before\n{MARK}\nold")
    main(["masks", "m", "--tasks", "nowhere", "--seeds", "2", "--results", str(file), "--page", str(page)])
    text = page.read_text()
    assert text.startswith(f"Before\n{MARK}\n\n### masks, m\n")
    assert "| gmt | 3.500 ± 0.707 (2) | 4.0 | 3.500 ± 0.707 (2) | 4.0 |" in text
    assert "old" not in text
    partial = {cell: out for cell, out in known.items() if cell.rate != RATES[0] or cell.seed}
    assert "| gmt | 4.000 | 4.0 | 4.000 | 4.0 |" in show(partial), "a seed without all rates does not count"


def test_only_the_named_tasks_are_trained_on(tmp_path: Path) -> None:
    cells = [Cell("masks", "m", TASKS[0], arm, rate, 0) for arm in ARMS["masks"] for rate in RATES]
    outcome = {"validation": 1.0, "test": 2.0, "cpu": 4.0, "values": {}}
    file, page = tmp_path / "results.jsonl", tmp_path / "page.md"
    file.write_text("".join(json.dumps({**asdict(cell), **outcome}) + "\n" for cell in cells))
    page.write_text(MARK)
    asked = ["masks", "m", "--tasks", "nowhere", "--seeds", "1", "--results", str(file), "--page", str(page)]
    main([*asked, "--only", TASKS[0]])
    assert "| gmt | 2.000 | 4.0 | - | - |" in page.read_text()
