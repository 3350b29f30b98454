"""Records of real programs: a transformers Trainer with and without peft, logging to MLflow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tiny


@dataclass(frozen=True)
class Trained:
    """Output folders of two runs of the Trainer, and the database in which MLflow recorded the first."""

    folder: Path
    adapter: Path
    whole: Path
    mlflow: Path


@pytest.fixture(scope="session")
def trained(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    mlflow = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    made = Trained(folder, folder / "adapter", folder / "whole", mlflow)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{mlflow}")
        patch.setenv("MLFLOW_EXPERIMENT_NAME", "colours")
        _train(tiny_llama, made.adapter, adapter=True, report_to=["mlflow"])
    _train(tiny_llama, made.whole, adapter=False, report_to=[])
    return made


def _train(model_folder: Path, output: Path, *, adapter: bool, report_to: list[str]) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    model: Any = AutoModelForCausalLM.from_pretrained(model_folder)
    if adapter:
        model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]))
    arguments = TrainingArguments(
        output_dir=str(output),
        max_steps=6,
        per_device_train_batch_size=4,
        learning_rate=3e-3,
        warmup_steps=0.1,
        seed=7,
        eval_strategy="steps",
        eval_steps=2,
        save_steps=2,
        logging_steps=1,
        include_num_input_tokens_seen="all",
        report_to=report_to,
        use_cpu=True,
        disable_tqdm=True,
    )
    rows = _rows(model_folder)
    trainer = Trainer(model, arguments, train_dataset=rows[:24], eval_dataset=rows[24:])
    trainer.train()
    trainer.save_model()
    trainer.create_model_card(dataset="colours")


def _rows(model_folder: Path) -> list[dict[str, Any]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    texts = [row["prompt"] + row["completion"] for row in tiny.toy_rows(32)]
    rows = [dict(tokenizer(text, truncation=True, max_length=24, padding="max_length")) for text in texts]
    return [row | {"labels": list(row["input_ids"])} for row in rows]
