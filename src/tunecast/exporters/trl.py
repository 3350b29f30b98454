"""Writes a training script for TRL's SFTTrainer, and the adapter's configuration beside it.

The script trains what Tunecast trained: the examples come as token ids with their labels, and batches come in
Tunecast's order. What still differs is in the export's README (:func:`differences`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tunecast.errors import ConfigurationError, ModelError
from tunecast.exporters.job import ExportJob, optimizer_of, value_of
from tunecast.exporters.script import PARTS, as_literal

SCRIPT = '''"""Trains one pipeline with TRL; written by tunecast export. README.md says what it reproduces.

    python train.py [--output-dir FOLDER] [--eval-steps 20] [--report-to wandb] ...

All arguments of TRL's SFTConfig can be given.
"""

import math
from pathlib import Path

import numpy as np
import torch
from datasets import load_dataset
from peft import PeftConfig
from torch.utils.data import DataLoader, Sampler
from transformers import AutoModelForCausalLM, AutoTokenizer, HfArgumentParser{quantisation_import}
from transformers.modelcard import TrainingSummary
from trl import SFTConfig, SFTTrainer

HERE = Path(__file__).resolve().parent
MODEL = {model!r}
DATASET = {dataset!r}
HAS_ADAPTER = {has_adapter}
HYPERPARAMETERS = {hyperparameters}


{batches}


class Trainer(SFTTrainer):
    """SFTTrainer with these batches{trainer_also}."""

{batching}
{optimizer}

def main() -> None:
    cuda = torch.cuda.is_available()
    bf16 = {bf16}
{arguments}
    # Trained weights are float32, because bfloat16 loses small updates. Frozen weights may be bfloat16.
    dtype = torch.bfloat16 if bf16 and HAS_ADAPTER else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=dtype{quantisation})
{data}
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        processing_class=tokenizer,
        peft_config=PeftConfig.from_pretrained(str(HERE / "adapter")) if HAS_ADAPTER else None,
    )
{prepare}{training}
{save}{ending}
'''
BF16 = "cuda and torch.cuda.is_bf16_supported(including_emulation=False)"
QUANTISATION = """,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        ),
    """
KEEP_FLOAT32 = """    for parameter in trainer.model.parameters():
        if parameter.requires_grad:  # TRL makes them bfloat16 over a four-bit model
            parameter.data = parameter.data.float()
"""
SAVE = """    trainer.save_model()
"""
PISSA_START = """    # PiSSA changes the base model: saving uses its start to write a plain adapter.
    start = str(Path(args.output_dir) / "start")
    config = trainer.model.peft_config["default"]
    drawn, config.init_lora_weights = config.init_lora_weights, True
    trainer.model.save_pretrained(start)
    config.init_lora_weights = drawn
"""
PISSA_SAVE = """    model = trainer.model
    model.save_pretrained(args.output_dir, path_initial_model_for_weight_conversion=start)
    tokenizer.save_pretrained(args.output_dir)
"""
OPTIMIZER = """
    def create_optimizer(self, model=None):
        if self.optimizer is None:
            trained = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
{groups}            self.optimizer = {optimizer}
        return self.optimizer
"""
ONE_GROUP = """            groups = [{"params": [p for _, p in trained]}]
"""
LORA_PLUS = """            # LoRA+: B learns faster.
            fast = [p for n, p in trained if "lora_B" in n or p.ndim == 1]
            slow = [p for n, p in trained if not ("lora_B" in n or p.ndim == 1)]
            rate = {ratio!r} * self.args.learning_rate
            groups = [{{"params": slow}}, {{"params": fast, "lr": rate}}]
"""
BUILT = {
    "adamw": "torch.optim.AdamW(\n"
    "                groups, lr=self.args.learning_rate, weight_decay=self.args.weight_decay\n"
    "            )",
    "sgd": "torch.optim.SGD(\n"
    "                groups, lr=self.args.learning_rate, momentum=0.9, weight_decay=self.args.weight_decay\n"
    "            )",
}
"""Optimisers that the script can build itself, where the Trainer's own would be another one."""


def files(job: ExportJob) -> dict[str, str]:
    """Return ``train.py``, and for adapters ``adapter/adapter_config.json``.

    Raises:
        ConfigurationError: TRL does not support the method or the optimiser.
    """
    adapter = adapter_of(job, "TRL")
    four_bit = job.pipeline.method == "qlora"
    pissa = job.pipeline.hyperparameters.get("init_lora_weights") == "pissa"
    optimizer = _own_optimizer(job)
    script = SCRIPT.format(
        **PARTS,
        model=job.model,
        dataset=job.dataset,
        has_adapter=adapter is not None,
        bf16="False" if job.in_float32 else BF16,
        hyperparameters=as_literal(hyperparameters_of(job)),
        quantisation_import=", BitsAndBytesConfig" if four_bit else "",
        quantisation=QUANTISATION if four_bit else "",
        optimizer=optimizer,
        trainer_also=" and this optimiser" if optimizer else "",
        prepare=(KEEP_FLOAT32 if four_bit else "") + (PISSA_START if pissa else ""),
        save=PISSA_SAVE if pissa else SAVE,
    )
    made = {"train.py": script}
    if adapter is not None:
        text = json.dumps(adapter, indent=2, sort_keys=True, default=sorted)
        made["adapter/adapter_config.json"] = text + "\n"
    return made


def differences(job: ExportJob) -> list[str]:
    """Return what the script does not reproduce, one sentence each."""
    found = [
        "`eval_loss` averages the batches' means; Tunecast's validation loss is the mean over all label "
        "tokens, on a subset of these validation examples while it searches.",
        "The script computes in bfloat16 on GPUs that have it, else in float32; Tunecast also computes in "
        "bfloat16 on processors that have it. In bfloat16, losses agree only to its precision.",
        "With several processes, or another batch size or seed, batches come in another order.",
    ]
    if _is_random(job):
        found.append("Dropout and NEFTune's noise are drawn differently, so losses agree only on average.")
    if value_of(job, "label_smoothing"):
        found.append(
            "The logged training loss is against smoothed labels; Tunecast logs it against plain ones."
        )
    if job.pipeline.method == "qlora":
        found.append(
            "The four-bit weights are made by transformers, the embeddings and the head stay bfloat16."
        )
    if optimizer_of(job) == "lion_32bit":
        found.append("Lion is that of bitsandbytes.")
    return found


def _is_random(job: ExportJob) -> bool:
    """Return whether the adapter, the base model or NEFTune's noise draws numbers in every step."""
    values = {**job.facts.config, **job.pipeline.hyperparameters}
    names = ("dropout", "pdrop", "neftune_noise_alpha")
    return any(name.endswith(names) and isinstance(value, float) and value for name, value in values.items())


def adapter_of(job: ExportJob, trainer: str) -> Mapping[str, Any] | None:
    """Return the adapter's peft configuration; None if all weights are trained.

    Raises:
        ConfigurationError: The trainer cannot train the method.
    """
    from tunecast.methods import get_method
    from tunecast.methods.base import Method
    from tunecast.methods.full import Full
    from tunecast.methods.peft_method import PeftMethod

    method = get_method(job.pipeline.method)
    if type(method) is Full:
        return None
    if not isinstance(method, PeftMethod):
        raise ConfigurationError(
            f"Only Tunecast has the method {job.pipeline.method}: {trainer} cannot train it.",
            "Export full finetuning or a peft adapter, or train it with tunecast train.",
        )
    if method.optimizer:
        raise ConfigurationError(
            f"{trainer} cannot train {method.name}, which is trained without gradients.",
            "Export another peft adapter, or train it with tunecast train.",
        )
    if type(method).after_update is not Method.after_update:
        raise ConfigurationError(
            f"{trainer} cannot train {method.name}: it leaves out what the method does after every step.",
            "Export another peft adapter, or train it with tunecast train.",
        )
    config = method.complete_config(job.pipeline, _model_config(job.model))
    if hasattr(config, "projection_prng_key"):
        config.projection_prng_key = job.seed
    plain: dict[str, Any] = config.to_dict()
    for name in ("peft_type", "task_type"):
        plain[name] = getattr(plain[name], "value", plain[name])
    plain["base_model_name_or_path"] = job.model
    return plain


def _model_config(model: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(
            f"The configuration of --model {model} cannot be loaded; it gives the layers' names: {reason}",
            "Give a local folder, or go online once.",
        ) from None


def _own_optimizer(job: ExportJob) -> str:
    """Return a ``create_optimizer`` where the Trainer's would differ from the tested one; else nothing.

    The Trainer's SGD has no momentum, and it exempts biases and norms from weight decay.

    Raises:
        ConfigurationError: The script cannot build the optimiser.
    """
    name = str(value_of(job, "optim"))
    ratio = float(job.pipeline.hyperparameters.get("loraplus_ratio", 1.0))
    if name != "sgd" and ratio == 1.0 and not (float(value_of(job, "weight_decay")) and name == "adamw"):
        return ""
    if name not in BUILT:
        raise ConfigurationError(
            f"TRL does not support loraplus_ratio with {name}.",
            "Export a pipeline with adamw, or without it.",
        )
    groups = ONE_GROUP if ratio == 1.0 else LORA_PLUS.format(ratio=ratio)
    return OPTIMIZER.format(groups=groups, optimizer=BUILT[name])


def hyperparameters_of(job: ExportJob) -> dict[str, Any]:
    """Return the arguments of SFTConfig."""
    steps, recomputes = job.plan.total_steps, job.pipeline.gradient_checkpointing
    kept: dict[str, Any] = {"save_strategy": "no"}
    if job.step < steps:
        kept = {"save_strategy": "steps", "save_steps": job.step}
    return {
        "learning_rate": float(value_of(job, "learning_rate")),
        "per_device_train_batch_size": job.batch_size,
        "max_steps": steps,
        "lr_scheduler_type": job.schedule,
        "warmup_steps": job.plan.warmup_steps,
        **({"lr_scheduler_kwargs": job.schedule_arguments} if job.schedule_arguments else {}),
        "optim": optimizer_of(job),
        **({"adam_beta2": 0.99} if optimizer_of(job) == "lion_32bit" else {}),
        "weight_decay": float(value_of(job, "weight_decay")),
        "max_grad_norm": float(value_of(job, "max_grad_norm")),
        "label_smoothing_factor": float(value_of(job, "label_smoothing")),
        "neftune_noise_alpha": float(value_of(job, "neftune_noise_alpha")) or None,
        "max_length": job.max_length,
        "packing": False,
        "seed": job.seed,
        "gradient_checkpointing": recomputes,
        **({"gradient_checkpointing_kwargs": {"use_reentrant": False}} if recomputes else {}),
        **({"router_aux_loss_coef": 0.0} if "output_router_logits" in job.facts.config else {}),
        "logging_steps": max(1, steps // 50),
        "eval_strategy": "steps",
        "eval_steps": job.eval_steps,
        **kept,
        "report_to": "none",
    }
