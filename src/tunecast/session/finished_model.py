"""Finds the finished model that the user names, and has it answer prompts or choose their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunecast import models
from tunecast.data import Example, Turn, encode_labels, encode_prompt
from tunecast.data.patterns import PLACE
from tunecast.data.problems import listed
from tunecast.errors import ConfigurationError, ModelError, did_you_mean
from tunecast.hardware.dtype import choose_dtype
from tunecast.models.adapter import ADAPTER_FILE, base_of, read_adapter
from tunecast.models.classifier import head_labels
from tunecast.models.config_facts import read_config
from tunecast.models.delivered import delivered_folder
from tunecast.paths import expanded
from tunecast.progress import Progress
from tunecast.proxy_tuning.loading import Steering, find_expert, steering_of
from tunecast.ranges import MAX_LENGTH
from tunecast.results import Answer, ChosenLabel, Proxy
from tunecast.session.prepare import choose_device
from tunecast.session.provenance import Origin
from tunecast.session.settings import SessionSettings
from tunecast.training.compute import Compute
from tunecast.training.finished_model import load_finished
from tunecast.training.generate import Sampling, generate
from tunecast.training.label_likelihood import by_head, choose_labels, likeliest

CHUNK = 64
"""Prompts between two reports of progress."""


@dataclass(frozen=True)
class FinishedModel:
    """A finished model.

    Args:
        named: The model that the user means: the base of an adapter, or the one that is steered.
        model: The model to load, which writes and reads the prompts; with ``steering`` the small one.
        adapter: Folder of its adapter; empty for none.
        steering: The models beside it, if it steers another.
        origin: What it was trained on, if its folder says so.
        head: The labels of its classification head; empty for a model that writes text.
    """

    named: str
    model: str
    adapter: str
    steering: Steering | None
    origin: Origin | None
    head: tuple[str, ...] = ()


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
    folder = expanded(adapter or model)
    origin, head = Origin.read(folder), _head_in(folder)
    if adapter:
        read_adapter("--adapter", folder, may_classify=bool(head))
    elif is_adapter:
        adapter, model = str(folder), base_of(folder, may_classify=bool(head))
    return FinishedModel(model, model, adapter, None, origin, head)


def _head_in(folder: Path) -> tuple[str, ...]:
    """Return the labels of the classification head in a model's or an adapter's folder."""
    return head_labels(read_config(folder)) if (folder / "config.json").is_file() else ()


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
        ModelError: The model cannot be loaded, or has a classification head and writes no text.
    """
    if finished.head:
        raise ModelError(
            f"{finished.named} has a classification head, which writes no text.",
            "Use tunecast classify, which says the likeliest label of each prompt.",
        )
    examples = [_asking(prompt) for prompt in prompts]
    loaded = _load(finished, examples, settings)
    if loaded.context:  # a prompt that is cut is worse than an answer that is
        max_new_tokens = min(max_new_tokens, loaded.context // 2)
    sampling = Sampling(*drawn) if drawn else None
    texts = generate(
        loaded.model,
        loaded.tokenizer,
        loaded.prompts(examples, max_new_tokens),
        loaded.compute,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
    )
    return [Answer(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]


def chosen_labels(
    finished: FinishedModel,
    prompts: Sequence[str],
    labels: Sequence[str],
    settings: SessionSettings,
    progress: Progress,
) -> list[ChosenLabel]:
    """Load a finished model in this process and choose a label for each prompt, without generating.

    Args:
        prompts: What a user says, one turn each.
        labels: The labels to choose from, as the model was trained to write them; empty takes those that it
            was trained on.
        settings: Device, type of weights, pattern, and whether code that comes with a model may run.

    Raises:
        ConfigurationError: There are fewer than two labels.
        DataError: Two labels are the same tokens to the model.
        ModelError: The model cannot be loaded.
    """
    wanted = _wanted_labels(finished, labels)
    pattern = settings.pattern or (finished.origin.pattern if finished.origin else "")
    texts = [pattern.replace(PLACE, prompt) for prompt in prompts] if pattern else prompts
    examples = [_asking(text) for text in texts]
    loaded = _load(finished, examples, settings)
    encoded = encode_labels(
        [label.strip() for label in wanted],
        [_asking(texts[0], label) for label in wanted],
        loaded.tokenizer,
        architecture=loaded.compute.architecture,
    )
    ids = [label.ids for label in encoded]
    asked = loaded.prompts(examples, max(map(len, ids)))
    places = [finished.head.index(label.text) for label in encoded] if finished.head else None
    found = []
    progress.start("Choosing labels", len(asked), "texts")
    for start in range(0, len(asked), CHUNK):
        part = asked[start : start + CHUNK]
        if places is None:
            _, chosen, probability = choose_labels(loaded.model, part, ids, loaded.compute)
        else:
            nats, *_ = by_head(loaded.model, part, loaded.compute)
            chosen, probability = likeliest(nats[:, places], [(0,)] * len(places))
        found += [
            ChosenLabel(prompt, encoded[label].text, float(one))
            for prompt, label, one in zip(prompts[start : start + CHUNK], chosen, probability, strict=True)
        ]
        progress.advance(len(chosen))
    progress.finish()
    return found


def _wanted_labels(finished: FinishedModel, given: Sequence[str]) -> list[str]:
    """Return the labels to choose from, each as the model was trained to write it, if it was.

    Raises:
        ConfigurationError: There are fewer than two, one is blank, or the model's head has none of that name.
    """
    known = (finished.origin.labels if finished.origin else ()) or finished.head
    if not given and not known:
        raise ConfigurationError(
            f"The labels of {finished.named} are not known.",
            "Give each with --label, as the model writes it. Models that a session of this version chose by "
            "a metric of labels know theirs.",
        )
    trained = {label.strip(): label for label in known}
    spelled = {label.strip(): trained.get(label.strip(), label) for label in given or known}
    if "" in spelled or len(spelled) < 2:
        raise ConfigurationError(
            f"--label: {listed(map(repr, spelled), 5)} leaves nothing to choose from.",
            "Give two or more different labels.",
        )
    if finished.head and (others := [label for label in spelled if label not in finished.head]):
        raise ConfigurationError(
            f"--label: the classification head of {finished.named} has no label {others[0]!r}.",
            f"{did_you_mean(others[0], finished.head)}Labels: {listed(finished.head, 10)}.",
        )
    return list(spelled.values())


@dataclass(frozen=True)
class _Loaded:
    """A finished model in memory, and what it needs to read prompts.

    Args:
        context: Most tokens that it can read and write; None without a limit.
    """

    model: Any
    tokenizer: Any
    compute: Compute
    context: int | None

    def prompts(self, examples: Sequence[Example], answer_tokens: int) -> list[tuple[int, ...]]:
        """Encode prompts so that answers of so many tokens have room after them."""
        room = max(1, (self.context or MAX_LENGTH) - answer_tokens)
        of = self.compute.architecture
        return [
            encode_prompt(example, self.tokenizer, max_length=room, architecture=of) for example in examples
        ]


def _load(finished: FinishedModel, examples: Sequence[Example], settings: SessionSettings) -> _Loaded:
    import torch

    resolved = models.resolve(finished.model)
    code = settings.trust_remote_code
    facts = models.describe(resolved, trust_remote_code=code, may_classify=bool(finished.head))
    tokenizer = models.load_tokenizer(resolved, trust_remote_code=code)
    device = choose_device(settings.device)
    dtype = settings.dtype if settings.dtype != "auto" else choose_dtype(device, facts.width)
    compute = Compute(device, dtype, facts.architecture, tokenizer.pad_token_id)
    compute.seed(settings.seed)
    model = load_finished(
        resolved,
        finished.adapter,
        finished.steering,
        tokenizer,
        examples,
        dtype=getattr(torch, dtype),
        device=device,
        trust_remote_code=code,
        head=finished.head,
    )
    return _Loaded(
        model, tokenizer, compute, finished.steering.context if finished.steering else facts.context
    )


def _asking(prompt: str, answer: str = "-") -> Example:
    """Return a prompt as an example. By default, the answer only stands for the one that is asked for."""
    return Example((Turn("user", prompt, False), Turn("assistant", answer, True)), 1)
