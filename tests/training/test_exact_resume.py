"""A trial that is paused at every point and continued equals one that was never interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import workshop
from tunecast.training.runner import Runner

NOISY = {"lora_dropout": 0.1, "neftune_noise_alpha": 5.0}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    **{f"{name} adamw": (workshop.FAMILIES.get(name, "llama"), name, NOISY) for name in workshop.VARIANTS},
    **{f"full {name}": ("llama", "full", {"optim": name}) for name in ("sgd", "lion", "muon")},
    "LoRA+ muon": ("llama", "lora", {"optim": "muon", "loraplus_ratio": 4.0, "label_smoothing": 0.1}),
    **{
        f"{name} adafactor": (family, name, {**NOISY, "optim": "adafactor"})
        for name, family in zip(workshop.VARIANTS, ("t5", "gpt2", "llama"), strict=False)
    },
}
"""Family, variant and changes; GPT-2 and T5 drop out in their own layers too."""
ACROSS_PROCESSES = ("lora adamw", "full muon", "adalora adamw", "mezo adamw")
"""Noise in the model, state of an optimizer, ranks that change on the way, directions drawn from seeds."""
EPOCHS = 2


@pytest.fixture(scope="module")
def runners(request: pytest.FixtureRequest) -> dict[str, Runner]:
    """A worker for each family of models."""
    return {
        family: Runner(workshop.training_task(request.getfixturevalue(f"tiny_{family}")))
        for family in ("llama", "gpt2", "t5")
    }


@pytest.mark.parametrize("case", CASES)
def test_resumed_at_every_point(case: str, runners: dict[str, Runner], tmp_path: Path) -> None:
    family, variant, changes = CASES[case]
    runner = runners[family]
    chosen = workshop.pipeline(variant, **changes)
    whole, parts = (
        workshop.spec(runner.training_task, chosen, tmp_path / name, run=name, epochs=EPOCHS)
        for name in ("whole", "parts")
    )
    uninterrupted = workshop.curve(workshop.run_trial(runner, whole))
    assert len(uninterrupted) >= 3
    resumed, after = [], 0
    for _ in uninterrupted:
        runner.release()
        torch.manual_seed(after)  # another process would not have the numbers that come next here
        measured = workshop.run_trial(runner, parts, after=after, points=1)
        assert measured[0].retrained_tokens == 0
        resumed += workshop.curve(measured)
        after = resumed[-1][0]
    assert resumed == uninterrupted


@pytest.fixture(scope="module")
def continued(runners: dict[str, Runner], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """The curves of trials begun here, whose first point is followed by those of another process."""
    first, jobs = [], []
    for case in ACROSS_PROCESSES:
        family, variant, changes = CASES[case]
        task = runners[family].training_task
        folder = str(tmp_path_factory.mktemp("begun"))
        trial = workshop.spec(task, workshop.pipeline(variant, **changes), folder, epochs=EPOCHS)
        first.append(workshop.curve(workshop.run_trial(runners[family], trial, points=1)))
        job = {"model": task.model.location, "variant": variant, "changes": changes, "folder": folder}
        jobs.append({**job, "epochs": EPOCHS, "after": first[-1][0][0]})
    rest = workshop.in_processes(jobs)
    return {case: [*one, *more] for case, one, more in zip(ACROSS_PROCESSES, first, rest, strict=True)}


@pytest.mark.parametrize("case", ACROSS_PROCESSES)
def test_resumed_in_another_process(
    case: str, runners: dict[str, Runner], continued: dict[str, list[Any]], tmp_path: Path
) -> None:
    family, variant, changes = CASES[case]
    runner = runners[family]
    trial = workshop.spec(
        runner.training_task, workshop.pipeline(variant, **changes), tmp_path, epochs=EPOCHS
    )
    uninterrupted = workshop.curve(workshop.run_trial(runner, trial))
    assert len(uninterrupted) >= 3
    assert continued[case] == uninterrupted
