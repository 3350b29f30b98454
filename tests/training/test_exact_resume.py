"""A trial paused at every point, going on in another process each time, equals the uninterrupted one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import workshop

pytestmark = pytest.mark.timeout(900)

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
EPOCHS = 3


@pytest.fixture(scope="module")
def resumed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """The curve of every case, each point from a process of its own; its last column hashes the weights."""
    jobs, owners = [], []
    for case, (family, variant, changes) in CASES.items():
        job = {
            "model": str(request.getfixturevalue(f"tiny_{family}")),
            "variant": variant,
            "changes": changes,
            "folder": str(tmp_path_factory.mktemp("resumed")),
            "epochs": EPOCHS,
        }
        task, trial = workshop.job_trial(job)
        for after in (0, *task.plan(trial).grid[:-1]):
            jobs.append({**job, "after": after})
            owners.append(case)
    curves: dict[str, list[Any]] = {case: [] for case in CASES}
    for case, point in zip(owners, workshop.in_processes("advance_once", jobs), strict=True):
        curves[case].append(point)
    return curves


@pytest.mark.parametrize("case", CASES)
def test_resumed_in_other_processes(
    case: str, resumed: dict[str, list[Any]], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    family, variant, changes = CASES[case]
    task = workshop.training_task(request.getfixturevalue(f"tiny_{family}"))
    trial = workshop.spec(task, workshop.pipeline(variant, **changes), tmp_path, epochs=EPOCHS)
    uninterrupted = workshop.curve(workshop.run_trial(task.open(), trial))
    assert len(uninterrupted) >= 3
    assert resumed[case] == uninterrupted
