"""What is asked of the memory arithmetic, and its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tunecast.errors import ConfigurationError

Precision = Literal["float32", "bfloat16", "float16", "8-bit", "4-bit"]
Optimizer = Literal["adamw", "adamw-8bit", "adafactor", "lion", "sgd", "sgd-momentum", "none"]
Attention = Literal["eager", "sdpa", "flash"]
Convention = Literal["tunecast", "hf-trainer"]
Sharding = Literal["none", "zero1", "zero2", "zero3", "fsdp"]

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "precision": ("float32", "bfloat16", "float16", "8-bit", "4-bit"),
    "optimizer": ("adamw", "adamw-8bit", "adafactor", "lion", "sgd", "sgd-momentum", "none"),
    "attention": ("eager", "sdpa", "flash"),
    "convention": ("tunecast", "hf-trainer"),
    "sharding": ("none", "zero1", "zero2", "zero3", "fsdp"),
    "device": ("cpu", "cuda"),
}


@dataclass(frozen=True)
class MemoryRequest:
    """A finetuning whose memory is asked for.

    Args:
        adapter: The peft configuration as JSON (``peft_type``, ``r``, ...), None for full finetuning.
        precision: Type of frozen weights and of compute; with ``8-bit`` and ``4-bit`` the frozen linear
            layers are quantised and compute is bfloat16.
        optimizer: Determines state and the temporaries of a step; ``none`` for methods without one.
        batch_size: Examples of one forward pass on one device.
        max_length: Longest sequence in tokens; for an encoder-decoder the length of its input.
        label_tokens: Tokens of an example that carry a label: logits of the ``tunecast`` convention, decoder
            length of an encoder-decoder. None takes ``max_length``, the upper bound.
        eval_batch_size: Examples of one forward pass of evaluation; None takes ``batch_size``.
        evaluates: Whether evaluation counts; without it neither a batch is scored nor anything generated.
        max_new_tokens: Tokens generated per prompt in evaluation, 0 when nothing is generated.
        prompt_length: Longest prompt that is generated from; None takes ``max_length`` less
            ``max_new_tokens``.
        gradient_checkpointing: Whether only each layer's input is kept and the rest recomputed.
        gradient_accumulation: Whether a step has several forward passes, so that gradients live through them.
        attention: ``flash`` takes no mask and shares keys among query heads; ``sdpa`` carries the mask of a
            padded batch; ``eager`` keeps the scores.
        convention: ``tunecast``: what is trained is float32, compute is autocast, AdamW is fused, and logits
            are made only where there are labels. ``hf-trainer``: weights trained in the type they are loaded
            in, logits everywhere and held through the backward pass, torch's own AdamW.
        adapter_dtype: Type of the adapter's weights; None for float32, as peft makes them.
        sharding: What is spread over ``devices``: ``zero1`` optimiser state, ``zero2`` gradients too,
            ``zero3`` and ``fsdp`` weights too.
        devices: Number of devices that share.
        device: Kind of device, ``cpu`` or ``cuda``.
        device_memory_bytes: What there is on one device; None leaves ``fits`` unanswered.
    """

    adapter: Mapping[str, Any] | None = None
    precision: Precision = "bfloat16"
    optimizer: Optimizer = "adamw"
    batch_size: int = 1
    max_length: int = 512
    label_tokens: int | None = None
    eval_batch_size: int | None = None
    evaluates: bool = True
    max_new_tokens: int = 0
    prompt_length: int | None = None
    gradient_checkpointing: bool = False
    gradient_accumulation: bool = False
    attention: Attention = "sdpa"
    convention: Convention = "tunecast"
    adapter_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    sharding: Sharding = "none"
    devices: int = 1
    device: Literal["cpu", "cuda"] = "cuda"
    device_memory_bytes: int | None = None

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigurationError(
                    f"{name} {getattr(self, name)!r} is unknown.", f"Use one of {', '.join(allowed)}."
                )
        for name in ("batch_size", "max_length", "devices"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.max_new_tokens < 0:
            raise ConfigurationError(f"max_new_tokens must not be negative, not {self.max_new_tokens}.")
        if self.adapter is None and self.precision in ("8-bit", "4-bit"):
            raise ConfigurationError(
                f"Full finetuning cannot train {self.precision} weights.",
                "Use an adapter method, or a float precision.",
            )

    @property
    def optimizer_kernel(self) -> str:
        """How the optimiser runs: Tunecast's is fused; plain torch.optim loops on a CPU, not on CUDA."""
        if self.convention == "tunecast":
            return "fused"
        return "foreach" if self.device == "cuda" else "loop"

    @property
    def compute_dtype(self) -> str:
        """Name of the torch dtype that activations have."""
        return "bfloat16" if self.precision in ("8-bit", "4-bit") else self.precision


@dataclass(frozen=True)
class MemoryEstimate:
    """Predicted bytes on one device.

    Args:
        total_bytes: What the process holds at most: the higher of both peaks, and the framework.
        parts: Bytes by part at that moment (``weights``, ``adapters``, ``gradients``, ``optimizer_state``,
            ``activations``, ``logits``, ``workspace``, ``kv_cache``, ``framework``); they add up to
            ``total_bytes``.
        training_parts: Bytes by part at the peak of training, without the framework.
        evaluation_parts: Bytes by part at the peak of evaluation, without the framework.
        trainable_parameters: Number of parameters that are trained, tied ones once.
        fits: Whether ``total_bytes`` fits the device, None when its memory was not given.
    """

    total_bytes: int
    parts: Mapping[str, int]
    training_parts: Mapping[str, int]
    evaluation_parts: Mapping[str, int]
    trainable_parameters: int
    fits: bool | None

    @property
    def training_peak_bytes(self) -> int:
        """Bytes of tensors at the peak of training."""
        return sum(self.training_parts.values())

    @property
    def evaluation_peak_bytes(self) -> int:
        """Bytes of tensors at the peak of evaluation."""
        return sum(self.evaluation_parts.values())
