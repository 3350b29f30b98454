"""Finds which of many workloads fit a limit with few dry runs.

A dry run takes some tenths of a second, and a session has hundreds of candidates. Most of them differ only in
choices that take no bytes, such as the learning rate, and the rest are ordered: of two adapters that are
otherwise alike, the one of higher rank holds more, and so does the one with dropout.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tunecast.estimate.peak_bytes import estimate_memory, shape_of
from tunecast.estimate.workload import Workload

LARGEST_CHOICES = ("adamw", "all-linear")
"""The choices of optimiser and of target layers that hold at least as much as any other."""
ORDERED = {"LORA": ("r", "lora_dropout", "use_dora")}
"""Fields by type of adapter whose larger values never hold less."""
PROBED_RANKS = (8, 32)


@dataclass(frozen=True)
class Need:
    """The parts of a workload that decide its bytes; equal needs hold equally much.

    Args:
        kind: All fields without order, as JSON.
        choices: Optimiser and target layers.
        extent: Numbers that, all else being equal, never hold less when larger.
    """

    kind: str
    choices: tuple[str, ...]
    extent: tuple[float, ...]
    workload: Workload = field(compare=False, repr=False)

    @classmethod
    def of(cls, workload: Workload) -> Need:
        """Return the need of a workload; compared workloads must agree in all that is not trained or held."""
        shape = None if workload.adapter is None else shape_of(workload.adapter)
        rest = dict(shape or {})
        numbers = [float(rest.pop(name, 0)) for name in ORDERED.get(str(rest.get("peft_type")), ())]
        targets = rest.pop("target_modules", None)
        placed = targets if isinstance(targets, str) else json.dumps(targets, default=sorted)
        label = None if workload.part is None else workload.part.label
        without_gradients = workload.optimizer == "mezo"
        kind = [shape is None, label, workload.precision, workload.gradient_workspace, without_gradients]
        kind.append(workload.gradient_checkpointing)
        return cls(
            kind=json.dumps([*kind, rest], default=sorted, sort_keys=True),
            choices=(workload.optimizer, placed),
            extent=(float(workload.passes > 1), *numbers),
            workload=replace(workload, adapter=shape),
        )

    def is_at_most(self, other: Need) -> bool:
        """Whether this certainly holds no more than the other."""
        chosen = zip(self.choices, other.choices, LARGEST_CHOICES, strict=True)
        return (
            self.kind == other.kind
            and all(theirs in (mine, most) for mine, theirs, most in chosen)
            and all(mine <= theirs for mine, theirs in zip(self.extent, other.extent, strict=True))
        )


def dry_run_bytes(config: Any, workload: Workload) -> int:
    """Return the peak of a finetuning in bytes by dry run, with fewer dry runs for LoRA.

    One more rank takes the same bytes with dropout and DoRA as without (on SmolLM2 to the byte), so two ranks
    of the plain adapter determine all ranks of its variants.

    Raises:
        ModelError: The configuration's class has no text-generating model.
        ConfigurationError: The adapter does not suit the model, or cannot be built without weights.
    """
    adapter = workload.adapter
    if adapter is None or adapter["peft_type"] != "LORA":
        return estimate_memory(config, workload).total_bytes

    def at_rank(rank: int, **changes: Any) -> int:
        changed = replace(workload, adapter={**adapter, **changes, "r": rank})
        return estimate_memory(config, changed).total_bytes

    low, high = PROBED_RANKS
    plain = {"lora_dropout": 0.0, "use_dora": False}
    of_ranks = at_rank(high, **plain) - at_rank(low, **plain)
    return at_rank(low) + round((adapter["r"] - low) * of_ranks / (high - low))


def which_fit(
    needs: Collection[Need], limit_bytes: int, bytes_of: Callable[[Need], int | None]
) -> tuple[set[Need], int | None]:
    """Sort out which distinct needs fit, with as few estimates as their order allows.

    Returns:
        Needs that fit or cannot be estimated; and the fewest bytes of the others, None if all fit.
    """
    fitting: set[Need] = set()
    too_many: list[int] = []
    for kind in dict.fromkeys(need.kind for need in needs):
        undecided = [need for need in needs if need.kind == kind]
        estimates = 0
        while undecided:
            probe = _probe(undecided, estimates)
            found = bytes_of(probe)
            estimates += 1
            if found is not None and found > limit_bytes:
                decided = {need for need in undecided if probe.is_at_most(need)}
                too_many.append(found)
            else:
                smaller = {need for need in undecided if need.is_at_most(probe)}
                decided = {probe} if found is None else smaller
                fitting |= decided
            undecided = [need for need in undecided if need not in decided]
    return fitting, min(too_many, default=None)


def _probe(undecided: Sequence[Need], estimates: int) -> Need:
    """Choose the next estimate: the largest, since often all fit; the smallest; then the most decisive."""
    below = {need: sum(other.is_at_most(need) for other in undecided) for need in undecided}
    above = {need: sum(need.is_at_most(other) for other in undecided) for need in undecided}
    decides = (below, above)[estimates] if estimates < 2 else {n: min(below[n], above[n]) for n in undecided}
    return max(undecided, key=lambda need: decides[need])
