"""Loads a finished model: a base model, an adapter on it, and models that it steers by its logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunecast.errors import ModelError, first_line
from tunecast.models.classifier import with_head
from tunecast.models.load import ResolvedModel, load_model, quiet
from tunecast.training.failures import is_out_of_memory

if TYPE_CHECKING:
    import torch

    from tunecast.data import Example
    from tunecast.proxy_tuning.loading import Steering


def load_finished(
    model: ResolvedModel,
    adapter: str,
    steering: Steering | None,
    tokenizer: Any,
    examples: Sequence[Example],
    *,
    dtype: torch.dtype,
    device: str,
    trust_remote_code: bool = False,
    head: Sequence[str] = (),
) -> Any:
    """Load a model to score or to generate with.

    Args:
        adapter: Folder of its adapter in PEFT's format; empty for none.
        steering: The large model that it steers, and itself before its finetuning; None for none.
        tokenizer: Its tokenizer.
        examples: The examples whose prompts it will read if it steers another.
        dtype: Type of the weights.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        head: The labels of its classification head, which the adapter brings if there is one; empty for a
            model that writes text.

    Raises:
        ModelError: A model or the adapter cannot be loaded.
    """
    found = load_model(
        model,
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
        classifier=bool(head) and not adapter,
    )
    if adapter:
        if head:
            found = with_head(found, head, tokenizer.pad_token_id, seed=0)
        found = _adapted(found, model, adapter, device)
    elif head and found.config.pad_token_id is None:  # without one, it takes no batches
        found.config.pad_token_id = tokenizer.pad_token_id
    if steering is None:
        return found
    from tunecast.proxy_tuning.loading import steered

    return steered(
        steering,
        found,
        tokenizer,
        examples,
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
    )


def _adapted(base: Any, model: ResolvedModel, adapter: str, device: str) -> Any:
    from peft import PeftModel

    try:
        with quiet():
            return PeftModel.from_pretrained(base, adapter, torch_device=device).eval()
    except Exception as error:  # peft and safetensors raise anything for files that they do not expect
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"The adapter {adapter} cannot be loaded on {model.name}: {first_line(error)}",
            "Check that this is the model it was trained on, and that its files are whole.",
        ) from error
