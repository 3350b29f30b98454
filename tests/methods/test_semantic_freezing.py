"""Semantic freezing: the measure on planted models, the choice, and that it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
import workshop
from tunecast import models
from tunecast.methods import get_method, semantic_freezing
from tunecast.methods.layers import layer_stack
from tunecast.methods.semantic_freezing import answer_points, best_cut, deviations
from tunecast.training.base_fingerprint import fingerprint
from tunecast.training.checkpoint import CheckpointFolder
from tunecast.training.runner import Runner

METHOD = get_method("semantic_freezing")
LAYERS = 6


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_llama(tmp_path_factory.mktemp("deep"), layers=LAYERS)


def base_of(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    return models.load_model(models.resolve(str(folder)), dtype=dtype, device="cpu")


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_an_answers_point_has_its_token_as_the_likeliest(family: str, request: pytest.FixtureRequest) -> None:
    base = base_of(request.getfixturevalue(f"tiny_{family}"))
    head = base.get_output_embeddings().weight
    tokens = list(range(0, len(head), 7))
    logits = answer_points(base, tokens) @ head.T
    assert (logits.argmax(1) == torch.tensor(tokens)).float().mean() >= 0.99
    expected = torch.linalg.pinv(head.detach().double())[:, tokens].T.float()
    torch.testing.assert_close(answer_points(base, tokens), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_measuring_leaves_the_base_clean(family: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(f"tiny_{family}")
    base, task = base_of(folder), workshop.training_task(folder, rows=8)
    before, generator = fingerprint(base), torch.random.get_rng_state()
    measured = deviations(base, task.train)
    assert len(measured) == 3
    assert measured[0] == pytest.approx(0, abs=1e-6)  # the way starts where the state does
    assert all(0 <= value <= 2 for value in measured)
    assert fingerprint(base) == before
    assert torch.equal(torch.random.get_rng_state(), generator)


def test_layers_that_do_nothing_leave_it_to_what_is_allowed(deep: Path) -> None:
    base, task = base_of(deep), workshop.training_task(deep, rows=8)
    with torch.no_grad():
        for layer in layer_stack(base):
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    measured = deviations(base, task.train)
    assert measured == sorted(measured)
    for most in (2, 3, 6):
        chosen = METHOD.choose(base, workshop.pipeline("semantic_freezing", trained_layers=most), task.train)
        assert chosen == {"frozen_layers": LAYERS - most}


def test_the_layer_that_turns_towards_the_answer_is_found(deep: Path) -> None:
    """The third of six layers alone writes, and turns the state by half the way to the answer."""
    base, task = base_of(deep), workshop.training_task(deep, rows=24)
    examples = [example for example in task.train if example.labels]
    first = [next(label for label in example.labels if label != -100) for example in examples]
    token = max(set(first), key=first.count)
    examples = [e for e, label in zip(examples, first, strict=True) if label == token]
    point = answer_points(base, [token])[0]
    point /= point.norm()
    with torch.no_grad():
        for number, layer in enumerate(layer_stack(base), start=1):
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
            if number == 3:
                layer.register_forward_hook(lambda _m, _i, out: out + out.norm(dim=-1, keepdim=True) * point)
    measured = deviations(base, examples)
    assert measured[3] == pytest.approx(0, abs=1e-3)
    falls = [before - after for before, after in pairwise(measured)]
    assert falls.index(max(falls)) + 1 == 3
    assert best_cut(measured, most=6) == 3
    assert best_cut(measured, most=3) == 3
    assert best_cut(measured, most=2) == 4  # at most two may be trained


def test_the_gain_weighs_what_is_saved() -> None:
    assert best_cut([0.5, 0.4, 0.5, 0.45, 0.5, 0.6, 0.7], most=6) == 3  # 0.05 * 3/6 is above 0.1 * 1/6
    assert best_cut([0.5, 0.3, 0.5, 0.45, 0.5, 0.6, 0.7], most=6) == 1
    assert best_cut([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.1], most=6) == 0  # two layers are trained at least
    assert best_cut([0.5, 0.4], most=1) == 0


def test_bfloat16_decides_alike_up_to_one_layer(deep: Path) -> None:
    task, pipeline = workshop.training_task(deep), workshop.pipeline("semantic_freezing", trained_layers=6)
    cuts = [
        METHOD.choose(base_of(deep, dtype), pipeline, task.train)["frozen_layers"]
        for dtype in (torch.float32, torch.bfloat16)
    ]
    assert abs(int(cuts[0]) - int(cuts[1])) <= 1


def test_a_base_is_measured_once_for_all_trials_on_the_same_examples(
    deep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def counted(model: Any, examples: Sequence[Any]) -> list[float]:
        calls.append(len(examples))
        return deviations(model, examples)

    monkeypatch.setattr(semantic_freezing, "deviations", counted)
    base, task = base_of(deep), workshop.training_task(deep, rows=40)
    cuts = [
        METHOD.choose(base, workshop.pipeline("semantic_freezing", trained_layers=most), task.train)
        for most in (2, 4, 2)
    ]
    assert calls == [semantic_freezing.CALIBRATION_EXAMPLES]
    assert cuts[0] == cuts[2]
    METHOD.choose(base, workshop.pipeline("semantic_freezing"), task.train[:8])
    METHOD.choose(base_of(deep), workshop.pipeline("semantic_freezing"), task.train[:8])
    assert calls[1:] == [8, 8], "other examples, and another base"


def test_the_choice_is_kept_for_whoever_continues(deep: Path, tmp_path: Path) -> None:
    task = workshop.training_task(deep)
    trial = workshop.spec(
        task, workshop.pipeline("semantic_freezing", trained_layers=4), tmp_path / "trial", epochs=3
    )
    runner = Runner(task)
    first, second = workshop.run_trial(runner, trial, points=2)
    assert first.choosing_seconds > 0
    assert second.choosing_seconds == 0
    folder = CheckpointFolder(tmp_path / "trial")
    chosen = folder.read_choice()
    assert chosen is not None
    frozen = int(chosen["frozen_layers"])
    assert 2 <= frozen <= 4
    assert first.trainable_parameters == METHOD.trainable_parameters(
        task.facts, replace(trial.pipeline, hyperparameters={**trial.pipeline.hyperparameters, **chosen})
    )
    # Whatever a later process would decide, it continues what was begun.
    folder.write_choice({"frozen_layers": 5})
    assert first.point is not None
    folder.discard(first.point.step)
    runner.release()
    again = runner.advance(trial, 0, first.point.step)
    assert again.trainable_parameters < first.trainable_parameters


def test_a_damaged_choice_is_made_anew(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    assert folder.read_choice() is None
    folder.write_choice({"frozen_layers": 2})
    assert folder.read_choice() == {"frozen_layers": 2}
    (tmp_path / "choice.json").write_text("{")
    assert folder.read_choice() is None
    folder.write_choice({"frozen_layers": 3})
    folder.keep_only(continue_from=(), weights_of=())
    assert folder.read_choice() == {"frozen_layers": 3}
