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

from tunecast.estimate import estimate_seconds
from tunecast.estimate.constants import EFFICIENCY
from tunecast.estimate.forms import form_of
from tunecast.estimate.speed import usual_efficiency
from tunecast.methods.workload import workload_of
from tunecast.records import device_kind
from tunecast.store.final_results import FinalResult

DEVICE_DEVIATION = 0.5
"""Standard deviation of the logarithm of the efficiency between kinds of device."""
GROUP_DEVIATION = 0.3
"""The same between types of weights and kinds of method on one kind of device."""
MODEL_DEVIATION = 0.2
"""The same between base models, and between machines of a kind."""
LEARNED_METHODS = ("full", "lora", "qlora", "ia3")
"""Methods whose steps consist only of work that the formulas count."""
MOST_CREDIBLE = {"cpu": 1.0, "cuda": 1.5}
"""Highest median efficiency of a machine whose rates count as rightly measured: no step beats a processor's
ideal, but one may beat what is usual on CUDA."""
FEWEST_STEPS = 4
"""Fewest steps of a run that counts: the first one is slow, and weighs too much in a shorter run."""

Key = tuple[str, str]


@dataclass(frozen=True)
class Share:
    """A log-normal efficiency: its median, and the standard deviation of its logarithm."""

    value: float = EFFICIENCY
    deviation: float = math.hypot(DEVICE_DEVIATION, GROUP_DEVIATION, MODEL_DEVIATION)


class Efficiency:
    """The share of the ideal that steps reach, by kind of device, type of weights and kind of method.

    Without recorded runs, the usual value of the kind of device stands.
    """

    def __init__(self, results: Iterable[FinalResult] = ()) -> None:
        cells: dict[tuple[str, Key, str], list[float]] = defaultdict(list)
        for result, (group, ratio) in credible_ratios(results):
            cells[(*group, result.model.name)].append(math.log(ratio))
        groups: dict[str, dict[Key, list[float]]] = defaultdict(lambda: defaultdict(list))
        for (device, group_key, _), ratios in cells.items():
            groups[device][group_key].append(median(ratios))
        self._devices = {device: _Device(device, of) for device, of in groups.items()}

    def share(self, device: str, dtype: str, kind: str) -> Share:
        """Predict the efficiency of a base model without recorded runs; ``kind`` is a form's."""
        known = self._devices.get(device)
        return known.share((dtype, kind)) if known else usual_share(device)


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


def credible_ratios(
    results: Iterable[FinalResult],
) -> list[tuple[FinalResult, tuple[tuple[str, Key], float]]]:
    """Return :func:`ideal_ratio` of every run that has one, without machines whose steps beat the ideal.

    If half of a machine's runs beat :data:`MOST_CREDIBLE`, its rates were measured while it was busy.
    """
    by_machine: dict[str, list[tuple[FinalResult, tuple[tuple[str, Key], float]]]] = defaultdict(list)
    for result in results:
        found = ideal_ratio(result)
        if found is not None and result.step_cost is not None:
            by_machine[repr(result.step_cost.machine)].append((result, found))
    return [
        pair
        for pairs in by_machine.values()
        if median(ratio for _, (_, ratio) in pairs) <= MOST_CREDIBLE[pairs[0][1][0][0]]
        for pair in pairs
    ]


def ideal_ratio(result: FinalResult) -> tuple[tuple[str, Key], float] | None:
    """Return the group of a run, (device, (dtype, kind)), and ideal over measured seconds of its steps.

    None if the formulas do not know the model or the method, or the run is too short.
    """
    step_cost = result.step_cost
    if step_cost is None or step_cost.seconds <= 0 or step_cost.steps < FEWEST_STEPS:
        return None
    device = device_kind(step_cost.machine.device)
    pipeline, batch = result.pipeline, int(result.pipeline.number("per_device_train_batch_size", 8))
    if pipeline.method not in LEARNED_METHODS:
        return None
    workload = workload_of(
        pipeline,
        result.model,
        dtype=step_cost.dtype,
        device=device,
        batch_size=batch,
        max_length=max(1, round(step_cost.tokens / batch)),
        label_tokens=max(1, round(step_cost.label_tokens / batch)),
    )
    form = None if workload is None else form_of(result.model, workload)
    if workload is None or form is None:
        return None
    ideal = estimate_seconds(result.model, workload, step_cost.machine, efficiency=1.0)
    return (device, (step_cost.dtype, form.kind)), ideal.step / step_cost.seconds


def _posterior(mean: float, variance: float, seen: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return mean and variance of a normal variable after noisy observations, each with its variance."""
    precision = 1 / variance + sum(1 / noise for _, noise in seen)
    weighted = mean / variance + sum(value / noise for value, noise in seen)
    return weighted / precision, 1 / precision
