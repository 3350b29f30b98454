"""Writes a configuration for Axolotl. Run ``axolotl train config.yaml`` in its folder."""

from __future__ import annotations

from typing import Any

from tunecast.errors import ConfigurationError
from tunecast.exporters.job import ExportJob, optimizer_of, value_of
from tunecast.exporters.yaml_text import as_yaml, refuse_unknown

METHODS = ("lora", "qlora", "full")
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


def files(job: ExportJob) -> dict[str, str]:
    """Return ``config.yaml``.

    Raises:
        ConfigurationError: Axolotl does not support the method or the optimiser.
    """
    refuse_unknown(job, "Axolotl", METHODS)
    if float(value_of(job, "label_smoothing")):
        raise ConfigurationError(
            "Axolotl does not support label_smoothing.", "Export a pipeline with label_smoothing 0."
        )
    schedule = str(value_of(job, "lr_scheduler_type"))
    settings: dict[str, Any] = {
        "base_model": job.model,
        **_adapter(job),
        "datasets": [_dataset(job, "train.jsonl")],
        "test_datasets": [_dataset(job, "validation.jsonl") | {"split": "train"}],
        "train_on_inputs": False,
        "sequence_len": job.max_length,
        "sample_packing": False,
        "micro_batch_size": int(value_of(job, "per_device_train_batch_size")),
        "gradient_accumulation_steps": 1,
        "num_epochs": job.epochs,
        "learning_rate": float(value_of(job, "learning_rate")),
        "lr_scheduler": schedule,
        "warmup_ratio": 0.0 if schedule == "constant" else float(value_of(job, "warmup_ratio")),
        "optimizer": optimizer_of(job),
        "weight_decay": float(value_of(job, "weight_decay")),
        "max_grad_norm": float(value_of(job, "max_grad_norm")),
        "bf16": "auto",
        "seed": job.seed,
        "output_dir": "./result",
    }
    if float(value_of(job, "neftune_noise_alpha")):
        settings["neftune_noise_alpha"] = float(value_of(job, "neftune_noise_alpha"))
    return {"config.yaml": as_yaml(settings, "axolotl train config.yaml")}


def _adapter(job: ExportJob) -> dict[str, Any]:
    values = job.pipeline.hyperparameters
    if job.pipeline.method == "full":
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
        "adapter": job.pipeline.method,
        "load_in_4bit": job.pipeline.method == "qlora",
        "lora_r": int(value_of(job, "lora_r")),
        "lora_alpha": int(value_of(job, "lora_alpha")),
        "lora_dropout": float(value_of(job, "lora_dropout")),
        **placed,
        **variants,
        **({"peft_init_lora_weights": "pissa"} if values.get("init_lora_weights") == "pissa" else {}),
        **({"loraplus_lr_ratio": ratio} if ratio != 1.0 else {}),
    }


def _dataset(job: ExportJob, name: str) -> dict[str, Any]:
    if job.dataset.train[0].turns[-1].role == "text":
        return {"path": name, "ds_type": "json", "type": "completion", "field": "text"}
    return {
        "path": name,
        "ds_type": "json",
        "type": "chat_template",
        "field_messages": "messages",
        "roles_to_train": ["assistant"],
        "train_on_eos": "turn",
    }
