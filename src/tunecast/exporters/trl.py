"""A training script for TRL's SFTTrainer, with the adapter's own configuration beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tunecast.errors import ConfigurationError, ModelError
from tunecast.exporters.job import Work, optimizer_of, value_of

SCRIPT = '''"""Trains one pipeline with TRL; made by tunecast export.

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
    # What is trained is float32: in bfloat16 small updates vanish. Frozen weights may be bfloat16.
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


def files(work: Work) -> dict[str, str]:
    """``train.py``, and for adapters ``adapter/adapter_config.json``.

    Raises:
        ConfigurationError: TRL cannot train the method, or the pipeline's optimiser.
    """
    adapter = _adapter(work)
    four_bit = work.pipeline.method == "qlora"
    script = SCRIPT.format(
        model=work.model,
        has_adapter=adapter is not None,
        hyperparameters=_literal(_hyperparameters(work)),
        quantisation_import=", BitsAndBytesConfig" if four_bit else "",
        quantisation=QUANTISATION if four_bit else "",
    )
    made = {"train.py": script}
    if adapter is not None:
        made["adapter/adapter_config.json"] = (
            json.dumps(adapter, indent=2, sort_keys=True, default=sorted) + "\n"
        )
    return made


def _adapter(work: Work) -> Mapping[str, Any] | None:
    """The adapter in peft's words; None where all weights are trained."""
    from tunecast.methods import get_method
    from tunecast.methods.full import Full
    from tunecast.methods.peft_method import PeftMethod

    method = get_method(work.pipeline.method)
    if type(method) is Full:
        return None
    if not isinstance(method, PeftMethod):
        raise ConfigurationError(
            f"{work.pipeline.method} is Tunecast's own method: TRL cannot train it.",
            "Hand over full finetuning or an adapter of peft, or train it with tunecast train.",
        )
    if float(work.pipeline.hyperparameters.get("loraplus_ratio", 1.0)) != 1.0:
        raise ConfigurationError(
            "loraplus_ratio is not known to TRL.", "Hand over a pipeline without it, or with 1.0."
        )
    config = method.peft_config(work.pipeline, encoder_decoder=False)
    method.suit(config, _model_config(work.model))
    plain: dict[str, Any] = config.to_dict()
    for name in ("peft_type", "task_type"):
        plain[name] = getattr(plain[name], "value", plain[name])
    plain["base_model_name_or_path"] = work.model
    return plain


def _model_config(model: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(
            f"The configuration of --model {model} cannot be had, and its layers' names are needed: {reason}",
            "Give a local folder, or go online once.",
        ) from None


def _hyperparameters(work: Work) -> dict[str, Any]:
    """Arguments of SFTConfig; losses count completions only, as in Tunecast."""
    schedule = str(value_of(work, "lr_scheduler_type"))
    noise = float(value_of(work, "neftune_noise_alpha"))
    return {
        "learning_rate": float(value_of(work, "learning_rate")),
        "per_device_train_batch_size": int(value_of(work, "per_device_train_batch_size")),
        "num_train_epochs": work.epochs,
        "lr_scheduler_type": schedule,
        # transformers 5 reads a number below 1 as a share of all steps.
        "warmup_steps": 0 if schedule == "constant" else float(value_of(work, "warmup_ratio")),
        "optim": optimizer_of(work),
        "weight_decay": float(value_of(work, "weight_decay")),
        "max_grad_norm": float(value_of(work, "max_grad_norm")),
        "label_smoothing_factor": float(value_of(work, "label_smoothing")),
        "neftune_noise_alpha": noise or None,
        "max_length": work.max_length,
        "seed": work.seed,
        "gradient_checkpointing": False,
        "logging_steps": 10,
        "report_to": "none",
    }


def _literal(values: Mapping[str, Any]) -> str:
    lines = [f"    {name!r}: {value!r},\n" for name, value in values.items()]
    return "{\n" + "".join(lines) + "}"
