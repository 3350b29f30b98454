"""A configuration for Axolotl: ``axolotl train config.yaml``, from the folder that it lies in."""

from __future__ import annotations

from typing import Any

from tunecast.errors import ConfigurationError
from tunecast.exporters.job import Work, optimizer_of, value_of
from tunecast.exporters.yaml_text import as_yaml, refuse_unknown

METHODS = ("lora", "qlora", "full")
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


def files(work: Work) -> dict[str, str]:
    """``config.yaml``.

    Raises:
        ConfigurationError: Axolotl cannot train the method, or the pipeline's optimiser.
    """
    refuse_unknown(work, "Axolotl", METHODS)
    if float(value_of(work, "label_smoothing")):
        raise ConfigurationError(
            "label_smoothing cannot be told to Axolotl.", "Hand over a pipeline with label_smoothing 0."
        )
    schedule = str(value_of(work, "lr_scheduler_type"))
    settings: dict[str, Any] = {
        "base_model": work.model,
        **_adapter(work),
        "datasets": [_dataset(work, "train.jsonl")],
        "test_datasets": [_dataset(work, "validation.jsonl") | {"split": "train"}],
        "train_on_inputs": False,
        "sequence_len": work.max_length,
        "sample_packing": False,
        "micro_batch_size": int(value_of(work, "per_device_train_batch_size")),
        "gradient_accumulation_steps": 1,
        "num_epochs": work.epochs,
        "learning_rate": float(value_of(work, "learning_rate")),
        "lr_scheduler": schedule,
        "warmup_ratio": 0.0 if schedule == "constant" else float(value_of(work, "warmup_ratio")),
        "optimizer": optimizer_of(work),
        "weight_decay": float(value_of(work, "weight_decay")),
        "max_grad_norm": float(value_of(work, "max_grad_norm")),
        "bf16": "auto",
        "seed": work.seed,
        "output_dir": "./result",
    }
    if float(value_of(work, "neftune_noise_alpha")):
        settings["neftune_noise_alpha"] = float(value_of(work, "neftune_noise_alpha"))
    return {"config.yaml": as_yaml(settings, "axolotl train config.yaml")}


def _adapter(work: Work) -> dict[str, Any]:
    values = work.pipeline.hyperparameters
    if work.pipeline.method == "full":
        return {}
    placed: dict[str, Any] = {"lora_target_linear": True}
    if values.get("target_modules") == "attention":
        placed = {"lora_target_modules": ATTENTION}
    variants = {
        ours: True
        for name, ours in (("use_dora", "peft_use_dora"), ("use_rslora", "peft_use_rslora"))
        if values.get(name)
    }
    ratio = float(values.get("loraplus_ratio", 1.0))
    return {
        "adapter": work.pipeline.method,
        "load_in_4bit": work.pipeline.method == "qlora",
        "lora_r": int(value_of(work, "lora_r")),
        "lora_alpha": int(value_of(work, "lora_alpha")),
        "lora_dropout": float(value_of(work, "lora_dropout")),
        **placed,
        **variants,
        **({"peft_init_lora_weights": "pissa"} if values.get("init_lora_weights") == "pissa" else {}),
        **({"loraplus_lr_ratio": ratio} if ratio != 1.0 else {}),
    }


def _dataset(work: Work, name: str) -> dict[str, Any]:
    if work.dataset.train[0].turns[-1].role == "text":
        return {"path": name, "ds_type": "json", "type": "completion", "field": "text"}
    return {
        "path": name,
        "ds_type": "json",
        "type": "chat_template",
        "field_messages": "messages",
        "roles_to_train": ["assistant"],
        "train_on_eos": "turn",
    }
