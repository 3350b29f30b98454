"""The efficiency of real training steps: the share of a machine's ideal speed, learned from recorded runs.

:mod:`tunecast.estimate` gives the seconds of a step whose kernels are bound by the machine's measured rates
and nothing else. Real steps take longer: kernels of small models do not fill a processor, gradients are
clipped, batches are collated. The *efficiency*, ideal over measured seconds, is learned as a hierarchical
normal model of its logarithm. Each kind of device has a mean around the usual one, each type of weights and
kind of method has one around its device's, and base models scatter around these. On CUDA the estimate knows
the usual steps already (:mod:`tunecast.estimate.speed`), so that all of these scatter less around 1.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Self

from tunecast.estimate import estimate_seconds
from tunecast.estimate.constants import EFFICIENCY
from tunecast.estimate.forms import form_of
from tunecast.estimate.speed import usual_efficiency
from tunecast.methods.workload import workload_of
from tunecast.records import Run, device_kind

DEVICE_DEVIATION = 0.5
"""Standard deviation of the logarithm of the efficiency between kinds of device."""
GROUP_DEVIATION = 0.3
"""The same between types of weights and kinds of method on one kind of device."""
MODEL_DEVIATION = 0.2
"""The same between base models, and between machines of a kind."""
LEARNED_METHODS = ("full", "lora", "qlora", "ia3")
"""Methods whose steps consist only of work that the formulas count."""
MAX_CREDIBLE = {"cpu": 1.0, "cuda": 1.5}
"""Highest median efficiency of a machine whose rates count as rightly measured: no step beats a processor's
ideal, but one may beat what is usual on CUDA."""
MIN_STEPS = 4
"""Minimum steps of a run that counts: the first one is slow, and weighs too much in a shorter run."""

Key = tuple[str, str]


@dataclass(frozen=True)
class Share:
    """A log-normal efficiency: its median, and the standard deviation of its logarithm."""

    value: float = EFFICIENCY
    deviation: float = math.hypot(DEVICE_DEVIATION, GROUP_DEVIATION, MODEL_DEVIATION)


class Efficiency:
    """The share of the ideal that steps reach, by kind of device, type of weights and kind of method.

    Without recorded runs, the usual value of the kind of device stands.

    Args:
        logarithms: Those of the median efficiency of each base model, by kind of device and group.
    """

    def __init__(self, logarithms: Mapping[str, Mapping[Key, Sequence[float]]] | None = None) -> None:
        self._logarithms = logarithms or {}
        self._devices = {device: _Device(device, of) for device, of in self._logarithms.items()}

    @classmethod
    def of(cls, runs: Iterable[Run]) -> Self:
        """Learn from recorded runs."""
        cells: dict[tuple[str, Key, str], list[float]] = defaultdict(list)
        for run, (group, ratio) in credible_ratios(runs):
            cells[(*group, run.model.name)].append(math.log(ratio))
        groups: dict[str, dict[Key, list[float]]] = defaultdict(lambda: defaultdict(list))
        for (device, key, _), ratios in cells.items():
            groups[device][key].append(median(ratios))
        return cls(groups)

    def share(self, device: str, dtype: str, kind: str) -> Share:
        """Predict the efficiency of a base model without recorded runs; ``kind`` is a form's."""
        known = self._devices.get(device)
        return known.share((dtype, kind)) if known else usual_share(device)

    def as_json(self) -> list[list[Any]]:
        """Return plain values for :meth:`from_json`."""
        return [
            [device, *key, list(of)] for device, keys in self._logarithms.items() for key, of in keys.items()
        ]

    @classmethod
    def from_json(cls, plain: Sequence[Sequence[Any]]) -> Self:
        """Rebuild it.

        Raises:
            TypeError, ValueError: The values are not those of :meth:`as_json`.
        """
        groups: dict[str, dict[Key, list[float]]] = defaultdict(dict)
        for device, dtype, kind, logarithms in plain:
            groups[str(device)][str(dtype), str(kind)] = [float(one) for one in logarithms]
        return cls(groups)


def usual_share(device: str) -> Share:
    """Return the efficiency on a kind of device without recorded runs."""
    usual = usual_efficiency(device)
    return Share(usual.value, usual.deviation or Share.deviation)


class _Device:
    """One kind of device, from logarithms of the efficiency by type of weights and kind of method."""

    def __init__(self, device: str, groups: Mapping[Key, Sequence[float]]) -> None:
        usual = usual_share(device)
        scale = (usual.deviation / Share.deviation) ** 2
        self._groups = groups
        self._spread, self._noise = scale * GROUP_DEVIATION**2, scale * MODEL_DEVIATION**2
        means = [(sum(of) / len(of), self._spread + self._noise / len(of)) for of in groups.values()]
        before = scale * DEVICE_DEVIATION**2
        self._mean, self._variance = _posterior(math.log(usual.value), before, means)

    def share(self, key: Key) -> Share:
        seen = [(value, self._noise) for value in self._groups.get(key, ())]
        mean, variance = _posterior(self._mean, self._variance + self._spread, seen)
        return Share(math.exp(mean), math.sqrt(variance + self._noise))


def credible_ratios(runs: Iterable[Run]) -> list[tuple[Run, tuple[tuple[str, Key], float]]]:
    """Return :func:`ideal_ratio` of every run that has one, without machines whose steps beat the ideal.

    If half of a machine's runs beat :data:`MAX_CREDIBLE`, its rates were measured while it was busy.
    """
    by_machine: dict[str, list[tuple[Run, tuple[tuple[str, Key], float]]]] = defaultdict(list)
    for run in runs:
        if (found := ideal_ratio(run)) is not None:
            by_machine[repr(run.machine)].append((run, found))
    return [
        pair
        for pairs in by_machine.values()
        if median(ratio for _, (_, ratio) in pairs) <= MAX_CREDIBLE[pairs[0][1][0][0]]
        for pair in pairs
    ]


def ideal_ratio(run: Run) -> tuple[tuple[str, Key], float] | None:
    """Return the group of a run, (device, (dtype, kind)), and ideal over measured seconds of its steps.

    None if the formulas do not know the model or the method, the run is too short, it was spread over several
    devices, other workers shared its accelerator, or its machine is unknown.
    """
    pipeline, last, seconds = run.pipeline, run.curve[-1] if run.curve else None, run.training_seconds
    if last is None or last.step < MIN_STEPS or pipeline.method not in LEARNED_METHODS:
        return None
    if not seconds or not math.isfinite(seconds) or run.devices > 1 or not run.machine.flops_per_second:
        return None
    device, batch = device_kind(run.machine.device), int(pipeline.number("per_device_train_batch_size", 8))
    examples = last.step * batch
    workload = workload_of(
        pipeline,
        run.model,
        dtype=run.dtype,
        device=device,
        batch_size=batch,
        max_length=max(1, round(last.tokens_seen / examples)),
        label_tokens=max(1, round(last.label_tokens_seen / examples)),
    )
    form = None if workload is None else form_of(run.model, workload)
    if workload is None or form is None:
        return None
    ideal = estimate_seconds(run.model, workload, run.machine, efficiency=1.0)
    return (device, (run.dtype, form.kind)), ideal.step * last.step / seconds


def _posterior(mean: float, variance: float, seen: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return mean and variance of a normal variable after noisy observations, each with its variance."""
    precision = 1 / variance + sum(1 / noise for _, noise in seen)
    weighted = mean / variance + sum(value / noise for value, noise in seen)
    return weighted / precision, 1 / precision
