"""Seconds per training token of pipelines relative to each other.

Where a kind of device has recorded runs, a line in the pipeline's features is fitted to them: it knows all
methods, those without a formula too. On other kinds the estimates answer that ``recommend`` asks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunecast.arrays import Flags, Floats
from tunecast.estimate.closed_form import step_seconds
from tunecast.estimate.forms import is_known, stand_in
from tunecast.methods.workload import workload_of
from tunecast.predictor.efficiency import Efficiency
from tunecast.predictor.features import PIPELINE, columns, feature_rows
from tunecast.predictor.linear import Line, by_device, families_of, fit_line, is_enough
from tunecast.predictor.task import TaskDescription, task_of
from tunecast.records import Machine, Pipeline, Run, device_kind

COST_FEATURES = (
    *(name for name in PIPELINE if name.startswith(("method_", "optimizer_"))),
    *("trains_weights", "low_rank", "log_rank", "attention_only", "dora", "dropout", "log_batch"),
    *("log_tokens_per_update", "log_parameters", "log_width"),
)
"""Features that the seconds of a step depend on, besides the number of operations."""
PLAIN = Pipeline("lora", {"lora_r": 16, "target_modules": "all-linear"})
"""Stands for a method that does not state what it trains."""
EXCLUSIVE_WEIGHT = 5.0
"""Weight of a run with the machine to itself: its seconds are accurate, but few methods have such runs."""


@dataclass(frozen=True)
class CostModel:
    """Seconds per training token relative to the number of operations, for one kind of device.

    The predicted logarithm is that of the operations of a forward and backward pass over one token, plus a
    line in features. The machine itself is not a feature: rates measured beside other work vary more than
    machines of one kind differ, and a session uses its own runtime model anyway. The deviation around the
    line was measured on held-out tasks.
    """

    line: Line
    deviation: float

    def log_seconds_per_token(self, features: Floats, recomputes: Flags | bool = False) -> Floats:
        """Predict the logarithm of seconds per token on the machine of the runs, shape (rows,).

        ``recomputes`` says which pipelines have gradient checkpointing, shape (rows,).
        """
        return _log_operations(features, recomputes) + self.line(features[:, columns(COST_FEATURES)])


def estimated_log_seconds_per_token(
    task: TaskDescription, pipelines: Sequence[Pipeline], machine: Machine, dtype: str, efficiency: Efficiency
) -> Floats | None:
    """Return the logarithm of the seconds per training token by the estimates, shape (pipelines,).

    A method that the formulas do not know counts as LoRA of rank 16. None if they do not know the model.
    """
    if not is_known(task.model):
        return None
    found = [_estimated(task, pipeline, machine, dtype, efficiency) for pipeline in pipelines]
    return np.log(np.array(found))


def _estimated(
    task: TaskDescription, pipeline: Pipeline, machine: Machine, dtype: str, efficiency: Efficiency
) -> float:
    batch, length = int(pipeline.number("per_device_train_batch_size", 8)), round(task.mean_tokens)
    asked = workload_of(pipeline, task.model, dtype=dtype, device=machine.device)
    like = asked or workload_of(PLAIN, task.model, dtype=dtype, device=machine.device)
    form = None if like is None else stand_in(task.model, like)
    if form is None:
        raise TypeError(f"{PLAIN.method} has a form on every known model")
    share = efficiency.share(device_kind(machine.device), dtype, form.kind)
    step = step_seconds(
        task.model,
        form,
        machine,
        batch=batch,
        length=length,
        label_tokens=max(1, round(task.mean_label_tokens)),
        efficiency=share.value,
    ).step
    return step / (batch * length)


def fit_cost(runs: Sequence[Run]) -> dict[str, CostModel]:
    """Learn the seconds per token that runs would take on an idle machine, by kind of device.

    All runs show how pipelines compare; the slowdown on shared machines is fitted separately. There is no
    model for a device with fewer than ten timed runs, or with runs of a single family of datasets.
    """
    found = {}
    for kind, many in by_device(runs).items():
        timed = [(run, seconds) for run in many if (seconds := _seconds_per_token(run)) is not None]
        if is_enough([run for run, _ in timed]):
            found[kind] = _fit_cost(timed)
    return found


def _fit_cost(timed: Sequence[tuple[Run, float]]) -> CostModel:
    """Learn the seconds per token of one kind of device.

    Sharing is the only separate effect; threads and the type of the weights have none. All shipped exclusive
    runs had two threads and all others one, so the cost of sharing and the gain of a thread are known only as
    a sum, which is this effect, and is left out of predictions. On held-out tasks, a further column for
    either changes the error of the logarithm, 0.308 (0.320 without any effect), by less than 0.001. Both are
    the same for all trials of a session, which uses its own runtime model.
    """
    runs = [run for run, _ in timed]
    whole = _features(runs)
    recomputes = np.array([run.pipeline.gradient_checkpointing for run in runs])
    target = np.array([math.log(seconds) for _, seconds in timed]) - _log_operations(whole, recomputes)
    shared = np.array([not run.exclusive for run in runs], dtype=float)
    if shared.all():
        shared[:] = 0.0  # nothing to tell it from
    weight = np.array([EXCLUSIVE_WEIGHT if run.exclusive else 1.0 for run in runs])
    features = whole[:, columns(COST_FEATURES)]
    return CostModel(*fit_line(features, shared[:, None], target, families_of(runs), weight))


def _log_operations(features: Floats, recomputes: Flags | bool) -> Floats:
    """Return the logarithm of the operations to train on one token, shape (rows,).

    Each parameter takes two operations in the forward pass, two for its activations in the backward pass, and
    two for its gradient if it is trained (Kaplan et al. 2020, arXiv:2001.08361, §2.1, for full finetuning).
    Gradient checkpointing repeats the forward pass.
    MeZO, which has no backward pass, and methods whose backward pass ends early take fewer. The residual has
    a term for each method, fitted on this basis, that corrects for it. The estimates count the true passes.
    """
    log_parameters, log_share = features[:, columns(("log_parameters", "log_trainable_share"))].T
    gradients, again = 2.0 * np.minimum(1.0, np.exp(log_share)), 2.0 * np.asarray(recomputes)
    return np.asarray(log_parameters + np.log(4.0 + gradients + again))


def _seconds_per_token(run: Run) -> float | None:
    tokens = run.curve[-1].tokens_seen if run.curve else 0
    seconds = run.training_seconds
    return seconds / tokens if tokens > 0 and seconds else None


def _features(runs: Sequence[Run]) -> Floats:
    """Return features of runs before their first point; the zero-shot loss is not used here."""
    return np.concatenate([feature_rows(task_of(run, None), [run.pipeline]) for run in runs])
