"""Cards written by several versions of the Trainer."""

from __future__ import annotations

from tunecast.store.importing.model_card import parse_card

CARD = """---
base_model: org/base
---
# outputs
This model is a fine-tuned version of [org/base](https://huggingface.co/org/base) on the colours dataset.
It achieves the following results on the evaluation set:
- Loss: 1.5

### Training hyperparameters

The following hyperparameters were used during training:
- learning_rate: 5e-05
- train_batch_size: 8
- seed: 42
- optimizer: Adam with betas=(0.9,0.999) and epsilon=1e-08
- lr_scheduler_warmup_ratio: 0.1
- num_epochs: 3.0

### Framework versions

- PEFT 0.15.0
- Transformers 4.50.0
- Pytorch 2.6.0+cu124
"""


def test_a_card() -> None:
    card = parse_card(CARD)
    assert (card.model, card.task) == ("org/base", "colours")
    assert card.arguments == {
        "learning_rate": "5e-05",
        "per_device_train_batch_size": "8",
        "seed": "42",
        "optim": "Adam with betas=(0.9,0.999) and epsilon=1e-08",
        "warmup_ratio": "0.1",
        "num_train_epochs": "3.0",
    }
    assert card.versions == {"peft": "0.15.0", "transformers": "4.50.0", "torch": "2.6.0+cu124"}


def test_another_readme_gives_an_empty_card() -> None:
    card = parse_card("# My model\n\n- loss: good\n\nTrained on an unknown dataset.\n")
    assert (card.model, card.task, card.arguments, card.versions) == ("", "", {}, {})
