"""Finds the finished model that the user names, and has it answer prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunecast import models
from tunecast.data import encode_prompt
from tunecast.data.examples import Example, Turn
from tunecast.errors import ConfigurationError
from tunecast.hardware.dtype import choose_dtype
from tunecast.models.adapter import ADAPTER_FILE, base_of, read_adapter
from tunecast.models.delivered import delivered_folder
from tunecast.paths import expanded
from tunecast.proxy_tuning.loading import Steering, find_expert, steering_of
from tunecast.ranges import MAX_LENGTH
from tunecast.results import Answer, Proxy
from tunecast.session.prepare import choose_device
from tunecast.session.provenance import Origin
from tunecast.session.settings import SessionSettings
from tunecast.training.compute import Compute
from tunecast.training.finished_model import load_finished
from tunecast.training.generate import Sampling, generate


@dataclass(frozen=True)
class FinishedModel:
    """A finished model.

    Args:
        named: The model that the user means: the base of an adapter, or the one that is steered.
        model: The model to load, which writes and reads the prompts; with ``steering`` the small one.
        adapter: Folder of its adapter; empty for none.
        steering: The models beside it, if it steers another.
        origin: What it was trained on, if its folder says so.
    """

    named: str
    model: str
    adapter: str
    steering: Steering | None
    origin: Origin | None


def find_finished_model(
    model: str, adapter: str = "", proxy: Proxy | None = None, *, trust_remote_code: bool = False
) -> FinishedModel:
    """Find a finished model.

    Args:
        model: A base model as :func:`tunecast.models.resolve` takes it, or the folder of a session or an
            adapter.
        adapter: Folder of an adapter in PEFT's format; empty for none, or if ``model`` is one.
        proxy: The small finetuned model that steers ``model``; None for none.

    Raises:
        ConfigurationError: The folder holds no adapter, its session has not ended, or ``proxy`` is wrong.
        ModelError: A model of proxy-tuning is missing, or they have different tokens.
    """
    if (delivered := delivered_folder(expanded(model))) is not None:
        model = str(delivered)
    adapter = str(expanded(adapter)) if adapter else ""
    is_adapter = (expanded(model) / ADAPTER_FILE).is_file()
    if proxy is not None:
        if adapter or is_adapter:
            raise ConfigurationError(
                "--proxy-expert steers a model without an adapter, and there is one.",
                "Leave --adapter out, or merge it into the model first: tunecast export --merge.",
            )
        expert = find_expert(proxy)
        steering = steering_of(model, expert, proxy.alpha, trust_remote_code=trust_remote_code)
        origin = Origin.read(Path(expert.adapter or expert.model))
        return FinishedModel(model, expert.model, expert.adapter, steering, origin)
    origin = Origin.read(expanded(adapter or model))
    if adapter:
        read_adapter("--adapter", Path(adapter))
    elif is_adapter:
        adapter, model = str(expanded(model)), base_of(expanded(model))
    return FinishedModel(model, model, adapter, None, origin)


def answers(
    finished: FinishedModel,
    prompts: Sequence[str],
    settings: SessionSettings,
    max_new_tokens: int,
    drawn: tuple[float, float] | None,
) -> list[Answer]:
    """Load a finished model in this process and answer prompts.

    Args:
        prompts: What a user says, one turn each.
        settings: Device, type of weights, seed, and whether code that comes with a model may run.
        max_new_tokens: Longest answer in tokens; at most half of the context.
        drawn: Temperature and top-p by which tokens are drawn; None takes the likeliest each time.

    Raises:
        ModelError: The model cannot be loaded.
    """
    import torch

    resolved = models.resolve(finished.model)
    code = settings.trust_remote_code
    facts = models.describe(resolved, trust_remote_code=code)
    tokenizer = models.load_tokenizer(resolved, trust_remote_code=code)
    device = choose_device(settings.device)
    dtype = settings.dtype if settings.dtype != "auto" else choose_dtype(device, facts.width)
    compute = Compute(device, dtype, facts.architecture, tokenizer.pad_token_id)
    compute.seed(settings.seed)
    examples = [
        Example((Turn("user", prompt, False), Turn("assistant", "-", True)), row)
        for row, prompt in enumerate(prompts, start=1)
    ]
    model = load_finished(
        resolved,
        finished.adapter,
        finished.steering,
        tokenizer,
        examples,
        dtype=getattr(torch, dtype),
        device=device,
        trust_remote_code=code,
    )
    context = finished.steering.context if finished.steering else facts.context
    if context:  # a prompt that is cut is worse than an answer that is
        max_new_tokens = min(max_new_tokens, context // 2)
    room = (context or MAX_LENGTH) - max_new_tokens
    asked = [
        encode_prompt(example, tokenizer, max_length=room, architecture=facts.architecture)
        for example in examples
    ]
    sampling = Sampling(*drawn) if drawn else None
    texts = generate(model, tokenizer, asked, compute, max_new_tokens=max_new_tokens, sampling=sampling)
    return [Answer(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
