"""Conversion of hyperparameters of transformers and peft to those of pipelines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tunecast.records import Scalar

TRAINING_NAMES = (
    *("learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("lr_scheduler_type", "warmup_ratio", "warmup_steps", "optim", "weight_decay", "max_grad_norm"),
    *("neftune_noise_alpha", "label_smoothing_factor"),
)
"""Arguments of a Trainer that are hyperparameters of a pipeline. Epochs are not: they set the full length."""

LORA_NAMES = ("lora_r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "use_dora")
"""Hyperparameters of LoRA that tables and MLflow's parameters name as pipelines do."""

_END_OF_INTEGERS = 2**63  # limit of a database column

# Hyperparameters of peft's configurations by method; others have no name in a pipeline.
_PEFT_NAMES = {
    "lora": ("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora"),
    "prompt_tuning": ("num_virtual_tokens",),
    "prefix_tuning": ("num_virtual_tokens",),
    "p_tuning": ("num_virtual_tokens",),
    "adalora": ("init_r", "target_r", "lora_alpha"),
}


def number(value: Any) -> float | None:
    """Parse a number or its text; None for anything else."""
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer beyond all floats; its text would give infinity too
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        return None


def same_number(one: float, other: float) -> bool:
    """Whether two recorded numbers are equal; NaN equals NaN."""
    return one == other or (math.isnan(one) and math.isnan(other))


def whole(value: Any) -> int | None:
    """Parse a non-negative integer that every database can store, or its text; None for anything else."""
    read = number(value)
    if read is None or not math.isfinite(read) or not read.is_integer():
        return None
    try:  # an integer is exact, whereas a float has 53 bits
        exact = int(value)
    except ValueError:
        exact = int(read)
    return exact if 0 <= exact < _END_OF_INTEGERS else None


def scalar(text: str) -> Scalar:
    """Parse a text as an integer, a float, true or false; else return it unchanged."""
    value = number(text)
    if value is None:
        return {"true": True, "false": False}.get(text.lower(), text)
    digits = text.strip().lstrip("-")
    return int(text) if digits.isdigit() and len(digits) < 20 else value  # a longer one fits no column


def training_hyperparameters(arguments: Mapping[str, Any]) -> dict[str, Scalar]:
    """Select and parse the ``TrainingArguments`` that belong to a pipeline, as numbers and plain words."""
    found: dict[str, Scalar] = {}
    for name in TRAINING_NAMES:
        value = arguments.get(name)
        if value is None or str(value) in ("", "None"):
            continue
        read = scalar(value) if isinstance(value, str) else value
        found[name] = _word(name, read) if isinstance(read, str) else read
    if found.get("gradient_accumulation_steps") == 1:
        del found["gradient_accumulation_steps"]
    _unite_warmup(found)
    return found


def _word(name: str, value: str) -> str:
    if name != "optim":
        return value.rsplit(".", 1)[-1].lower()
    words = value.lower()
    if "adamw" in words and "bit" not in words:
        return "adamw"
    return "adafactor" if "adafactor" in words else words.split(" ")[0].rsplit(".", 1)[-1]


def _unite_warmup(found: dict[str, Scalar]) -> None:
    """Rename a fractional warm-up, which newer versions write as ``warmup_steps`` below 1."""
    steps = found.get("warmup_steps")
    if steps is not None and not isinstance(steps, str) and steps < 1:
        del found["warmup_steps"]
        found.setdefault("warmup_ratio", float(steps))


def peft_method(config: Mapping[str, Any]) -> tuple[str, dict[str, Scalar]]:
    """Return the method and hyperparameters of an ``adapter_config.json``."""
    method = str(config.get("peft_type", "")).lower()
    values: dict[str, Any] = {
        "lora_r" if name == "r" else name: value
        for name in _PEFT_NAMES.get(method, ())
        if isinstance(value := config.get(name), bool) or number(value) is not None
    }
    targets = config.get("target_modules")
    if isinstance(targets, str):
        values["target_modules"] = targets
    elif isinstance(targets, list) and targets:
        values["target_modules"] = ",".join(sorted(map(str, targets)))
    start = config.get("init_lora_weights")
    if isinstance(start, str):
        values["init_lora_weights"] = "pissa" if start.startswith("pissa") else start
    return method, values
