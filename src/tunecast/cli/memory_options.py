"""The options that ``tunecast memory`` alone has, with their help texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunecast.cli import options

MAX_EXAMPLES = 1_000_000
"""Largest batch: with far more, tensors have more elements than torch can count."""

Method = Annotated[str | None, typer.Option("--method", help="A finetuning method. (default: lora)")]
PeftConfig = Annotated[
    Path | None,
    typer.Option(
        "--peft-config", parser=options.path, help="An adapter_config.json of any peft method instead."
    ),
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", min=1, max=MAX_EXAMPLES, help="Examples per step.")
]
MaxLength = Annotated[int | None, typer.Option("--max-length", min=1, help="Longest sequence in tokens.")]
EvalBatchSize = Annotated[
    int | None,
    typer.Option("--eval-batch-size", min=1, max=MAX_EXAMPLES, help="Examples per evaluation batch."),
]
MaxNewTokens = Annotated[
    int, typer.Option("--max-new-tokens", min=0, help="Tokens generated per prompt in evaluation.")
]
Precision = Annotated[
    str | None, typer.Option("--precision", help="float32, bfloat16, float16, 8-bit or 4-bit.")
]
Optimizer = Annotated[
    str | None, typer.Option("--optimizer", help="adamw, adamw-8bit, adafactor, lion, sgd or muon.")
]
GradientCheckpointing = Annotated[
    bool, typer.Option("--gradient-checkpointing", help="Recompute activations.")
]
Attention = Annotated[str, typer.Option("--attention", help="sdpa, flash or eager.")]
Convention = Annotated[
    str, typer.Option("--convention", help="tunecast, or hf-trainer: logits everywhere, no float32 copy.")
]
MixedPrecision = Annotated[
    bool, typer.Option("--mixed-precision", help="The Trainer's bf16 or fp16 flag, with hf-trainer.")
]
Kernels = Annotated[
    str, typer.Option("--kernels", help="torch; fused norms and loss; or liger, which makes no logits.")
]
Sharding = Annotated[
    str, typer.Option("--sharding", help="none, zero1, zero2, zero3 or fsdp, over --devices.")
]
Devices = Annotated[int, typer.Option("--devices", min=1, help="Devices that share the model.")]
