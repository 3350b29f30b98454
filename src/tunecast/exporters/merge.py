"""Merges an adapter into its base model: a plain folder that transformers loads."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunecast.errors import ConfigurationError, OutputError, first_line
from tunecast.models.adapter import ADAPTER_FILE, base_of, read_adapter
from tunecast.models.delivered import delivered_folder
from tunecast.models.load import load_config, load_model, load_tokenizer, quiet, resolve

if TYPE_CHECKING:
    from tunecast.models.load import ResolvedModel

Write = Callable[[Path], object]
"""Writes a model to a folder."""
CARD = "README.md"
KEPT = ("pipeline.json", "training.json")
"""Files of a delivery that say what was trained, on which data; the merged model keeps them."""


def merge(source: Path, folder: Path, *, model: str | None = None) -> Path:
    """Write a base model with its adapter merged into the weights, its tokenizer and a model card.

    The weights keep the type in which the base model is saved. A delivery that is a whole model is copied.

    Args:
        source: A session's folder, or the folder of an adapter.
        folder: Where to write; new or empty.
        model: The base model; None for the adapter's own.

    Raises:
        ConfigurationError: There is no adapter, or it cannot be merged.
        ModelError: The base model cannot be loaded.
        OutputError: The folder cannot be written, or holds something.
    """
    delivered, folder = _delivered_folder(source), folder.absolute()
    _check_empty(folder)
    unfinished = folder.with_name(f".{folder.name}.part")
    write = _copier(delivered) if _is_whole(delivered) else _merger(delivered, model)
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        write(unfinished)
        unfinished.replace(folder)
    except OSError as error:
        raise OutputError(
            f"--output-dir {folder} cannot be written: {error.strerror or error}.", "Choose another folder."
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _copier(delivered: Path) -> Write:
    return lambda folder: shutil.copytree(delivered, folder, dirs_exist_ok=True)


def _merger(adapter: Path, model: str | None) -> Write:
    """Load everything that the merged model is written from, and return what writes it to a folder."""
    _check_mergeable(adapter)
    resolved = resolve(model or base_of(adapter))
    merged = _merged(resolved, adapter)

    def write(folder: Path) -> None:
        with quiet():
            merged.save_pretrained(folder)
        load_tokenizer(resolved).save_pretrained(folder)
        (folder / CARD).write_text(_card(resolved.name, adapter), encoding="utf-8")
        for name in KEPT:
            if (adapter / name).is_file():
                shutil.copy(adapter / name, folder / name)

    return write


def _card(base_model: str, adapter: Path) -> str:
    """Write a short model card; :func:`tunecast.api.merge` knows a session's scores and writes another."""
    import yaml

    kind = read_adapter("--merge", adapter)["peft_type"].lower()
    values = {"library_name": "transformers", "base_model": base_model, "tags": ["tunecast", kind]}
    front = yaml.safe_dump(values | {"base_model_relation": "finetune"}, sort_keys=False, allow_unicode=True)
    return f"""---
{front}---

# {base_model} with a merged adapter

The weights of `{base_model}` with the {kind} adapter of `{adapter.resolve().name}/` merged into them, in the
type of the base model's weights. Written by `tunecast export --merge`; transformers loads it without peft.

It inherits the licence, limits and biases of its base model.
"""


def _is_whole(folder: Path) -> bool:
    return (folder / "config.json").is_file() and not (folder / ADAPTER_FILE).is_file()


def _delivered_folder(source: Path) -> Path:
    """Return the folder of the model that a session delivered, or that was given."""
    if not source.is_dir():
        raise ConfigurationError(
            f"--merge: there is no folder {source}.", "Give a session's folder, or one that peft wrote."
        )
    return source if (source / ADAPTER_FILE).is_file() else delivered_folder(source) or source


def _check_mergeable(adapter: Path) -> None:
    from peft import PeftConfig

    read_adapter("--merge", adapter)
    try:
        config = PeftConfig.from_pretrained(str(adapter))
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(
            f"--merge: peft cannot read {adapter / ADAPTER_FILE}: {first_line(error)}",
            "Give a folder that peft wrote.",
        ) from error
    if config.is_prompt_learning:
        raise ConfigurationError(
            f"--merge: {str(config.peft_type.value).lower()} adds virtual tokens, which no weight can hold.",
            f"Load {adapter} with peft beside its base model.",
        )


def _check_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(
            f"--output-dir {folder} exists and is not empty.", "Choose another folder, or remove it."
        )


def _check_names(adapted: Any, adapter: Path) -> None:
    """Compare the adapter's weights with those that the model has: peft leaves others at their start.

    Raises:
        ValueError: They differ.
    """
    from peft import get_peft_model_state_dict, load_peft_weights

    saved = set(load_peft_weights(str(adapter), device="cpu"))
    found = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    if saved != found:
        raise ValueError(f"{len(saved ^ found)} weights have no counterpart, such as {min(saved ^ found)}")


def _merged(model: ResolvedModel, adapter: Path) -> Any:
    """Load base model and adapter, and merge them on the CPU."""
    import torch
    from peft import PeftModel

    dtype = getattr(load_config(model), "dtype", None) or torch.float32
    base = load_model(model, dtype=dtype, device="cpu")
    try:
        with quiet():
            adapted = PeftModel.from_pretrained(base, str(adapter))
        _check_names(adapted, adapter)
        return adapted.merge_and_unload(safe_merge=True)
    except (NotImplementedError, AttributeError, ValueError, TypeError, RuntimeError) as error:
        raise ConfigurationError(
            f"--merge: the adapter cannot be merged into {model.name}: {first_line(error)}",
            "Check that --model is the base model it was trained on.",
        ) from error
