"""Writes a configuration for Axolotl. Run ``axolotl train config.yaml`` in its folder."""

from __future__ import annotations

from typing import Any

from tunecast.errors import ConfigurationError
from tunecast.exporters.job import ExportJob, attention_projections, optimizer_of, value_of
from tunecast.exporters.yaml_text import as_yaml, refuse_unknown, trainer_differences

METHODS = ("lora", "qlora", "full")


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
    settings: dict[str, Any] = {
        "base_model": job.model,
        **_adapter(job),
        "datasets": [_dataset("train.jsonl")],
        "test_datasets": [_dataset("validation.jsonl") | {"split": "train"}],
        "sequence_len": job.max_length,
        "sample_packing": False,
        "micro_batch_size": job.batch_size,
        "gradient_accumulation_steps": 1,
        "max_steps": job.plan.total_steps,
        "learning_rate": float(value_of(job, "learning_rate")),
        "lr_scheduler": job.schedule,
        "warmup_steps": job.plan.warmup_steps,
        **({"lr_scheduler_kwargs": job.schedule_arguments} if job.schedule_arguments else {}),
        "optimizer": optimizer_of(job),
        "weight_decay": float(value_of(job, "weight_decay")),
        "max_grad_norm": float(value_of(job, "max_grad_norm")),
        "bf16": "auto",
        "seed": job.seed,
        "eval_steps": job.eval_steps,
        **({"save_steps": job.step} if job.step < job.plan.total_steps else {}),
        "special_tokens": {"pad_token": job.tokenizer.pad_token},
        "output_dir": "./result",
    }
    if job.pipeline.gradient_checkpointing:
        settings["gradient_checkpointing"] = True
        settings["gradient_checkpointing_kwargs"] = {"use_reentrant": False}
    if float(value_of(job, "neftune_noise_alpha")):
        settings["neftune_noise_alpha"] = float(value_of(job, "neftune_noise_alpha"))
    return {"config.yaml": as_yaml(settings, "axolotl train config.yaml")}


def differences(job: ExportJob) -> list[str]:
    """Return what the configuration does not reproduce, one sentence each."""
    return [
        "The data are token ids with Tunecast's own labels (-100: not trained): Axolotl applies no template.",
        *trainer_differences(job),
    ]


def _adapter(job: ExportJob) -> dict[str, Any]:
    values = job.pipeline.hyperparameters
    if job.pipeline.method == "full":
        return {}
    placed: dict[str, Any] = {"lora_target_linear": True}
    if values.get("target_modules") == "attention":
        placed = {"lora_target_modules": attention_projections(job)}
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


def _dataset(name: str) -> dict[str, Any]:
    """Return an entry without a type: Axolotl takes token ids and labels as they are."""
    return {"path": name, "ds_type": "json", "type": None}
