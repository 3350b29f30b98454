"""Finds and loads the three models of proxy-tuning."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunecast.errors import ConfigurationError, ModelError
from tunecast.models.adapter import ADAPTER_FILE, base_of, read_adapter
from tunecast.models.delivered import delivered_folder
from tunecast.models.describe import describe
from tunecast.models.load import ResolvedModel, load_model, load_tokenizer, resolve
from tunecast.paths import expanded
from tunecast.proxy_tuning.prompts import own_prompts
from tunecast.proxy_tuning.vocabulary import SAME_TOKENIZER, shared_tokens
from tunecast.ranges import check_range
from tunecast.results import Proxy

if TYPE_CHECKING:
    import torch

    from tunecast.data import Example
    from tunecast.proxy_tuning.model import SteeredModel


@dataclass(frozen=True)
class Expert:
    """A small finetuned model: what to load, its adapter (empty for a whole model), what it was before."""

    model: str
    adapter: str
    base: str


@dataclass(frozen=True)
class Steering:
    """What the worker that has loaded the expert needs beside it.

    Args:
        large: The model that is steered.
        small: The expert before its finetuning.
        alpha: How strongly the small models steer.
        vocabulary: Number of tokens that the models share.
        context: Positions of the model that has the fewest; None without a limit.
    """

    large: ResolvedModel
    small: ResolvedModel
    alpha: float
    vocabulary: int
    context: int | None


def find_expert(proxy: Proxy) -> Expert:
    """Find the small finetuned model in the folder that the user named.

    Raises:
        ConfigurationError: ``alpha`` is out of range, the folder holds no finetuned model, or it is not
            said what it was before.
        ModelError: The base of the expert's adapter is missing.
    """
    check_range("alpha", proxy.alpha)
    folder = expanded(proxy.expert)
    if not folder.is_dir():
        raise ConfigurationError(
            f"--proxy-expert: there is no folder {proxy.expert}.",
            "Give the output folder of tunecast tune, or that of an adapter or a whole model.",
        )
    folder = delivered_folder(folder) or folder
    if (folder / ADAPTER_FILE).is_file():
        read_adapter("--proxy-expert", folder)
        base = proxy.base or _base_named_by(folder)
        return Expert(base, str(folder), base)
    if not (folder / "config.json").is_file():
        raise ConfigurationError(
            f"--proxy-expert: the folder {proxy.expert} holds no finetuned model: neither {ADAPTER_FILE} nor "
            "config.json.",
            "Give the output folder of tunecast tune, or that of an adapter or a whole model.",
        )
    if not proxy.base:
        raise ConfigurationError(
            f"--proxy-base is missing: {proxy.expert} is a whole model that does not name the one it was.",
            "Give --proxy-base MODEL, the small model before its finetuning.",
        )
    return Expert(str(folder), "", proxy.base)


def _base_named_by(adapter: Path) -> str:
    with _flag("--proxy-expert"):
        named = base_of(adapter)
    try:
        resolve(named)
    except ModelError as error:
        raise ModelError(
            f"--proxy-expert: {adapter} is an adapter for {named}, which is not here.",
            "Give --proxy-base MODEL, the small model that the adapter was trained on.",
        ) from error
    return named


def steering_of(
    large: str,
    expert: Expert,
    alpha: float,
    *,
    flags: tuple[str, str, str] = ("--model", "--proxy-base", "--proxy-expert"),
    trust_remote_code: bool = False,
) -> Steering:
    """Resolve large and small model, and check that their tokens, and the expert's, are the same.

    Args:
        flags: The flags that name large model, small model and expert, for messages.

    Raises:
        ModelError: A model is missing or is no decoder, or the tokenizers differ.
    """
    found = []
    for flag, reference in zip(flags, (large, expert.base, expert.model), strict=True):
        with _flag(flag):
            found.append(resolve(reference))
    tokenizers, contexts = {}, []
    for where, model in zip(flags, found, strict=True):
        with _flag(where):
            facts = describe(model, trust_remote_code=trust_remote_code)
            if facts.architecture != "decoder-only":
                raise ModelError(f"{where}: {model.name} is no decoder-only model.", SAME_TOKENIZER)
            name = f"{model.name} ({where})"
            tokenizers[name] = load_tokenizer(model, trust_remote_code=trust_remote_code)
        contexts += [facts.context] if facts.context else []
    return Steering(found[0], found[1], alpha, shared_tokens(tokenizers), min(contexts, default=None))


def steered(
    steering: Steering,
    expert: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    *,
    dtype: torch.dtype,
    device: str,
    trust_remote_code: bool = False,
) -> SteeredModel:
    """Load the large model and the small one, and join them with the expert.

    Args:
        expert: The small finetuned model, loaded.
        tokenizer: Its tokenizer, which writes the prompts that the result is given.
        examples: The examples whose prompts will be read.
        dtype: Type of the weights.
        device: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ModelError: A model cannot be loaded.
        DataError: An example has several answers, and the chat templates differ.
    """
    from tunecast.proxy_tuning.model import SteeredModel

    members, prompts = [], []
    for model in (steering.large, steering.small):
        own = load_tokenizer(model, trust_remote_code=trust_remote_code)
        members.append(load_model(model, dtype=dtype, device=device, trust_remote_code=trust_remote_code))
        prompts.append(own_prompts(examples, tokenizer, own))
    base, small = members
    rewriting = (prompts[0], None, prompts[1])
    return SteeredModel(
        base, expert, small, steering.alpha, steering.vocabulary, tokenizer.eos_token_id, rewriting
    )


@contextlib.contextmanager
def _flag(flag: str) -> Iterator[None]:
    """Name the flag that the user gave in messages about a model."""
    try:
        yield
    except ModelError as error:
        raise ModelError(error.what.replace("--model:", f"{flag}:", 1), error.hint) from error
