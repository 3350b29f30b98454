"""Writes a configuration for LLaMA-Factory. Run ``llamafactory-cli train config.yaml`` in its folder."""

from __future__ import annotations

import json
from typing import Any

from tunecast.errors import ConfigurationError
from tunecast.exporters.job import ExportJob, attention_projections, optimizer_of, value_of
from tunecast.exporters.yaml_text import as_yaml, refuse_unknown, trainer_differences

METHODS = ("lora", "qlora", "full")
TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}
PLAIN_TEMPLATE = "empty"
"""LLaMA-Factory's template that adds nothing but the end-of-sequence token."""


def files(job: ExportJob) -> dict[str, str]:
    """Return ``config.yaml`` and ``dataset_info.json``.

    Raises:
        ConfigurationError: LLaMA-Factory does not support the method or the optimiser.
    """
    refuse_unknown(job, "LLaMA-Factory", METHODS)
    _check_turns(job)
    settings: dict[str, Any] = {
        "model_name_or_path": job.model,
        "stage": "pt" if job.is_text else "sft",
        "do_train": True,
        **_finetuning(job),
        "dataset_dir": ".",
        "dataset": "train",
        "eval_dataset": "validation",
        # Without a template's name, LLaMA-Factory reads the model's own from its tokenizer.
        **({} if job.has_chat_template else {"template": PLAIN_TEMPLATE}),
        "train_on_prompt": False,
        "mask_history": False,
        "packing": False,
        "cutoff_len": job.max_length,
        "per_device_train_batch_size": job.batch_size,
        "gradient_accumulation_steps": 1,
        "max_steps": job.plan.total_steps,
        "learning_rate": float(value_of(job, "learning_rate")),
        "lr_scheduler_type": job.schedule,
        "warmup_steps": job.plan.warmup_steps,
        **({"lr_scheduler_kwargs": job.schedule_arguments} if job.schedule_arguments else {}),
        "optim": optimizer_of(job),
        "weight_decay": float(value_of(job, "weight_decay")),
        "max_grad_norm": float(value_of(job, "max_grad_norm")),
        "label_smoothing_factor": float(value_of(job, "label_smoothing")),
        # LLaMA-Factory recomputes activations unless it is told not to.
        "disable_gradient_checkpointing": not job.pipeline.gradient_checkpointing,
        "bf16": True,
        "seed": job.seed,
        "eval_strategy": "steps",
        "eval_steps": job.eval_steps,
        **({"save_steps": job.step} if job.step < job.plan.total_steps else {}),
        "output_dir": "result",
        "report_to": "none",
    }
    if float(value_of(job, "neftune_noise_alpha")):
        settings["neftune_noise_alpha"] = float(value_of(job, "neftune_noise_alpha"))
    info = {split: _columns(f"{split}.jsonl", job.is_text) for split in ("train", "validation")}
    return {
        "config.yaml": as_yaml(settings, "llamafactory-cli train config.yaml"),
        "dataset_info.json": json.dumps(info, indent=2) + "\n",
    }


def differences(job: ExportJob) -> list[str]:
    """Return what the configuration does not reproduce, one sentence each."""
    found = [*trainer_differences(job)]
    if job.is_text:
        found.append("LLaMA-Factory joins running texts and cuts them into blocks of `cutoff_len`.")
    elif job.has_chat_template:
        found.append(
            "LLaMA-Factory derives its template from the tokenizer's chat template. It also trains what that "
            "writes after a turn's end, often a line break, and cuts a long prompt where Tunecast leaves the "
            "example out. Check a row of its log of the first example."
        )
    else:
        found.append(
            "LLaMA-Factory puts the tokenizer's start token, if there is one, before a conversation."
        )
    return found


def _check_turns(job: ExportJob) -> None:
    """Refuse conversations that LLaMA-Factory would skip or train otherwise.

    Raises:
        ConfigurationError: Turns do not alternate, or an assistant's turn is not to be trained.
    """
    if job.is_text:
        return
    for example in (*job.train, *job.validation):
        turns = example.turns[1:] if example.turns[0].role == "system" else example.turns
        expected = ("user", "assistant") * (len(turns) // 2 + 1)
        roles = tuple(turn.role for turn in turns)
        if roles != expected[: len(roles)] or len(roles) % 2:
            raise ConfigurationError(
                f"Row {example.row}: LLaMA-Factory skips conversations in which user and assistant do "
                "not take turns, beginning with the user.",
                "Change the row, or use --to trl or --to axolotl, which train it.",
            )
        if any(turn.role == "assistant" and not turn.trained for turn in turns):
            raise ConfigurationError(
                f"Row {example.row} has an assistant's turn that is not trained; LLaMA-Factory trains all.",
                "Use --to trl or --to axolotl, which train the same turns.",
            )


def _finetuning(job: ExportJob) -> dict[str, Any]:
    values = job.pipeline.hyperparameters
    if job.pipeline.method == "full":
        return {"finetuning_type": "full"}
    ratio, attention = float(values.get("loraplus_ratio", 1.0)), values.get("target_modules") == "attention"
    return {
        "finetuning_type": "lora",
        "lora_rank": int(value_of(job, "lora_r")),
        "lora_alpha": int(value_of(job, "lora_alpha")),
        "lora_dropout": float(value_of(job, "lora_dropout")),
        "lora_target": ",".join(attention_projections(job)) if attention else "all",
        **({"use_rslora": True} if values.get("use_rslora") else {}),
        **({"use_dora": True} if values.get("use_dora") else {}),
        **({"pissa_init": True} if values.get("init_lora_weights") == "pissa" else {}),
        **({"loraplus_lr_ratio": ratio} if ratio != 1.0 else {}),
        **({"quantization_bit": 4} if job.pipeline.method == "qlora" else {}),
    }


def _columns(file: str, is_text: bool) -> dict[str, Any]:
    if is_text:
        return {"file_name": file, "columns": {"prompt": "text"}}
    return {"file_name": file, "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": TAGS}
