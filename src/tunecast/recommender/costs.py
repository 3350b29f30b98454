"""What a planned finetuning takes: bytes, seconds, and the batches that fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from tunecast.data.token_lengths import TokenLengths
from tunecast.estimate.closed_form import Form, bytes_held, step_seconds
from tunecast.estimate.forms import form_of, lora_like
from tunecast.hardware.local_machine import Target
from tunecast.recommender.efficiency import Efficiency, Share
from tunecast.records import ModelFacts, Pipeline

if TYPE_CHECKING:
    from tunecast.estimate import MemoryRequest

CALIBRATED_SHARE = 0.75
"""Efficiency of full finetuning over that of a calibration's bare steps, which neither clip gradients nor put
batches together: 0.68 over 0.92 in float32 and 0.50 over 0.65 in bfloat16 on one CPU."""
CALIBRATED_DEVIATION = {"cpu": 0.25, "cuda": 0.5}
"""Standard deviation of the logarithm of the efficiency on a machine that was calibrated; on CUDA no recorded
run says how much of a calibration's share others reach."""
PROBE_DEVIATION = 0.3
"""The same of a processor's rates where nobody calibrated: what bfloat16 gains is taken from its flags, and
measured gains on processors of the same flags were 2.2 and 4.5."""


@dataclass(frozen=True)
class Cost:
    """What one optimiser step of a pipeline takes.

    Args:
        step_seconds: Seconds of an optimiser step at the mean length.
        deviation: Standard deviation of the logarithm of these seconds.
        bytes: Peak on the device at the longest example.
        micro_batch: Examples of one forward pass: the largest half, quarter, ... of the batch that fits.
        fits: Whether even one example at a time fits.
    """

    step_seconds: float
    deviation: float
    bytes: int
    micro_batch: int
    fits: bool


class Costs:
    """Predicts what pipelines take on one model, dataset and machine.

    Args:
        model: Facts of the base model.
        lengths: Lengths of the dataset's examples.
        target: Where it would run.
        config: Gives the transformers configuration; called only where formulas do not suffice.
        efficiency: What share of the ideal real steps reach.
    """

    def __init__(
        self,
        model: ModelFacts,
        lengths: TokenLengths,
        target: Target,
        config: Callable[[], Any],
        efficiency: Efficiency,
    ) -> None:
        self._model = model
        self._lengths = lengths
        self._target = target
        self._load_config = config
        self._efficiency = efficiency
        self.dtype = target.dtype(model.width)

    @cached_property
    def _config(self) -> Any:
        return self._load_config()

    @property
    def _limit(self) -> int:
        return self._target.machine.device_memory_bytes

    def of(self, pipeline: Pipeline) -> Cost:
        """What a step of a pipeline takes.

        Raises:
            ModelError: The configuration's class has no text-generating model.
            ConfigurationError: The adapter does not suit the model.
        """
        batch = int(pipeline.number("per_device_train_batch_size", 8))
        device = "cuda" if self._target.machine.device == "cuda" else "cpu"
        form = form_of(self._model, pipeline, dtype=self.dtype, device=device)
        if form is None:
            return self._by_dry_run(pipeline, batch)
        micro = batch
        held = self._bytes(form, micro, accumulates=False)
        while held > self._limit and micro > 1:
            micro = -(-micro // 2)
            held = self._bytes(form, micro, accumulates=True)
        lengths = self._lengths
        share = self._share(form.kind)
        seconds, _ = step_seconds(
            self._model,
            form,
            self._target.machine,
            batch=batch,
            length=round(lengths.mean),
            label_tokens=max(1, round(lengths.label_mean)),
            micro_batch=micro,
            efficiency=share.value,
        )
        return Cost(seconds, share.deviation, held, micro, held <= self._limit)

    def request(self, pipeline: Pipeline, micro_batch: int) -> MemoryRequest:
        """What the memory arithmetic of :mod:`tunecast.estimate` would be asked."""
        from tunecast.estimate import MemoryRequest
        from tunecast.methods.memory import adapter_of, is_predictable, optimizer_of

        stand_in = pipeline if is_predictable(pipeline) else lora_like(pipeline)
        adapter = adapter_of(stand_in, self._model)
        four_bit = pipeline.method == "qlora"
        plain: Literal["float32", "bfloat16"] = "float32" if self.dtype == "float32" else "bfloat16"
        return MemoryRequest(
            adapter=None if adapter is None else dict(adapter),
            precision="4-bit" if four_bit else plain,
            optimizer=optimizer_of(stand_in),
            batch_size=micro_batch,
            max_length=self._lengths.longest,
            label_tokens=self._lengths.label_longest,
            evaluates=True,
            gradient_accumulation=micro_batch < pipeline.number("per_device_train_batch_size", 8),
            device="cuda" if self._target.machine.device == "cuda" else "cpu",
            device_memory_bytes=self._limit,
        )

    def _by_dry_run(self, pipeline: Pipeline, batch: int) -> Cost:
        from dataclasses import replace

        from tunecast.estimate import estimate_memory
        from tunecast.estimate.seconds import estimate_seconds

        micro = batch
        estimate = estimate_memory(self._config, self.request(pipeline, micro))
        while not estimate.fits and micro > 1:
            micro = -(-micro // 2)
            estimate = estimate_memory(self._config, self.request(pipeline, micro))
        request = self.request(pipeline, micro)
        typical = replace(
            request,
            max_length=round(self._lengths.mean),
            label_tokens=max(1, round(self._lengths.label_mean)),
        )
        share = self._share("full" if pipeline.method == "full" else "lora")
        step = estimate_seconds(self._config, typical, self._target.machine, efficiency=share.value)
        passes = -(-batch // micro)
        seconds = passes * (step.step - step.optimizer_step) + step.optimizer_step
        return Cost(seconds, share.deviation, estimate.total_bytes, micro, bool(estimate.fits))

    def _share(self, kind: str) -> Share:
        """What share of the ideal is expected: as calibrated on this machine, else as on known ones."""
        device = self._target.machine.device
        learned = self._efficiency.share(device, self.dtype, kind)
        calibrated = self._target.efficiency.get(self.dtype)
        if calibrated is None:
            probed = PROBE_DEVIATION if device == "cpu" else 0.0
            return Share(learned.value, math.hypot(learned.deviation, probed))
        relative = learned.value / self._efficiency.share(device, self.dtype, "full").value
        return Share(CALIBRATED_SHARE * calibrated * relative, CALIBRATED_DEVIATION[device])

    def _bytes(self, form: Form, micro: int, *, accumulates: bool) -> int:
        return bytes_held(
            self._model,
            form,
            batch=micro,
            length=self._lengths.longest,
            label_tokens=self._lengths.label_longest,
            accumulates=accumulates,
        )
