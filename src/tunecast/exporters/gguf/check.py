"""Compares an exported model with the one that was finetuned, on the same tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunecast.data import EncodedExample, Example
from tunecast.data.encode import IGNORED
from tunecast.data.templates import Renderer, prompt_segments, uses_chat_template
from tunecast.data.tokens import special_affixes, token_ids
from tunecast.exporters.gguf.processes import Measured
from tunecast.exporters.gguf.types import GgufType

EXAMPLES = 16
"""Examples that are compared at most."""
LONGEST = 512
"""Tokens of an example that are compared at most."""
LABELS = 64
"""Label tokens of an example that are compared at most."""
LOSSLESS = ("f32", "f16", "bf16")
"""Types that keep what matters of the weights, so that a difference does not come from the type."""
KEPT = 0.5
"""Minimum share of what the finetuning changed that must be found in the exported model."""
UNCHANGED = 1e-4
"""Nats by which a model may differ from its base model and still be the same."""
EXPORTED_BADLY = 3.0
"""How many times more the finetuned model may change than the base model, before the export is suspected."""


@dataclass(frozen=True)
class Samples:
    """What both programs are given.

    Args:
        sequences: Token ids, and positions of labels in them.
        prompts: The examples' prompts as text.
        prompt_ids: Their token ids in transformers.
        stop: Token id of the end of a turn.
        stop_text: The same as text.
    """

    sequences: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    prompts: tuple[str, ...]
    prompt_ids: tuple[tuple[int, ...], ...]
    stop: int
    stop_text: str


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of the labels of each example in nats, and the likeliest tokens in their places."""

    log_probabilities: Sequence[Sequence[float]]
    likeliest: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Difference:
    """How far llama.cpp is from transformers.

    Args:
        tokens: Compared label tokens.
        loss: Their mean loss in transformers, in nats.
        loss_there: The same in llama.cpp.
        mean: Mean absolute difference of a token's log-probability, in nats.
        largest: The largest one.
        first_tokens: Examples whose answer begins with the same likeliest token.
        stops: Examples in which both stop, or neither, where the answer ends.
        examples: Compared examples.
    """

    tokens: int
    loss: float
    loss_there: float
    mean: float
    largest: float
    first_tokens: int
    stops: int
    examples: int


@dataclass(frozen=True)
class GgufCheck:
    """What the check of an exported model found.

    Args:
        dataset: Whose examples were compared.
        base: The base model in the same type; None if it is not known.
        learned: Mean absolute change of a token's log-probability by the finetuning, in nats, in
            transformers; None without the base model.
        learned_there: The same in llama.cpp.
        prompts_alike: Examples whose prompt llama.cpp reads as the same tokens.
        ends: Whether llama.cpp ends an answer at the stop token.
    """

    dataset: str
    type: str
    finetuned: Difference
    base: Difference | None
    learned: float | None
    learned_there: float | None
    prompts_alike: int
    ends: bool
    stop: str


def samples_of(
    examples: Sequence[Example], encoded: Sequence[EncodedExample], tokenizer: Any, stop: str
) -> Samples:
    """Choose what is compared from examples and their encodings, in the same order."""
    sequences = []
    for item in encoded:
        labelled = [place for place, label in enumerate(item.labels) if place and label != IGNORED]
        kept = [*labelled[: LABELS - 1], labelled[-1]] if len(labelled) > LABELS else labelled
        sequences.append((item.input_ids, tuple(kept)))
    renderer = Renderer(tokenizer)
    prompts = ["".join(part.text for part in prompt_segments(renderer.render(one))) for one in examples]
    start, _ = special_affixes(tokenizer)
    prefixes = [() if uses_chat_template(one, tokenizer) else start for one in examples]
    ids = token_ids(tokenizer, prompts)
    return Samples(
        sequences=tuple(sequences),
        prompts=tuple(prompts),
        prompt_ids=tuple((*prefix, *one) for prefix, one in zip(prefixes, ids, strict=True)),
        stop=int(tokenizer.convert_tokens_to_ids(stop)),
        stop_text=stop,
    )


def score(model: Any, samples: Samples) -> Scores:
    """Score the samples by a model in transformers, on the CPU."""
    import torch

    chosen, likeliest = [], []
    model.eval()
    with torch.inference_mode():
        for ids, positions in samples.sequences:
            logits = model(torch.tensor([ids])).logits[0, [place - 1 for place in positions]]
            rows = logits.double().log_softmax(dim=-1)
            wanted = torch.tensor([ids[place] for place in positions])
            chosen.append(rows.gather(1, wanted[:, None])[:, 0].tolist())
            likeliest.append(rows.argmax(dim=-1).tolist())
    return Scores(chosen, likeliest)


def difference(here: Scores, there: Measured, samples: Samples) -> Difference:
    """Compare the scores of the same samples."""
    pairs = _pairs(here, there)
    gaps = [abs(ours - theirs) for ours, theirs in pairs]
    chosen = list(zip(here.likeliest, there.likeliest, strict=True))
    stop = samples.stop
    return Difference(
        tokens=len(pairs),
        loss=-sum(ours for ours, _ in pairs) / len(pairs),
        loss_there=-sum(theirs for _, theirs in pairs) / len(pairs),
        mean=sum(gaps) / len(gaps),
        largest=max(gaps),
        first_tokens=sum(ours[0] == theirs[0] for ours, theirs in chosen),
        stops=sum((ours[-1] == stop) == (theirs[-1] == stop) for ours, theirs in chosen),
        examples=len(chosen),
    )


def mean_change(one: Scores | Measured, other: Scores | Measured) -> float:
    """Return the mean absolute difference of a token's log-probability between two models, in nats."""
    pairs = _pairs(one, other)
    return sum(abs(ours - theirs) for ours, theirs in pairs) / len(pairs)


def _pairs(one: Scores | Measured, other: Scores | Measured) -> list[tuple[float, float]]:
    rows = zip(one.log_probabilities, other.log_probabilities, strict=True)
    return [pair for ours, theirs in rows for pair in zip(ours, theirs, strict=True)]


def prompts_alike(there: Measured, samples: Samples, *, begin: int | None) -> int:
    """Count the prompts that both programs read as the same tokens.

    Args:
        begin: Token id of the beginning of a text; None if there is none. A template writes it too, and
            llama.cpp's server then leaves one of both out.
    """
    doubled = begin is not None and any(ids[:1] == (begin,) for ids in samples.prompt_ids)
    read = [ids[1:] if doubled and list(ids[:2]) == [begin, begin] else ids for ids in there.tokens]
    return sum(tuple(theirs) == ours for theirs, ours in zip(read, samples.prompt_ids, strict=True))


def reason_to_refuse(check: GgufCheck, kind: GgufType, tolerance: float | None) -> tuple[str, str] | None:
    """Return why an exported model is refused and what to do; None if it computes what was finetuned.

    Args:
        tolerance: Mean difference of a token's log-probability in nats; None for the type's own.
    """
    found, allowed = check.finetuned, kind.tolerance if tolerance is None else tolerance
    elsewhere = "Use --merge, and serve the model with transformers."
    if not check.ends:
        return f"llama.cpp would not stop at {check.stop}, which ends an answer of this model.", elsewhere
    if check.prompts_alike < found.examples:
        alike = f"{check.prompts_alike} of {found.examples} prompts"
        return f"llama.cpp reads other tokens: only {alike} are the same as in training.", elsewhere
    if _is_lost(check):
        return (
            f"the finetuning changes a token's log-probability by {check.learned:.4f} nats on average, but "
            f"only by {check.learned_there:.4f} in {kind.name}: it is lost in the export.",
            "Choose a larger type, such as --quantise f16; if it is refused too, use --merge.",
        )
    if found.mean <= allowed:
        return None
    what = (
        f"a token's log-probability changes by {found.mean:.3f} nats on average, more than {allowed:g} (the "
        f"loss is {found.loss_there:.3f}, not {found.loss:.3f})"
    )
    if check.base is None:
        return f"{what}.", "Try --quantise f16: if it is refused too, it is the export that fails."
    if found.mean > EXPORTED_BADLY * check.base.mean:
        return f"{what}. The base model's changes only by {check.base.mean:.3f}.", elsewhere
    if kind.name in LOSSLESS:
        return (
            f"{what}. The base model's changes by {check.base.mean:.3f}, so llama.cpp computes this model "
            "differently.",
            elsewhere,
        )
    return (
        f"{what}. The base model's changes by {check.base.mean:.3f}: {kind.name} keeps too little of them.",
        "Choose a larger type, such as --quantise q8_0, or a larger --tolerance.",
    )


def _is_lost(check: GgufCheck) -> bool:
    """Return whether llama.cpp computes something closer to the base model than to the finetuned one."""
    if check.learned is None or check.learned_there is None or check.learned <= UNCHANGED:
        return False
    return not check.learned_there >= KEPT * check.learned  # also if it is not a number
