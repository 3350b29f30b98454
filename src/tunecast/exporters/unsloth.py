"""Writes a training script in the API of Unsloth, which trains LoRA, QLoRA and full finetuning on GPUs.

Unsloth needs a GPU even to be imported. The script is tested with a stand-in of its two functions, and its
arguments are compared with the package's own (``make test-export-schemas``); the README says so.
"""

from __future__ import annotations

from typing import Any

from tunecast.errors import ConfigurationError
from tunecast.exporters.job import ExportJob, attention_projections, value_of
from tunecast.exporters.script import PARTS, as_literal
from tunecast.exporters.trl import hyperparameters_of
from tunecast.exporters.yaml_text import refuse_unknown, trainer_differences

METHODS = ("lora", "qlora", "full")
SCRIPT = '''"""Trains one pipeline with Unsloth; written by tunecast export, see README.md.

    python train.py [--output-dir FOLDER] [--eval-steps 20] [--report-to wandb] ...

All arguments of TRL's SFTConfig can be given.
"""

from unsloth import FastLanguageModel  # isort: skip (before the libraries that it changes)

import math
from pathlib import Path

import numpy as np
import torch
from datasets import load_dataset
from torch.utils.data import DataLoader, Sampler
from transformers import DataCollatorForSeq2Seq, HfArgumentParser
from transformers.modelcard import TrainingSummary
from trl import SFTConfig, SFTTrainer

HERE = Path(__file__).resolve().parent
MODEL = {model!r}
DATASET = {dataset!r}
LOADING = {loading}
ADAPTER = {adapter}
HYPERPARAMETERS = {hyperparameters}


{batches}


class Trainer(SFTTrainer):
    """SFTTrainer with these batches."""

{batching}


def main() -> None:
    cuda = torch.cuda.is_available()
    bf16 = cuda and torch.cuda.is_bf16_supported()
{arguments}
    model, tokenizer = FastLanguageModel.from_pretrained(MODEL, **LOADING)
    if ADAPTER is not None:
        model = FastLanguageModel.get_peft_model(model, **ADAPTER)
{data}
    data = data.select_columns(["input_ids", "labels"])
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )
{training}
    trainer.save_model()
{ending}
'''


def files(job: ExportJob) -> dict[str, str]:
    """Return ``train.py``.

    Raises:
        ConfigurationError: Unsloth does not support the method, a variant or the optimiser.
    """
    refuse_unknown(job, "Unsloth", METHODS)
    _refuse_variants(job)
    full = job.pipeline.method == "full"
    loading: dict[str, Any] = {
        "max_seq_length": job.max_length,
        "load_in_4bit": job.pipeline.method == "qlora",
        **({"full_finetuning": True} if full else {}),
        "random_state": job.seed,
    }
    script = SCRIPT.format(
        **PARTS,
        model=job.model,
        dataset=job.dataset,
        loading=as_literal(loading),
        adapter=None if full else as_literal(_adapter(job)),
        hyperparameters=as_literal(hyperparameters_of(job)),
    )
    return {"train.py": script}


def differences(job: ExportJob) -> list[str]:
    """Return what the script does not reproduce, one sentence each."""
    return [
        "This script has never been run with Unsloth, which needs a GPU. It calls Unsloth 2026.10 by its "
        "signatures; data and order of batches are those of the export for TRL, which is compared with "
        "Tunecast.",
        "Unsloth uses its own kernels and gradient checkpointing, computes in 16 bits, and supports only "
        "some families of models; losses agree to the precision of 16 bits at best.",
        *trainer_differences(job, shuffles=False),
    ]


def _refuse_variants(job: ExportJob) -> None:
    values = job.pipeline.hyperparameters
    wrong = {
        "use_dora": bool(values.get("use_dora")),
        "init_lora_weights": values.get("init_lora_weights", "default") != "default",
        "loraplus_ratio": float(values.get("loraplus_ratio", 1.0)) != 1.0,
        "label_smoothing": bool(float(value_of(job, "label_smoothing"))),
    }
    found = [name for name, is_wrong in wrong.items() if is_wrong]
    if found:
        raise ConfigurationError(
            f"The export for Unsloth does not support {' and '.join(found)}.",
            "Export a pipeline without it, or use --to trl.",
        )


def _adapter(job: ExportJob) -> dict[str, Any]:
    """Return the arguments of ``get_peft_model``."""
    values = job.pipeline.hyperparameters
    attention = values.get("target_modules") == "attention"
    return {
        "r": int(value_of(job, "lora_r")),
        "lora_alpha": int(value_of(job, "lora_alpha")),
        "lora_dropout": float(value_of(job, "lora_dropout")),
        "target_modules": attention_projections(job) if attention else "all-linear",
        "use_rslora": bool(values.get("use_rslora", False)),
        "use_gradient_checkpointing": "unsloth",
        "random_state": job.seed,
    }
