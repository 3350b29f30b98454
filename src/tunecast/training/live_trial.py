"""A trial in memory: the training loop, which can stop after any step and go on as if it never had.

Transformers' Trainer owns its data order, its evaluation and its checkpoints, and cannot pause in memory;
this loop is what is left when those are ours. Optimisers, schedules, adapters and clipping come from torch,
transformers and peft.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunecast.hardware.machine import SecondsClock, reset_peak
from tunecast.methods import get_method
from tunecast.records import Pipeline, Seconds
from tunecast.training.batch import smoothed_nats
from tunecast.training.checkpoint import CheckpointFolder, Position
from tunecast.training.compute import Compute
from tunecast.training.failures import DivergedError, is_out_of_memory
from tunecast.training.optimizers import build_optimizer, flatten_state, restore_state
from tunecast.training.plan import TrialPlan, schedule

if TYPE_CHECKING:
    from numpy import ndarray

    from tunecast.data import EncodedExample

_METHOD_STATE = "method."
"""Before the keys of a method's own state in a checkpoint; the optimiser's start with a number."""


@dataclass(frozen=True)
class Segment:
    """What happened between two points: nats per label token, the mean norm of gradients, the time."""

    train_loss: float
    gradient_norm: float
    training: Seconds


class LiveTrial:
    """A model under training at some step of its plan.

    Args:
        model: What a method's ``attach`` returned.
        pipeline: Its pipeline.
        plan: Its course.
        examples: The training examples that ``plan`` indexes.
        compute: How to compute.
        seed: Seed from which every step's dropout and noise derive.
        explosion_nats: A step whose loss per label token is above this ends the trial.
    """

    def __init__(
        self,
        model: Any,
        pipeline: Pipeline,
        plan: TrialPlan,
        examples: Sequence[EncodedExample],
        compute: Compute,
        *,
        seed: int,
        explosion_nats: float = math.inf,
    ) -> None:
        self.model = model
        self.plan = plan
        self.step = 0
        self.label_tokens_seen = 0
        self.micro_batch_size = int(pipeline.number("per_device_train_batch_size"))
        self._pipeline = pipeline
        self._method = get_method(pipeline.method)
        self._examples = examples
        self._compute = compute
        self._seed = seed
        self._explosion_nats = explosion_nats
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._optimizer = build_optimizer(model, pipeline)
        self._zeroth_order: Any = self._optimizer if hasattr(self._optimizer, "estimate") else None
        self._factor = schedule(
            str(pipeline["lr_scheduler_type"]),
            warmup_steps=plan.warmup_steps,
            total_steps=plan.total_steps,
        )

    @property
    def trainable_parameters(self) -> int:
        """Number of parameters that are trained."""
        return sum(parameter.numel() for parameter in self._trained.values())

    def learning_rate(self, step: int) -> float:
        """The rate with which step number ``step`` (from 0) is taken."""
        return self._pipeline.number("learning_rate") * self._factor(step)

    def advance(self, to_step: int) -> Segment:
        """Train up to ``to_step``.

        Raises:
            DivergedError: A loss or gradient was not finite, or the loss exploded.
            MemoryError, RuntimeError: Memory ran out with a single example per forward pass.
        """
        import torch

        clock = SecondsClock(self._compute.device)
        nats = norms = 0.0
        labels = 0
        first = self.step
        device = torch.device(self._compute.device)
        forked = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])  # no other GPU
        with forked, _neftune(self.model, self._pipeline.number("neftune_noise_alpha")):
            self.model.train(self._zeroth_order is None)  # two losses to compare leave no room for dropout
            while self.step < to_step:
                step_nats, step_labels, norm = self._step()
                nats, labels, norms = nats + step_nats, labels + step_labels, norms + norm
                self.step += 1
                self.label_tokens_seen += step_labels
            self.model.eval()
        return Segment(nats / max(labels, 1), norms / max(to_step - first, 1), clock.read())

    def save(self, folder: CheckpointFolder, *, goes_on: bool) -> str:
        """Write a checkpoint of the present step; see :meth:`CheckpointFolder.write`.

        Args:
            folder: Where to.
            goes_on: Whether the trial is to be continued from here; if not, its weights are enough.
        """
        if not goes_on:
            return folder.write(self._trained, None, self._position({}))
        tensors, scalars = flatten_state(self._optimizer)
        own = self._method.state(self.model)
        tensors |= {f"{_METHOD_STATE}{key}": tensor for key, tensor in own.items()}
        return folder.write(self._trained, tensors, self._position(scalars))

    def load(self, folder: CheckpointFolder, step: int) -> None:
        """Continue from the checkpoint of ``step``."""
        tensors, position = folder.read_state(step)
        self.load_weights(folder, step)
        own = {key: tensors.pop(key) for key in list(tensors) if key.startswith(_METHOD_STATE)}
        restore_state(self._optimizer, tensors, position.scalars)
        state = {key.removeprefix(_METHOD_STATE): tensor for key, tensor in own.items()}
        self._method.restore(self.model, state)
        self.step = position.step
        self.micro_batch_size = position.micro_batch_size
        self.label_tokens_seen = position.label_tokens_seen

    def load_weights(self, folder: CheckpointFolder, step: int) -> None:
        """Put the trained tensors of ``step`` into the model."""
        import torch

        saved = folder.read_weights(step)
        with torch.no_grad():
            for name, parameter in self._trained.items():
                parameter.copy_(saved[name])

    def _position(self, scalars: Mapping[str, float | None]) -> Position:
        return Position(self.step, self.micro_batch_size, self.label_tokens_seen, "", scalars)

    def _step(self) -> tuple[float, int, float]:
        """One optimiser step; memory that runs out shrinks the micro-batch and the step is taken anew."""
        indices = self.plan.batches[self.step]
        while True:
            try:
                total, labels = self._learn(indices)
                break
            except Exception as error:  # only memory is handled; the rest goes on up
                if not is_out_of_memory(error) or self.micro_batch_size == 1:
                    raise
            # Outside the handler, where the failed pass's tensors are no longer referenced by the exception.
            self._optimizer.zero_grad(set_to_none=True)
            self._compute.free_memory()
            reset_peak(self._compute.device)  # the point is of the smaller micro-batch, and so is its peak
            self.micro_batch_size = math.ceil(min(self.micro_batch_size, len(indices)) / 2)
        # A smaller micro-batch would not help the update, and a half-done one must not be repeated.
        norm = self._update()
        loss = total / max(labels, 1)
        if not (math.isfinite(loss) and math.isfinite(norm)) or loss > self._explosion_nats:
            raise DivergedError(f"step {self.step + 1}: loss {loss:.4g}, gradient norm {norm:.4g}")
        return total, labels, norm

    def _learn(self, indices: ndarray) -> tuple[float, int]:
        """What one batch tells the optimiser, by gradients or by losses; the batch's nats and its labels."""
        if self._zeroth_order is None:
            _, nats, labels = self._accumulate(indices)
            return nats, labels
        measured: list[tuple[float, float, int]] = []

        def loss() -> float:
            measured.append(self._accumulate(indices, backward=False))
            smoothed, _, labels = measured[-1]
            return smoothed / max(labels, 1)

        self._zeroth_order.estimate(loss, _derived_seed(self._seed, self.step, DIRECTION))
        (_, above, labels), (_, below, _) = measured
        return (above + below) / 2, labels

    def _accumulate(self, indices: ndarray, *, backward: bool = True) -> tuple[float, float, int]:
        """Nats of one batch, smoothed and plain, and its labels; with its gradients, by micro-batch."""
        import torch

        examples = [self._examples[int(index)] for index in indices]
        labels = sum(example.label_tokens for example in examples)
        smoothing = self._pipeline.number("label_smoothing")
        minimised = total = 0.0
        for number, start in enumerate(range(0, len(examples), self.micro_batch_size)):
            torch.manual_seed(_derived_seed(self._seed, self.step, number))
            batch = self._compute.collate(examples[start : start + self.micro_batch_size])
            with self._compute.autocast():
                smoothed, nats = smoothed_nats(self.model, batch, smoothing)
            if backward:
                (smoothed.sum() / max(labels, 1)).backward()
            minimised += smoothed.sum().item()
            total += nats.sum().item()
        return minimised, total, labels

    def _update(self) -> float:
        import torch

        self._method.before_update(self.model)
        if self._zeroth_order is None:
            limit = self._pipeline.number("max_grad_norm", 1.0)
            norm = torch.nn.utils.clip_grad_norm_(self._trained.values(), limit).item()
        else:
            norm = abs(self._zeroth_order.projected_gradient)  # its mean square is the gradient's
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step) * group["rate_factor"]
        if math.isfinite(norm):
            self._optimizer.step()
            self._method.after_update(self.model, self.step + 1, self.plan.total_steps)
        self._optimizer.zero_grad(set_to_none=True)
        return norm


DIRECTION = 1 << 31
"""In the place of a micro-batch's number, for the seed of a zeroth-order step's direction."""


def _derived_seed(seed: int, step: int, micro_batch: int) -> int:
    """A seed for one forward pass, spread over 63 bits so that neighbours are unrelated."""
    import numpy as np

    state = np.random.SeedSequence([seed, step, micro_batch]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def _text_embeddings(model: Any) -> Any:
    """The layer that looks the input up; an encoder has one of its own beside the shared one."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    side = inner.get_encoder() if inner.config.is_encoder_decoder else inner
    return side.get_input_embeddings()


@contextmanager
def _neftune(model: Any, alpha: float) -> Iterator[None]:
    """Uniform noise in ±alpha / sqrt(L·d) on input embeddings while training (arXiv 2310.05914)."""
    import torch

    def add_noise(_module: Any, _inputs: Any, output: Any) -> Any:
        magnitude = alpha / math.sqrt(output.shape[1] * output.shape[2])
        return output + torch.zeros_like(output).uniform_(-magnitude, magnitude)

    handle = _text_embeddings(model).register_forward_hook(add_noise) if alpha else None
    try:
        yield
    finally:
        if handle:
            handle.remove()
