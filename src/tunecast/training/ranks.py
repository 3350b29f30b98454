"""The processes that train one trial together, each on a device of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those that share a trial; they all do the same things in the same order.

    Whatever only one of them can know, such as a time or the state of a disk, the first one tells the others:
    if they decided differently, each would wait for the others forever.

    Args:
        number: Number of this process, from 0.
        count: How many processes share the trial.
    """

    number: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and answers."""
        return self.number == 0

    @property
    def share(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    def part(self, items: Sequence[T]) -> Sequence[T]:
        """Return the items that fall to this process, of neighbours about as many to each."""
        return items[self.number :: self.count]

    def first(self, decide: Callable[[], T]) -> T:
        """Return in all processes what the first one decides."""
        if not self.share:
            return decide()
        from torch.distributed import broadcast_object_list

        told: list[Any] = [decide() if self.is_first else None]
        broadcast_object_list(told, src=0)
        found: T = told[0]
        return found

    def each(self, own: T) -> list[T]:
        """Return what every process has, in the order of their numbers."""
        if not self.share:
            return [own]
        from torch.distributed import all_gather_object

        found: list[Any] = [None] * self.count
        all_gather_object(found, own)
        return found

    def sums(self, *values: float) -> tuple[float, ...]:
        """Add numbers up over all processes."""
        return tuple(map(sum, zip(*self.each(values), strict=True))) if self.share else values


ALONE = Ranks()
"""The usual case: a trial is trained by one process."""
