"""Costs of a planned finetuning: bytes, seconds, and the batches that fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tunecast.data.token_lengths import TokenLengths
from tunecast.errors import ConfigurationError
from tunecast.estimate import Workload, estimate_bytes, estimate_seconds
from tunecast.estimate.forms import form_of
from tunecast.estimate.workload import roomy_bytes
from tunecast.hardware.local_machine import Target
from tunecast.predictor.efficiency import Efficiency, Share
from tunecast.records import ModelFacts, Pipeline

CALIBRATED_SHARE = 0.75
"""Efficiency of full finetuning relative to a calibration's bare steps, without clipping and collating: 0.68
over 0.92 in float32 and 0.50 over 0.65 in bfloat16 on one CPU.
"""
CALIBRATED_DEVIATION = {"cpu": 0.25, "cuda": 0.5}
"""Standard deviation of the logarithm of the efficiency on a machine that was calibrated; on CUDA no recorded
run tells how much of a calibration's share others reach."""
PROBE_DEVIATION = 0.3
"""The same of a processor's rates without calibration: the gain of bfloat16 is taken from its flags, and
measured gains on processors of the same flags were 2.2 and 4.5."""
MIXTURE_SLOWDOWN = 2.0
"""Seconds of a mixture of experts over those of its formula. The only published mixture took 2 to 6 times as
long; half of its runs computed the experts one by one (docs/recommending.md)."""
MIXTURE_DEVIATION = 0.7
"""Standard deviation of the logarithm of that factor: its 90% interval reaches from 0.6 to 6."""


@dataclass(frozen=True)
class Cost:
    """The cost of one optimiser step of a pipeline.

    Args:
        step_seconds: Seconds of an optimiser step at the mean length.
        deviation: Standard deviation of the logarithm of these seconds.
        bytes: Peak on the device at the longest example.
        micro_batch: Examples of one forward pass: the largest half, quarter, ... of the batch that fits with
            headroom.
        fits: Whether one example at a time fits, if only without headroom.
    """

    step_seconds: float
    deviation: float
    bytes: int
    micro_batch: int
    fits: bool


@dataclass(frozen=True)
class Unpriced:
    """A pipeline's cost that is not estimated.

    Args:
        reason: Why it cannot be estimated; empty if it was not asked for.
    """

    reason: str = ""


class Costs:
    """Predicts the costs of pipelines on one model, dataset and machine.

    Args:
        config: Gives the transformers configuration; called only where formulas do not suffice.
        devices: Devices that each training is spread over; bytes are those of one.
        dtype: Type of weights and compute; empty for the target's usual one.
    """

    def __init__(
        self,
        model: ModelFacts,
        lengths: TokenLengths,
        target: Target,
        config: Callable[[], Any],
        efficiency: Efficiency,
        devices: int = 1,
        dtype: str = "",
    ) -> None:
        self._model = model
        self._lengths = lengths
        self._target = target
        self._load_config = config
        self._efficiency = efficiency
        self._devices = devices
        self.dtype = dtype or target.dtype(model.width)

    @cached_property
    def _config(self) -> Any:
        return self._load_config()

    @property
    def limit_bytes(self) -> int:
        """Memory of the device."""
        return self._target.machine.device_memory_bytes

    def is_roomy(self, cost: Cost) -> bool:
        """Whether the device holds a pipeline of this cost and keeps some memory free."""
        return cost.bytes <= roomy_bytes(self.limit_bytes)

    def has_formula(self, pipeline: Pipeline) -> bool:
        """Whether a formula gives the costs of such pipelines on this model, without dry runs."""
        try:
            return form_of(self._model, self.workload(pipeline, 1)) is not None
        except ConfigurationError:
            return False

    def of(self, pipeline: Pipeline) -> Cost:
        """Predict the cost of a step of a pipeline.

        Raises:
            ModelError: The configuration's class has no text-generating model.
            ConfigurationError: The adapter does not suit the model, or the method states no footprint.
        """
        micro = self._own_examples(pipeline)
        held = self._bytes(pipeline, micro)
        while held > roomy_bytes(self.limit_bytes) and micro > 1:
            micro = -(-micro // 2)
            held = self._bytes(pipeline, micro)
        lengths = self._lengths
        typical = replace(
            self.workload(pipeline, micro),
            max_length=round(lengths.mean),
            label_tokens=max(1, round(lengths.label_mean)),
        )
        form = form_of(self._model, typical)
        share = self._share(form.kind if form else "full" if typical.adapter is None else "lora")
        seconds = estimate_seconds(
            self._model, typical, self._target.machine, efficiency=share.value, config=lambda: self._config
        )
        return Cost(seconds.step, share.deviation, held, micro, held <= self.limit_bytes)

    def workload(self, pipeline: Pipeline, micro_batch: int) -> Workload:
        """Return the workload of a pipeline at the longest example.

        Raises:
            ConfigurationError: The method states no footprint.
        """
        from tunecast.methods.workload import workload_of

        found = workload_of(
            pipeline,
            self._model,
            dtype=self.dtype,
            device=self._target.machine.device,
            batch_size=micro_batch,
            step_examples=self._own_examples(pipeline),
            sharding="fsdp" if self._devices > 1 else "none",
            devices=self._devices,
            max_length=self._lengths.longest,
            label_tokens=self._lengths.label_longest,
            device_memory_bytes=self.limit_bytes,
        )
        if found is None:
            raise ConfigurationError(f"--methods: {pipeline.method} does not state what it holds.")
        return found

    def _own_examples(self, pipeline: Pipeline) -> int:
        """Return the examples of an optimiser step on one device."""
        return math.ceil(int(pipeline.number("per_device_train_batch_size", 8)) / self._devices)

    def _bytes(self, pipeline: Pipeline, micro_batch: int) -> int:
        workload = self.workload(pipeline, micro_batch)
        return estimate_bytes(self._model, workload, config=lambda: self._config)

    def _share(self, kind: str) -> Share:
        """Return the expected share of the ideal, which mixtures of experts fall short of."""
        share = self._dense_share(kind)
        if not self._model.is_mixture:
            return share
        return Share(share.value / MIXTURE_SLOWDOWN, math.hypot(share.deviation, MIXTURE_DEVIATION))

    def _dense_share(self, kind: str) -> Share:
        """Return the expected share of the ideal: as calibrated on this machine, else as on known ones."""
        device = self._target.machine.device
        learned = self._efficiency.share(device, self.dtype, kind)
        calibrated = self._target.efficiency.get(self.dtype)
        if calibrated is None:
            probed = PROBE_DEVIATION if device == "cpu" else 0.0
            return Share(learned.value, math.hypot(learned.deviation, probed))
        relative = learned.value / self._efficiency.share(device, self.dtype, "full").value
        return Share(CALIBRATED_SHARE * calibrated * relative, CALIBRATED_DEVIATION[device])
