"""Writes a configuration for LLaMA-Factory. Run ``llamafactory-cli train config.yaml`` in its folder."""

from __future__ import annotations

import json
from typing import Any

from tunecast.exporters.job import ExportJob, optimizer_of, value_of
from tunecast.exporters.yaml_text import as_yaml, refuse_unknown

METHODS = ("lora", "qlora", "full")
ATTENTION = "q_proj,k_proj,v_proj,o_proj"
TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}
TEMPLATES = (("qwen3", "qwen3"), ("qwen", "qwen"), ("llama-3", "llama3"), ("mistral", "mistral"))
"""Parts of a model's name, and LLaMA-Factory's template for it."""
OTHER_TEMPLATE = "default"


def files(job: ExportJob) -> dict[str, str]:
    """Return ``config.yaml`` and ``dataset_info.json``.

    Raises:
        ConfigurationError: LLaMA-Factory does not support the method or the optimiser.
    """
    refuse_unknown(job, "LLaMA-Factory", METHODS)
    schedule = str(value_of(job, "lr_scheduler_type"))
    is_text = job.dataset.train[0].turns[-1].role == "text"
    settings: dict[str, Any] = {
        "model_name_or_path": job.model,
        "stage": "pt" if is_text else "sft",
        "do_train": True,
        **_finetuning(job),
        "dataset_dir": ".",
        "dataset": "train",
        "eval_dataset": "validation",
        "template": _template(job),
        "cutoff_len": job.max_length,
        "per_device_train_batch_size": int(value_of(job, "per_device_train_batch_size")),
        "gradient_accumulation_steps": 1,
        "num_train_epochs": job.epochs,
        "learning_rate": float(value_of(job, "learning_rate")),
        "lr_scheduler_type": schedule,
        "warmup_ratio": 0.0 if schedule == "constant" else float(value_of(job, "warmup_ratio")),
        "optim": optimizer_of(job),
        "weight_decay": float(value_of(job, "weight_decay")),
        "max_grad_norm": float(value_of(job, "max_grad_norm")),
        "label_smoothing_factor": float(value_of(job, "label_smoothing")),
        "bf16": True,
        "seed": job.seed,
        "output_dir": "result",
        "report_to": "none",
    }
    if float(value_of(job, "neftune_noise_alpha")):
        settings["neftune_noise_alpha"] = float(value_of(job, "neftune_noise_alpha"))
    info = {split: _columns(f"{split}.jsonl", is_text) for split in ("train", "validation")}
    return {
        "config.yaml": as_yaml(settings, "llamafactory-cli train config.yaml"),
        "dataset_info.json": json.dumps(info, indent=2) + "\n",
    }


def _finetuning(job: ExportJob) -> dict[str, Any]:
    values = job.pipeline.hyperparameters
    if job.pipeline.method == "full":
        return {"finetuning_type": "full"}
    ratio = float(values.get("loraplus_ratio", 1.0))
    return {
        "finetuning_type": "lora",
        "lora_rank": int(value_of(job, "lora_r")),
        "lora_alpha": int(value_of(job, "lora_alpha")),
        "lora_dropout": float(value_of(job, "lora_dropout")),
        "lora_target": ATTENTION if values.get("target_modules") == "attention" else "all",
        **({"use_rslora": True} if values.get("use_rslora") else {}),
        **({"use_dora": True} if values.get("use_dora") else {}),
        **({"pissa_init": True} if values.get("init_lora_weights") == "pissa" else {}),
        **({"loraplus_lr_ratio": ratio} if ratio != 1.0 else {}),
        **({"quantization_bit": 4} if job.pipeline.method == "qlora" else {}),
    }


def _template(job: ExportJob) -> str:
    """Choose one of LLaMA-Factory's own chat templates by the model's name."""
    name = job.model.rsplit("/", 1)[-1].lower()
    return next((template for part, template in TEMPLATES if part in name), OTHER_TEMPLATE)


def _columns(file: str, is_text: bool) -> dict[str, Any]:
    if is_text:
        return {"file_name": file, "columns": {"prompt": "text"}}
    return {"file_name": file, "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": TAGS}
