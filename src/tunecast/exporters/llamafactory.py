"""A configuration for LLaMA-Factory: ``llamafactory-cli train config.yaml``, from the folder it lies in."""

from __future__ import annotations

import json
from typing import Any

from tunecast.exporters.job import Work, optimizer_of, value_of
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


def files(work: Work) -> dict[str, str]:
    """``config.yaml`` and ``dataset_info.json``.

    Raises:
        ConfigurationError: LLaMA-Factory cannot train the method, or the pipeline's optimiser.
    """
    refuse_unknown(work, "LLaMA-Factory", METHODS)
    schedule = str(value_of(work, "lr_scheduler_type"))
    is_text = work.dataset.train[0].turns[-1].role == "text"
    settings: dict[str, Any] = {
        "model_name_or_path": work.model,
        "stage": "pt" if is_text else "sft",
        "do_train": True,
        **_finetuning(work),
        "dataset_dir": ".",
        "dataset": "train",
        "eval_dataset": "validation",
        "template": _template(work),
        "cutoff_len": work.max_length,
        "per_device_train_batch_size": int(value_of(work, "per_device_train_batch_size")),
        "gradient_accumulation_steps": 1,
        "num_train_epochs": work.epochs,
        "learning_rate": float(value_of(work, "learning_rate")),
        "lr_scheduler_type": schedule,
        "warmup_ratio": 0.0 if schedule == "constant" else float(value_of(work, "warmup_ratio")),
        "optim": optimizer_of(work),
        "weight_decay": float(value_of(work, "weight_decay")),
        "max_grad_norm": float(value_of(work, "max_grad_norm")),
        "label_smoothing_factor": float(value_of(work, "label_smoothing")),
        "bf16": True,
        "seed": work.seed,
        "output_dir": "result",
        "report_to": "none",
    }
    if float(value_of(work, "neftune_noise_alpha")):
        settings["neftune_noise_alpha"] = float(value_of(work, "neftune_noise_alpha"))
    info = {split: _columns(f"{split}.jsonl", is_text) for split in ("train", "validation")}
    return {
        "config.yaml": as_yaml(settings, "llamafactory-cli train config.yaml"),
        "dataset_info.json": json.dumps(info, indent=2) + "\n",
    }


def _finetuning(work: Work) -> dict[str, Any]:
    values = work.pipeline.hyperparameters
    if work.pipeline.method == "full":
        return {"finetuning_type": "full"}
    ratio = float(values.get("loraplus_ratio", 1.0))
    return {
        "finetuning_type": "lora",
        "lora_rank": int(value_of(work, "lora_r")),
        "lora_alpha": int(value_of(work, "lora_alpha")),
        "lora_dropout": float(value_of(work, "lora_dropout")),
        "lora_target": ATTENTION if values.get("target_modules") == "attention" else "all",
        **({"use_rslora": True} if values.get("use_rslora") else {}),
        **({"use_dora": True} if values.get("use_dora") else {}),
        **({"pissa_init": True} if values.get("init_lora_weights") == "pissa" else {}),
        **({"loraplus_lr_ratio": ratio} if ratio != 1.0 else {}),
        **({"quantization_bit": 4} if work.pipeline.method == "qlora" else {}),
    }


def _template(work: Work) -> str:
    """LLaMA-Factory renders conversations by templates of its own, chosen by the model's name."""
    name = work.model.rsplit("/", 1)[-1].lower()
    return next((template for part, template in TEMPLATES if part in name), OTHER_TEMPLATE)


def _columns(file: str, is_text: bool) -> dict[str, Any]:
    if is_text:
        return {"file_name": file, "columns": {"prompt": "text"}}
    return {"file_name": file, "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": TAGS}
