"""MeZO's optimiser: estimates gradients from pairs of losses, with the memory of inference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

CHUNK = 1 << 18
"""Elements of a direction that are held in memory at a time."""

Draw = tuple[torch.Tensor, torch.Generator]
"""A parameter and the generator of its part of a direction."""


class ZerothOrder(Optimizer):
    """Simultaneous perturbation (Malladi et al., arXiv 2305.17333, algorithms 1 and 2).

    With ``g = (L(w + eps * z) - L(w - eps * z)) / (2 * eps)`` and z from N(0, I), weights become ``w - lr *
    (g * z + weight_decay * w)``; vectors do not decay. ``perturbation`` is eps. Along several ``directions``
    the ``g * z`` add up: their mean, at a rate that grows with their number.

    Weights are perturbed where they are used, one tensor at a time, and never written to before the step, so
    that they are as they were to the bit after a loss, whatever their type. z is never stored: private
    generators draw it again from a seed. No state is kept between steps. Weights of 16 bits are rounded up or
    down at random, in proportion to the distance, because nearly all steps are smaller than half of the
    distance between neighbours.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        perturbation: float,
        weight_decay: float = 0.0,
        directions: int = 1,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.perturbation = perturbation
        self.directions = directions
        self.slopes: tuple[float, ...] = ()
        """What :meth:`estimate` measured along each direction, in float32 as logs keep them."""
        self._seed = 0
        self._buffers: dict[tuple[torch.device, torch.dtype, int], torch.Tensor] = {}

    @property
    def gradient_norm(self) -> float:
        """Root mean square of the slopes; its square estimates that of the gradient's norm."""
        return math.sqrt(sum(slope**2 for slope in self.slopes) / max(len(self.slopes), 1))

    @torch.no_grad()
    def estimate(self, loss: Callable[[], float], seed: int) -> None:
        """Measure the slopes along random directions.

        Nothing but the weights may differ between calls of ``loss``. The first of each two is above.
        """
        self._seed = seed
        slopes = []
        for number in range(self.directions):
            above, below = (self._perturbed(loss, number, sign * self.perturbation) for sign in (1, -1))
            with np.errstate(over="ignore"):  # a slope that is not finite is the caller's to skip
                slopes.append(float(np.float32((above - below) / (2 * self.perturbation))))
        self.slopes = tuple(slopes)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move against the slopes that :meth:`estimate` measured."""
        loss = closure() if closure else None
        directions = [self._draws(number) for number in range(len(self.slopes))]
        rounding = self._draws(len(self.slopes))
        for group, along, (parameter, dither) in zip(
            self._groups(), zip(*directions, strict=True), rounding, strict=True
        ):
            decay = group["lr"] * group["weight_decay"] if parameter.ndim > 1 else 0.0
            for part in parameter.detach().view(-1).split(CHUNK):
                moved = self._buffer(part, _wide(part), 0).copy_(part).mul_(1 - decay)
                for slope, (_, generator) in zip(self.slopes, along, strict=True):
                    moved.add_(self._drawn(part, generator), alpha=-group["lr"] * slope)
                part.copy_(moved if moved.dtype == part.dtype else self._rounded(moved, part, dither))
        return loss

    def replay(self, seed: int, *slopes: float) -> None:
        """Take the step of slopes that :meth:`estimate` measured before along the directions of ``seed``."""
        self._seed, self.slopes = seed, slopes
        self.step()

    def direction(self, number: int = 0) -> list[torch.Tensor]:
        """Return a direction of the latest seed, one tensor per parameter in float32; for small models."""
        found = []
        for parameter, generator in self._draws(number):
            parts = parameter.detach().view(-1).split(CHUNK)
            drawn = torch.cat([self._drawn(part, generator).clone() for part in parts])
            found.append(drawn.view(parameter.shape))
        return found

    def _perturbed(self, loss: Callable[[], float], number: int, distance: float) -> float:
        draws = {id(parameter): (parameter, generator) for parameter, generator in self._draws(number)}
        seeds = {key: generator.initial_seed() for key, (_, generator) in draws.items()}

        def moved(parameter: torch.Tensor) -> torch.Tensor:
            generator = draws[id(parameter)][1].manual_seed(seeds[id(parameter)])
            return self._moved(parameter.detach(), generator, distance)

        with _Substituted(draws, moved):
            return loss()

    def _moved(self, parameter: torch.Tensor, generator: torch.Generator, distance: float) -> torch.Tensor:
        """Return a copy of a parameter, moved along its part of a direction."""
        result = torch.empty_like(parameter, memory_format=torch.contiguous_format)
        for part, target in zip(parameter.view(-1).split(CHUNK), result.view(-1).split(CHUNK), strict=True):
            drawn = self._drawn(part, generator)
            target.copy_(drawn.mul_(distance).add_(part))
        return result

    def _groups(self) -> Iterator[dict[str, Any]]:
        """Yield the group of each parameter, in the order of :meth:`_draws`."""
        for group in self.param_groups:
            for _ in group["params"]:
                yield group

    def _draws(self, number: int) -> Iterator[Draw]:
        """Yield all parameters in a fixed order, each with its generator of direction ``number``."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        seeds = np.random.SeedSequence([self._seed, number]).generate_state(len(parameters))
        for parameter, seed in zip(parameters, seeds, strict=True):
            yield parameter, torch.Generator(parameter.device).manual_seed(int(seed))

    def _drawn(self, part: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.randn(part.shape, generator=generator, out=self._buffer(part, _wide(part), 1))

    def _rounded(self, moved: torch.Tensor, part: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Round float32 numbers in place so that those of the part's type have them as their mean."""
        lost = 23 + int(math.log2(torch.finfo(part.dtype).eps))  # bits of the mantissa
        dither = self._buffer(part, torch.int32, 2).random_(0, 1 << lost, generator=generator)
        moved.view(torch.int32).add_(dither).bitwise_and_(-1 << lost)
        return moved

    def _buffer(self, part: torch.Tensor, dtype: torch.dtype, place: int) -> torch.Tensor:
        """Return a buffer that is allocated once: later, memory could run out with half the weights moved."""
        kind = part.device, dtype, place
        if kind not in self._buffers:
            with torch.inference_mode(False):  # a loss may be in it, and the step is not
                self._buffers[kind] = torch.empty(CHUNK, device=part.device, dtype=dtype)
        return self._buffers[kind][: part.numel()]


def _wide(part: torch.Tensor) -> torch.dtype:
    """Return the type to compute in: float32, or float64 where weights are."""
    return torch.promote_types(part.dtype, torch.float32)


class _Substituted(TorchFunctionMode):
    """Replaces parameters in the arguments of every torch function, each for the time of the call.

    Args:
        known: The parameters by ``id``.
        replacement: Makes what stands in for a parameter.
    """

    def __init__(self, known: Mapping[int, Any], replacement: Callable[[Any], Any]) -> None:
        super().__init__()
        self._known = known
        self._replacement = replacement

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if not (self._has_known(args) or self._has_known(tuple(named.values()))):
            return func(*args, **named)
        if getattr(func, "__name__", "") == "__get__":  # an attribute: shape, dtype, T, ...
            found = func(*args, **named)
            if not isinstance(found, torch.Tensor):
                return found
        return func(*self._replaced(args), **{name: self._replaced(value) for name, value in named.items()})

    def _has_known(self, values: Sequence[Any]) -> bool:
        return any(
            id(value) in self._known or (isinstance(value, list | tuple) and self._has_known(value))
            for value in values
        )

    def _replaced(self, value: Any) -> Any:
        if isinstance(value, list | tuple) and self._has_known(value):
            return type(value)([self._replaced(one) for one in value])
        return self._replacement(value) if id(value) in self._known else value
