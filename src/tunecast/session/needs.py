"""What decides the bytes of a pipeline, and which of many fit a limit with few estimates.

An estimate takes some tenths of a second, and a session has hundreds of candidates. Most of them differ only
in what takes no bytes, such as the learning rate, and the rest are ordered: of two adapters that are alike in
all else, the one of higher rank holds more, and so does the one with dropout.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from tunecast.estimate import MemoryRequest, estimate_memory
from tunecast.methods.memory import adapter_of, is_predictable, optimizer_of
from tunecast.records import Pipeline

if TYPE_CHECKING:
    from tunecast.training.training_task import TrainingTask

MOST = ("adamw", "all-linear")
"""The choices of optimiser and of target layers that hold at least as much as any other."""
ORDERED = {"LORA": ("r", "lora_dropout", "use_dora")}
"""Fields by type of adapter of which a larger value never holds less."""
WITHOUT_BYTES = frozenset({"lora_alpha", "alpha", "use_rslora", "init_lora_weights", "init_weights"})
"""Fields of an adapter that change numbers, not shapes."""
SOME_DROPOUT = 0.1
"""Stands for any: that something is dropped takes memory, not how much of it."""
PROBED_RANKS = (8, 32)


@dataclass(frozen=True)
class Need:
    """What decides the bytes of a pipeline; equal needs hold equally much.

    Args:
        kind: All that has no order, as JSON.
        choices: Optimiser and target layers.
        extent: Numbers of which, all else being equal, larger ones never hold less.
        request: What the memory arithmetic is asked.
    """

    kind: str
    choices: tuple[str, ...]
    extent: tuple[float, ...]
    request: MemoryRequest = field(compare=False, repr=False)

    def is_at_most(self, other: Need) -> bool:
        """Whether this certainly holds no more than the other."""
        chosen = zip(self.choices, other.choices, MOST, strict=True)
        return (
            self.kind == other.kind
            and all(theirs in (mine, most) for mine, theirs, most in chosen)
            and all(mine <= theirs for mine, theirs in zip(self.extent, other.extent, strict=True))
        )


def single_example(training_task: TrainingTask) -> MemoryRequest:
    """Full finetuning of a task with one example per forward pass, the longest one.

    Evaluation is left out: scoring one example, or answering it, holds less than training on it does.

    Args:
        training_task: The task, encoded.
    """
    examples = (*training_task.train, *training_task.validation, *training_task.test)
    device: Literal["cpu", "cuda"] = "cuda" if training_task.device.startswith("cuda") else "cpu"
    return MemoryRequest(
        precision="float32" if training_task.dtype == "float32" else "bfloat16",
        batch_size=1,
        max_length=max(len(example.input_ids) for example in examples),
        label_tokens=max(1, *(example.label_tokens for example in examples)),
        evaluates=False,
        attention="eager" if training_task.deterministic and device == "cuda" else "sdpa",
        device=device,
    )


def need_of(pipeline: Pipeline, training_task: TrainingTask, single: MemoryRequest) -> Need | None:
    """What decides the bytes of a pipeline with one example per forward pass.

    Args:
        pipeline: A candidate.
        training_task: The task.
        single: What :func:`single_example` returned for it.

    Returns:
        None where the memory arithmetic does not know the method.
    """
    if not is_predictable(pipeline):
        return None
    adapter = adapter_of(pipeline, training_task.facts)
    plain = None if adapter is None else _plain(adapter)
    rest = dict(plain or {})
    numbers = [float(rest.pop(name, 0)) for name in ORDERED.get(str(rest.get("peft_type")), ())]
    targets = rest.pop("target_modules", None)
    accumulates = pipeline.number("per_device_train_batch_size") > 1
    optimizer = optimizer_of(pipeline)
    return Need(
        kind=json.dumps([plain is None, rest], default=sorted, sort_keys=True),
        choices=(optimizer, targets if isinstance(targets, str) else json.dumps(targets, default=sorted)),
        extent=(float(accumulates), *numbers),
        request=replace(single, adapter=plain, optimizer=optimizer, gradient_accumulation=accumulates),
    )


def estimated_bytes(config: Any, request: MemoryRequest) -> int:
    """The peak of a finetuning in bytes, as :func:`estimate_memory` has it; of LoRA with fewer dry runs.

    A rank more takes the same bytes with dropout and DoRA as without (on SmolLM2 to the byte), so that two
    ranks of the plain adapter tell of all ranks of its variants.

    Raises:
        ModelError: As :func:`estimate_memory`.
        ConfigurationError: As :func:`estimate_memory`.
    """
    adapter = request.adapter
    if adapter is None or adapter["peft_type"] != "LORA":
        return estimate_memory(config, request).total_bytes

    def at_rank(rank: int, **changes: Any) -> int:
        changed = replace(request, adapter={**adapter, **changes, "r": rank})
        return estimate_memory(config, changed).total_bytes

    low, high = PROBED_RANKS
    of_ranks = at_rank(high, lora_dropout=0.0, use_dora=False) - at_rank(
        low, lora_dropout=0.0, use_dora=False
    )
    return at_rank(low) + round((adapter["r"] - low) * of_ranks / (high - low))


def which_fit(
    needs: Collection[Need], limit_bytes: int, bytes_of: Callable[[Need], int | None]
) -> tuple[set[Need], int | None]:
    """Sort out which needs fit, with as few estimates as their order allows.

    Args:
        needs: Distinct needs.
        limit_bytes: What there is.
        bytes_of: Estimates a need; None where that is impossible.

    Returns:
        Those that fit or cannot be estimated; and the fewest bytes of the others, None where there are none.
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
    """What to estimate next: the largest, since often all fit; the smallest; then what decides the most."""
    below = {need: sum(other.is_at_most(need) for other in undecided) for need in undecided}
    above = {need: sum(need.is_at_most(other) for other in undecided) for need in undecided}
    decides = (below, above)[estimates] if estimates < 2 else {n: min(below[n], above[n]) for n in undecided}
    return max(undecided, key=lambda need: decides[need])


def _plain(adapter: Mapping[str, Any]) -> dict[str, Any]:
    """An adapter without what takes no bytes, so that those that hold equally much are equal."""
    plain = {name: value for name, value in adapter.items() if name not in WITHOUT_BYTES}
    for name, value in plain.items():
        if name.endswith("dropout") and isinstance(value, int | float):
            plain[name] = SOME_DROPOUT if value else 0.0
    return plain
