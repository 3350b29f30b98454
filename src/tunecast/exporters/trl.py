"""Writes a training script for TRL's SFTTrainer, and the adapter's configuration beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tunecast.errors import ConfigurationError, ModelError
from tunecast.exporters.job import ExportJob, optimizer_of, value_of

SCRIPT = '''"""Trains one pipeline with TRL; written by tunecast export.

    python train.py [FOLDER FOR THE RESULT]
"""

import sys
from pathlib import Path

import torch
from datasets import load_dataset
from peft import PeftConfig
from transformers import AutoModelForCausalLM, AutoTokenizer{quantisation_import}
from trl import SFTConfig, SFTTrainer

HERE = Path(__file__).resolve().parent
MODEL = {model!r}
HAS_ADAPTER = {has_adapter}
HYPERPARAMETERS = {hyperparameters}


def main() -> None:
    output = sys.argv[1] if len(sys.argv) > 1 else str(HERE / "result")
    cuda = torch.cuda.is_available()
    bf16 = cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    # Trained weights are float32, because bfloat16 loses small updates. Frozen weights may be bfloat16.
    dtype = torch.bfloat16 if bf16 and HAS_ADAPTER else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=dtype{quantisation})
    data = load_dataset(
        "json",
        data_files={{"train": str(HERE / "train.jsonl"), "validation": str(HERE / "validation.jsonl")}},
    )
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(output_dir=output, bf16=bf16, use_cpu=not cuda, **HYPERPARAMETERS),
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        processing_class=tokenizer,
        peft_config=PeftConfig.from_pretrained(str(HERE / "adapter")) if HAS_ADAPTER else None,
    )
    trainer.train()
    print(trainer.evaluate())
    trainer.save_model(output)


if __name__ == "__main__":
    main()
'''
QUANTISATION = """,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        ),
    """


def files(job: ExportJob) -> dict[str, str]:
    """Return ``train.py``, and for adapters ``adapter/adapter_config.json``.

    Raises:
        ConfigurationError: TRL does not support the method or the optimiser.
    """
    adapter = _adapter(job)
    four_bit = job.pipeline.method == "qlora"
    script = SCRIPT.format(
        model=job.model,
        has_adapter=adapter is not None,
        hyperparameters=_literal(_hyperparameters(job)),
        quantisation_import=", BitsAndBytesConfig" if four_bit else "",
        quantisation=QUANTISATION if four_bit else "",
    )
    made = {"train.py": script}
    if adapter is not None:
        made["adapter/adapter_config.json"] = (
            json.dumps(adapter, indent=2, sort_keys=True, default=sorted) + "\n"
        )
    return made


def _adapter(job: ExportJob) -> Mapping[str, Any] | None:
    """Return the adapter's peft configuration; None if all weights are trained."""
    from tunecast.methods import get_method
    from tunecast.methods.full import Full
    from tunecast.methods.peft_method import PeftMethod

    method = get_method(job.pipeline.method)
    if type(method) is Full:
        return None
    if not isinstance(method, PeftMethod):
        raise ConfigurationError(
            f"Only Tunecast has the method {job.pipeline.method}: TRL cannot train it.",
            "Export full finetuning or a peft adapter, or train it with tunecast train.",
        )
    if float(job.pipeline.hyperparameters.get("loraplus_ratio", 1.0)) != 1.0:
        raise ConfigurationError(
            "TRL does not support loraplus_ratio.", "Export a pipeline without it, or with 1.0."
        )
    config = method.peft_config(job.pipeline, encoder_decoder=False)
    method.suit(config, _model_config(job.model))
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


def _hyperparameters(job: ExportJob) -> dict[str, Any]:
    """Return the arguments of SFTConfig; as in Tunecast, only completions count in the loss."""
    schedule = str(value_of(job, "lr_scheduler_type"))
    noise = float(value_of(job, "neftune_noise_alpha"))
    return {
        "learning_rate": float(value_of(job, "learning_rate")),
        "per_device_train_batch_size": int(value_of(job, "per_device_train_batch_size")),
        "num_train_epochs": job.epochs,
        "lr_scheduler_type": schedule,
        # transformers 5 reads a number below 1 as a share of all steps.
        "warmup_steps": 0 if schedule == "constant" else float(value_of(job, "warmup_ratio")),
        "optim": optimizer_of(job),
        "weight_decay": float(value_of(job, "weight_decay")),
        "max_grad_norm": float(value_of(job, "max_grad_norm")),
        "label_smoothing_factor": float(value_of(job, "label_smoothing")),
        "neftune_noise_alpha": noise or None,
        "max_length": job.max_length,
        "seed": job.seed,
        "gradient_checkpointing": False,
        "logging_steps": 10,
        "report_to": "none",
    }


def _literal(values: Mapping[str, Any]) -> str:
    lines = [f"    {name!r}: {value!r},\n" for name, value in values.items()]
    return "{\n" + "".join(lines) + "}"
