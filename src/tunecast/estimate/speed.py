"""How fast kinds of devices work: coefficients fitted to published steps, kept as data beside this file.

A pass on CUDA is bound by the longest of three that run beside each other: the device's work, the host that
starts it, and the links to other devices. On a processor, one kernel starts after the other, and the share of
its ideal is learned from recorded runs alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from tunecast.estimate.constants import EFFICIENCY, KERNEL_SECONDS
from tunecast.records import device_kind

FILE = "speed.json"
POWER = 3.0
"""Exponent of the norm that joins what runs side by side: near the longest, above it where two are close."""
UNPACKED_BYTES = 2.0
"""Bytes of a quantised weight once it is unpacked."""


@dataclass(frozen=True)
class Speed:
    """What real steps reach of a device's stated rates.

    Args:
        arithmetic: Share of the stated FLOP/s.
        traffic: Share of the stated bandwidth.
        unpacking: The same while quantised weights are unpacked.
        start: Seconds that the host takes to start a kernel.
        link: Bytes per second between one device and the others.
        wrapped: Seconds per pass and trained tensor that FSDP gathers and reduces on its own, as it does with
            peft's adapters.
        reduced: The same for adapters outside of FSDP, as fused kernels have them.
    """

    arithmetic: float = 1.0
    traffic: float = 1.0
    unpacking: float = 1.0
    start: float = KERNEL_SECONDS
    link: float = 1e11
    wrapped: float = 0.0
    reduced: float = 0.0


IDEAL = Speed()


@dataclass(frozen=True)
class Reached:
    """The efficiency of steps relative to a kind of device's speed: its median, and the standard deviation
    of its logarithm between base models and sources; None where runs have to teach it.
    """

    value: float
    deviation: float | None = None


def speed_of(device: str) -> Speed:
    """Return the speed of a kind of device."""
    return _fitted()[0] if device_kind(device) == "cuda" else IDEAL


def usual_efficiency(device: str) -> Reached:
    """Return the efficiency that is assumed before any run is known."""
    return Reached(1.0, _fitted()[1]) if device_kind(device) == "cuda" else Reached(EFFICIENCY)


def longest(*seconds: float) -> float:
    """Return the seconds of work that runs side by side."""
    return float(sum(each**POWER for each in seconds) ** (1 / POWER))


@cache
def _fitted() -> tuple[Speed, float]:
    found = json.loads(files("tunecast.estimate").joinpath(FILE).read_text(encoding="utf-8"))
    return Speed(**found["cuda"]), float(found["deviation"])
