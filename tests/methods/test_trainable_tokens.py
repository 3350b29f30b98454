"""Trainable tokens: two rows, also where the head shares them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import workshop
from adapters import adapted, base_model, count
from sample_runs import sample_model
from tunecast.methods import get_method


def rows(folder: Path) -> list[int]:
    config = base_model(folder).config
    return sorted({config.bos_token_id, config.eos_token_id})


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_changes_its_rows_and_the_tied_head(family: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(f"tiny_{family}")
    model, base, changed = adapted(folder, "trainable_tokens", shake=0.5), base_model(folder), rows(folder)
    assert count(model) == 32 * len(changed)
    every = torch.arange(len(base.get_input_embeddings().weight))
    moved = (model.get_input_embeddings()(every) != base.get_input_embeddings()(every)).any(1)
    assert moved.nonzero()[:, 0].tolist() == changed
    ids = torch.arange(10, 30)[None]  # none of the rows is read, only written
    moved = (model(input_ids=ids).logits != base(input_ids=ids).logits)[0].any(0)
    assert moved.nonzero()[:, 0].tolist() == changed


def test_what_it_does_not_serve(tiny_t5: Path) -> None:
    method = get_method("trainable_tokens")
    assert "separate embeddings" in (method.applies(workshop.training_task(tiny_t5, rows=4).facts) or "")
    assert "names no tokens" in (method.applies(sample_model(config={"model_type": "llama"})) or "")
    assert method.applies(sample_model(config={"bos_token_id": None, "eos_token_id": [2, 5]})) is None
