"""MeZO's optimiser: estimates gradients from two losses, with the memory of inference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer

CHUNK = 1 << 20
"""Elements of a direction that are held in memory at a time."""


class ZerothOrder(Optimizer):
    """Simultaneous perturbation in place (Malladi et al., arXiv 2305.17333, algorithm 1).

    With ``g = (L(w + eps * z) - L(w - eps * z)) / (2 * eps)`` and z from N(0, I), weights become ``w - lr *
    (g * z + weight_decay * w)``; vectors do not decay. ``perturbation`` is eps. z is never stored: a private
    generator draws it again from a seed, a million elements at a time. No state is kept between steps.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, perturbation: float, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.perturbation = perturbation
        self.projected_gradient = math.nan
        self._seed = 0
        self._buffers: dict[tuple[torch.device, torch.dtype], torch.Tensor] = {}

    @torch.no_grad()
    def estimate(self, loss: Callable[[], float], seed: int) -> None:
        """Measure the slope along a random direction, and restore the weights up to rounding.

        Nothing but the weights may differ between the two calls of ``loss``.
        """
        self._seed = seed
        away = 0.0
        try:
            away = self._walk(self.perturbation)
            above = loss()
            away += self._walk(-2 * self.perturbation)
            below = loss()
        finally:  # after running out of memory, the step is taken again with smaller batches
            self._walk(-away)
        self.projected_gradient = (above - below) / (2 * self.perturbation)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move against the slope that :meth:`estimate` measured."""
        loss = closure() if closure else None
        for generator, group, parameter in self._parameters():
            if parameter.ndim > 1 and group["weight_decay"]:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            self._add(parameter, -group["lr"] * self.projected_gradient, generator)
        return loss

    def replay(self, seed: int, projected_gradient: float) -> None:
        """Take the step of a slope that :meth:`estimate` measured before along the direction of ``seed``."""
        self._seed, self.projected_gradient = seed, projected_gradient
        self.step()

    def _walk(self, distance: float) -> float:
        for generator, _, parameter in self._parameters():
            self._add(parameter, distance, generator)
        return distance

    def _parameters(self) -> Iterable[tuple[torch.Generator, dict[str, Any], torch.Tensor]]:
        """Yield all parameters in a fixed order, each with its device's generator of the direction."""
        generators: dict[torch.device, torch.Generator] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                device = parameter.device
                if device not in generators:
                    generators[device] = torch.Generator(device).manual_seed(self._seed)
                yield generators[device], group, parameter

    def _add(self, parameter: torch.Tensor, scale: float, generator: torch.Generator) -> None:
        buffer = self._buffer(parameter)
        for part in parameter.detach().view(-1).split(CHUNK):
            drawn = torch.randn(part.shape, generator=generator, out=buffer[: part.numel()])
            part.add_(drawn, alpha=scale)

    def _buffer(self, parameter: torch.Tensor) -> torch.Tensor:
        """Return a buffer that is allocated once: later, memory could run out with half the weights moved."""
        kind = parameter.device, parameter.dtype
        if kind not in self._buffers:
            self._buffers[kind] = torch.empty(CHUNK, device=parameter.device, dtype=parameter.dtype)
        return self._buffers[kind]
