"""The seam for training losses: a preference loss in one class, through loop, evaluator and runner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import workshop
from tunecast import data
from tunecast.data import EncodedExample
from tunecast.records import Outcome, Pipeline, Score
from tunecast.training import losses
from tunecast.training.compute import Compute
from tunecast.training.losses import COMPLETION, Loss, get_loss
from tunecast.training.losses.completion import CompletionLoss, collate, example_nats
from tunecast.training.runner import Runner


@dataclass(frozen=True, slots=True)
class PreferencePair(EncodedExample):
    """A chosen and a rejected sequence, and the base model's log-ratio of the two."""

    rejected: EncodedExample | None = None
    reference: float = 0.0

    @property
    def tokens(self) -> int:
        assert self.rejected is not None
        return len(self.input_ids) + self.rejected.tokens


class Dpo(Loss):
    """Direct preference optimisation (arXiv 2305.18290) with beta 0.5."""

    def encode(self, examples: Any, tokenizer: Any, **options: Any) -> list[EncodedExample]:
        """Pair each example with the answer of the next one."""
        chosen = data.encode(examples, tokenizer, **options)
        return [
            PreferencePair(**{f.name: getattr(one, f.name) for f in fields(EncodedExample)}, rejected=other)
            for one, other in zip(chosen, [*chosen[1:], chosen[0]], strict=True)
        ]

    def prepare(self, base: Any, examples: Any, compute: Compute) -> list[PreferencePair]:
        base.eval()
        with torch.no_grad():
            ratios = [self._log_ratio(base, self.collate([one], compute)).item() for one in examples]
        return [replace(one, reference=ratio) for one, ratio in zip(examples, ratios, strict=True)]

    def weight(self, examples: Sequence[EncodedExample]) -> int:
        return len(examples)

    def collate(self, examples: Any, compute: Compute) -> Any:
        both = [*examples, *(one.rejected for one in examples)]
        return collate(both, compute), torch.tensor([one.reference for one in examples])

    def _log_ratio(self, model: Any, batch: Any) -> torch.Tensor:
        chosen, rejected = example_nats(model, batch[0]).chunk(2)
        return rejected - chosen

    def minimised(self, model: Any, batch: Any, pipeline: Pipeline) -> tuple[torch.Tensor, torch.Tensor]:
        loss = -torch.nn.functional.logsigmoid(0.5 * (self._log_ratio(model, batch) - batch[1]))
        return loss, loss

    def measure(self, model: Any, batch: Any) -> torch.Tensor:
        margin = self._log_ratio(model, batch) - batch[1]
        return torch.stack([-torch.nn.functional.logsigmoid(0.5 * margin), (margin > 0).float()], dim=1)

    def difference_interval(
        self, examples: Any, first: np.ndarray, second: np.ndarray, *, seed: int
    ) -> tuple[float, float]:
        differences = first[:, 0] - second[:, 0]
        return float(differences.min()), float(differences.max())

    def score(self, examples: Any, measured: np.ndarray, *, interval_seed: int | None = None) -> Score:
        loss, accuracy = measured.mean(axis=0)
        return Score(
            float(loss), float(loss), 0.0, len(examples), 0, metric=float(accuracy), metric_name="preferred"
        )


@pytest.fixture
def dpo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_BUILDERS", dict(losses._BUILDERS))
    losses.register("dpo", Dpo)


def test_a_preference_loss_needs_nothing_but_its_class(tiny_llama: Path, tmp_path: Path, dpo: None) -> None:
    task = workshop.training_task(tiny_llama, rows=24)
    tokenizer = Runner(task)._tokenizer
    examples = get_loss("dpo").encode(
        workshop.toy_examples(24), tokenizer, max_length=task.max_length, architecture="decoder-only"
    )
    pairs = tuple(examples)
    task = replace(
        task, train=pairs[:16], subset=pairs[16:], validation=pairs[16:], test=pairs[16:], loss="dpo"
    )
    runner = Runner(task)
    base = runner.score(None, 0, "validation").score
    assert base.loss == pytest.approx(np.log(2), abs=1e-5)  # the model is its own reference
    pipeline = workshop.pipeline("lora", learning_rate=0.02, per_device_train_batch_size=4)
    spec = replace(workshop.spec(task, pipeline, epochs=6), folder=str(tmp_path))
    plan = task.plan(spec)
    assert plan.tokens_at(plan.total_steps) >= 6 * sum(pair.tokens for pair in pairs[:16])
    half = runner.advance(spec, 0, plan.grid[-2])
    assert half.outcome is Outcome.PAUSED
    done = Runner(task).advance(spec, plan.grid[-2], plan.grid[-1])  # continued from its checkpoint
    assert done.outcome is Outcome.COMPLETED
    assert done.point is not None
    assert done.point.train_loss is not None
    assert done.point.train_loss < base.loss - 0.005
    assert done.point.validation.metric_name == "preferred"


def test_the_completion_loss_is_there() -> None:
    assert isinstance(get_loss(COMPLETION), CompletionLoss)
    with pytest.raises(KeyError):
        get_loss("none")


def test_only_losses_compute_a_loss() -> None:
    """The dry run of ``estimate`` calls one on tensors without numbers; ``report`` writes code for cards."""
    package = Path(losses.__file__).parents[2]
    found = {
        file.relative_to(package).parts[0]
        for file in package.rglob("*.py")
        if "cross_entropy(" in file.read_text(encoding="utf-8") and file.parent.name != "losses"
    }
    assert found <= {"estimate", "report"}
