"""Parser of the README.md that a Trainer writes, the only readable record of its arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_RENAMED = {
    "train_batch_size": "per_device_train_batch_size",
    "num_epochs": "num_train_epochs",
    "optimizer": "optim",
    "lr_scheduler_warmup_steps": "warmup_steps",
    "lr_scheduler_warmup_ratio": "warmup_ratio",
    "training_steps": "max_steps",
}
_VERSIONS = {"PEFT": "peft", "Transformers": "transformers", "Pytorch": "torch"}
_ITEM = re.compile(r"^- ([\w ]+?):? ([^\n]+)$", re.MULTILINE)
_BASE = re.compile(r"fine-tuned version of \[([^\]]+)\]")
_DATASET = re.compile(r"\bon the (.+?) dataset\b")


@dataclass(frozen=True)
class ModelCard:
    """The content of a card; missing values are empty.

    ``arguments`` and ``versions`` are keyed by the names of ``TrainingArguments`` and ``Versions``.
    """

    model: str = ""
    task: str = ""
    arguments: Mapping[str, str] | None = None
    versions: Mapping[str, str] | None = None


def parse_card(text: str) -> ModelCard:
    """Parse a card written by a Trainer; other text gives an empty card."""
    base, dataset = _BASE.search(text), _DATASET.search(text)
    listed = _ITEM.findall(_section(text, "Training hyperparameters"))
    versions = dict(_ITEM.findall(_section(text, "Framework versions")))
    return ModelCard(
        model=base.group(1) if base else "",
        task=dataset.group(1) if dataset and dataset.group(1) not in ("None", "unknown") else "",
        arguments={_RENAMED.get(name, name): value.strip() for name, value in listed},
        versions={_VERSIONS[name]: value for name, value in versions.items() if name in _VERSIONS},
    )


def _section(text: str, title: str) -> str:
    """Return the lines between a heading and the next."""
    found = re.search(rf"^#+ {title}\s*\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    return found.group(1) if found else ""
