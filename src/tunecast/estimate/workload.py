"""A finetuning as the estimates see it, and their answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Literal

from tunecast.errors import ConfigurationError
from tunecast.estimate.constants import HEADROOM, MAX_SHARE, MIN_SHARE
from tunecast.optimizers import OPTIMIZERS, Kernel
from tunecast.ranges import check_range

Precision = Literal["float32", "bfloat16", "float16", "8-bit", "4-bit"]
Attention = Literal["eager", "sdpa", "flash"]
Convention = Literal["tunecast", "hf-trainer"]
Sharding = Literal["none", "zero1", "zero2", "zero3", "fsdp"]
Kernels = Literal["torch", "fused", "liger"]

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "precision": ("float32", "bfloat16", "float16", "8-bit", "4-bit"),
    "optimizer": tuple(OPTIMIZERS),
    "attention": ("eager", "sdpa", "flash"),
    "convention": ("tunecast", "hf-trainer"),
    "sharding": ("none", "zero1", "zero2", "zero3", "fsdp"),
    "kernels": ("torch", "fused", "liger"),
    "device": ("cpu", "cuda"),
}


@dataclass(frozen=True)
class Part:
    """Some of the model's own weights, to be trained while the rest stays frozen.

    Args:
        label: Tells this part from others; parts of equal labels are equal.
        top_layers: Number of trained layers where these are the last ones and the normalisation after them;
            None for any other choice.
        has_matrices: Whether matrices are trained, or vectors only.
    """

    label: str
    names: Callable[[Any], Collection[str]] = field(compare=False, repr=False)
    top_layers: int | None = None
    has_matrices: bool = True

    @classmethod
    def of_top_layers(cls, layers: int, names: Callable[[Any], Collection[str]]) -> Part:
        """Return the last ``layers`` layers and the normalisation after them."""
        return cls(f"top layers {layers}", names, layers)


@dataclass(frozen=True)
class Footprint:
    """The weights and bytes that a method trains and holds, independent of the batch.

    Args:
        adapter: The peft configuration as JSON (``peft_type``, ``r``, ...); None where the model's own
            weights are trained.
        part: Which of the model's own weights are trained; None for all.
        four_bit: Whether frozen linear layers are held in four bits.
        optimizer: The optimiser that the method prescribes; empty where the pipeline chooses.
        gradient_workspace: Bytes of temporaries per element of the largest trained matrix while the method
            changes the gradients of a step.
    """

    adapter: Mapping[str, Any] | None = None
    part: Part | None = None
    four_bit: bool = False
    optimizer: str = ""
    gradient_workspace: float = 0.0


@dataclass(frozen=True)
class Workload:
    """A finetuning whose bytes and seconds are estimated.

    Args:
        adapter: As in :class:`Footprint`.
        part: As in :class:`Footprint`.
        gradient_workspace: As in :class:`Footprint`.
        precision: Type of frozen weights and of compute; with ``8-bit`` and ``4-bit`` the frozen linear
            layers are quantised and compute is bfloat16.
        optimizer: A name of :data:`tunecast.optimizers.OPTIMIZERS`; ``none`` counts no optimiser at all.
        batch_size: Examples of one forward pass on one device.
        step_examples: Examples of one optimiser step on one device; None for one forward pass.
        max_length: Longest sequence in tokens; for an encoder-decoder the length of its input.
        label_tokens: Tokens of an example that carry a label: logits of the ``tunecast`` convention, decoder
            length of an encoder-decoder. None takes ``max_length``, the upper bound.
        eval_batch_size: Examples of one forward pass of evaluation; None takes ``batch_size``.
        evaluates: Whether evaluation counts; without it, no batch is scored and nothing is generated.
        max_new_tokens: Tokens generated per prompt in evaluation, 0 when nothing is generated.
        prompt_length: Longest prompt that is generated from; None takes ``max_length`` less
            ``max_new_tokens``.
        gradient_checkpointing: Whether only each layer's input is kept and the rest recomputed.
        attention: ``flash`` takes no mask and shares keys among query heads; ``sdpa`` carries the mask of a
            padded batch; ``eager`` keeps the scores.
        convention: ``tunecast``: trained weights are float32, compute is autocast, AdamW is fused, and logits
            are made only where there are labels. ``hf-trainer``: trained weights have the type that they are
            loaded in or that peft gives them, compute is autocast only in mixed precision, logits are made
            everywhere, and AdamW is torch's own.
        mixed_precision: Whether an ``hf-trainer`` run has the Trainer's ``bf16`` or ``fp16`` flag. With
            ``fsdp``, trained weights are then float32.
        kernels: ``fused``: norms, rotary embeddings and the loss are one kernel each; ``liger``: so are the
            head and the loss together, which never make all logits at once.
        adapter_dtype: Type of the adapter's weights; None for the convention's.
        double_quantised: Whether the scales of a four-bit base are quantised too.
        upcast_frozen: Whether all frozen weights that are not quantised are float32, as peft's
            ``prepare_model_for_kbit_training`` makes them.
        sharding: What is spread over ``devices``: ``zero1`` optimiser state, ``zero2`` gradients too,
            ``zero3`` and ``fsdp`` weights too. The first three, DeepSpeed's, add a float32 copy of trained
            weights to the optimiser state.
        devices: Number of devices that share.
        device: Kind of device, ``cpu`` or ``cuda``.
        device_memory_bytes: Memory of one device; None leaves ``fits`` unanswered.
        directions: Random directions of a zeroth-order step.
    """

    adapter: Mapping[str, Any] | None = None
    precision: Precision = "bfloat16"
    optimizer: str = "adamw"
    batch_size: int = 1
    max_length: int = 512
    label_tokens: int | None = None
    eval_batch_size: int | None = None
    evaluates: bool = True
    max_new_tokens: int = 0
    prompt_length: int | None = None
    gradient_checkpointing: bool = False
    step_examples: int | None = None
    attention: Attention = "sdpa"
    convention: Convention = "tunecast"
    mixed_precision: bool = False
    kernels: Kernels = "torch"
    adapter_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    double_quantised: bool = True
    upcast_frozen: bool = False
    sharding: Sharding = "none"
    devices: int = 1
    device: Literal["cpu", "cuda"] = "cuda"
    device_memory_bytes: int | None = None
    part: Part | None = None
    gradient_workspace: float = 0.0
    directions: int = 1

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigurationError(
                    f"{name} {getattr(self, name)!r} is unknown.", f"Use one of {', '.join(allowed)}."
                )
        for name in ("batch_size", "eval_batch_size", "max_length", "devices", "max_new_tokens"):
            check_range(name, getattr(self, name), called=name)
        if self.adapter is None and self.precision in ("8-bit", "4-bit"):
            raise ConfigurationError(
                f"Full finetuning cannot train {self.precision} weights.",
                "Use an adapter method, or a float precision.",
            )

    @property
    def passes(self) -> int:
        """Batches of an optimiser step."""
        return max(1, ceil((self.step_examples or 1) / self.batch_size))

    @property
    def trains_in_place(self) -> bool:
        """Whether the model's own matrices are trained in the type in which they are loaded."""
        own = self.adapter is None and self.part is None
        return own and not OPTIMIZERS[self.optimizer].uses_gradients

    @property
    def optimizer_kernel(self) -> Kernel:
        """Kernel of the optimiser: Tunecast's is fused; plain torch.optim loops on a CPU, not on CUDA."""
        if self.convention == "tunecast":
            return "fused"
        return "foreach" if self.device == "cuda" else "loop"

    @property
    def autocast_dtype(self) -> str | None:
        """Name of the type that matrix products are cast to; None where nothing is autocast."""
        casts = self.convention == "tunecast" or self.mixed_precision
        return self.compute_dtype if casts and self.compute_dtype != "float32" else None

    @property
    def keeps_float32(self) -> bool:
        """Whether sharding keeps trained weights of 16 bits in float32 as well, or instead."""
        return self.sharding.startswith("zero") or (self.sharding == "fsdp" and self.mixed_precision)

    @property
    def compute_dtype(self) -> str:
        """Name of the torch dtype that activations have."""
        return "bfloat16" if self.precision in ("8-bit", "4-bit") else self.precision


def roomy_bytes(memory_bytes: int) -> int:
    """Return the bytes of a device that a plan may fill without being tight."""
    return int((1 - HEADROOM) * memory_bytes)


@dataclass(frozen=True)
class MemoryEstimate:
    """Predicted bytes on one device.

    Args:
        total_bytes: Peak of the process: the higher of both peaks, and the framework.
        parts: Bytes by part at that moment (``weights``, ``adapters``, ``gradients``, ``optimizer_state``,
            ``activations``, ``logits``, ``workspace``, ``kv_cache``, ``framework``); they add up to
            ``total_bytes``.
        training_parts: Bytes by part at the peak of training, without the framework.
        trainable_parameters: Number of parameters that are trained, tied ones once.
        fits: Whether ``total_bytes`` fits the device, None when its memory was not given.
        tight: Whether it fits, but takes some of the headroom that fragmentation and other programs need.
    """

    total_bytes: int
    parts: Mapping[str, int]
    training_parts: Mapping[str, int]
    evaluation_parts: Mapping[str, int]
    trainable_parameters: int
    fits: bool | None
    tight: bool = False

    @property
    def low_bytes(self) -> int:
        """Lower end of the 90% interval of the total."""
        return round(MIN_SHARE * self.total_bytes)

    @property
    def high_bytes(self) -> int:
        """Upper end of the 90% interval of the total."""
        return round(MAX_SHARE * self.total_bytes)

    @property
    def training_peak_bytes(self) -> int:
        """Bytes of tensors at the peak of training."""
        return sum(self.training_parts.values())

    @property
    def evaluation_peak_bytes(self) -> int:
        """Bytes of tensors at the peak of evaluation."""
        return sum(self.evaluation_parts.values())


@dataclass(frozen=True)
class SecondsEstimate:
    """Predicted durations in seconds.

    Args:
        step: One optimiser step: its forward and backward passes and the update.
        optimizer_step: The optimiser's part of it.
        scoring_batch: Scoring one evaluation batch; None where evaluation does not count.
        generated_token: One more token for every example of an evaluation batch, at the longest cache; None
            if nothing is generated.
        step_flops: FLOPs of the forward and backward passes.
    """

    step: float
    optimizer_step: float
    scoring_batch: float | None
    generated_token: float | None
    step_flops: float
