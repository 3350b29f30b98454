"""Examples as token ids and labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tunecast.data.examples import Example, prompt_text, reference, trained_text
from tunecast.data.problems import listed
from tunecast.data.templates import Renderer, Segment, prompt_segments, uses_chat_template
from tunecast.errors import DataError
from tunecast.records import Architecture

__all__ = ["IGNORED", "EncodedExample", "encode", "encode_prompt", "encoding_warnings"]

IGNORED = -100
"""The label of a token that is not trained, as torch's cross entropy expects it."""


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """One example as a model takes it.

    Args:
        row: 1-based row in the source file.
        input_ids: Prompt and completion for a decoder-only model; the prompt for an encoder-decoder.
        labels: For a decoder-only model as long as ``input_ids``, -100 where nothing is trained (labels are
            not shifted); for an encoder-decoder the completion and its end-of-sequence token.
        completion_bytes: UTF-8 bytes of the trained text, as far as it was kept.
        truncated: Whether the completion was cut at its end to fit the longest sequence.
        architecture: Which of the two readings of ``labels`` holds.
    """

    row: int
    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    completion_bytes: int
    truncated: bool
    architecture: Architecture = "decoder-only"

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens; there is no padding."""
        if self.architecture == "decoder-only":
            return len(self.input_ids)
        return len(self.input_ids) + len(self.labels)

    @property
    def label_tokens(self) -> int:
        """Labels that are trained and can be predicted: no decoder-only model predicts the first token."""
        if self.architecture == "encoder-decoder":
            return len(self.labels)
        return sum(label != IGNORED for label in self.labels[1:])


def encode(
    examples: Sequence[Example], tokenizer: Any, *, max_length: int, architecture: Architecture
) -> list[EncodedExample]:
    """Tokenise examples and mark what is trained.

    Trained are the assistant's turns with their end-of-turn token (for running text, all of it). Prompts are
    never cut: a completion that does not fit loses its end, and an example whose prompt leaves no room for a
    single trained token is left out; :func:`encoding_warnings` names both. For an encoder-decoder the prompt
    is all that precedes the last trained turn, and ``max_length`` holds for prompt and completion each.

    Args:
        examples: The examples, in any order.
        tokenizer: A transformers tokenizer. Its chat template is used where it has one (decoder-only).
        max_length: Longest sequence in tokens.
        architecture: ``decoder-only`` or ``encoder-decoder``.

    Returns:
        The encoded examples in the order given, without those whose prompt is too long.

    Raises:
        DataError: Nothing is trained, more than half of the prompts are too long, the chat template refuses
            an example, or running text meets an encoder-decoder.
    """
    if not examples:
        return []
    encoder = _encode_sequences if architecture == "decoder-only" else _encode_pairs
    encoded = encoder(examples, tokenizer, max_length)
    kept = [item for item in encoded if item is not None and item.label_tokens > 0]
    too_long = [example.row for example, item in zip(examples, encoded, strict=True) if item is None]
    if 2 * len(too_long) > len(examples):
        raise DataError(
            f"{len(too_long)} of {len(examples)} prompts alone fill the longest sequence of {max_length} "
            f"tokens (rows {listed(too_long)}).",
            "Shorten the prompts, raise --max-length, or choose a model with a longer context.",
        )
    if not kept:
        raise DataError(
            "Nothing would be trained: no example has a completion token left under the mask.",
            "Check the columns with `tunecast data check`; it shows one example with its mask.",
        )
    return kept


def encode_prompt(
    example: Example, tokenizer: Any, *, max_length: int, architecture: Architecture
) -> tuple[int, ...]:
    """The tokens that an answer is generated from: all before the last trained turn, and its header.

    Args:
        example: The example.
        tokenizer: A transformers tokenizer.
        max_length: Longest prompt in tokens. A longer one loses its beginning, since questions tend to stand
            at the end; leave room for the answer.
        architecture: ``decoder-only`` or ``encoder-decoder``.

    Raises:
        DataError: The chat template refuses the example.
    """
    start, end = _special_affixes(tokenizer)
    if architecture == "encoder-decoder":
        ids = _token_ids(tokenizer, [prompt_text(example)])[0]
        return (*start, *ids[max(0, len(ids) - max_length + len(start) + len(end)) :], *end)
    start = () if uses_chat_template(example, tokenizer) else start
    segments = prompt_segments(Renderer(tokenizer).render(example))
    joined, _ = _join(_SegmentIds(tokenizer, [segments]), 0, tokenizer)
    return (*start, *joined[max(0, len(joined) - max_length + len(start)) :])


def encoding_warnings(examples: Sequence[Example], encoded: Sequence[EncodedExample]) -> list[str]:
    """What :func:`encode` left out and cut, one sentence each.

    Args:
        examples: What was given to :func:`encode`.
        encoded: What it returned.
    """
    warnings = []
    kept = iter(encoded)
    following = next(kept, None)
    dropped = []
    for example in examples:
        if following is not None and following.row == example.row:
            following = next(kept, None)
        else:
            dropped.append(example.row)
    if dropped:
        warnings.append(
            f"{len(dropped)} of {len(examples)} examples were left out, since their prompt alone fills the "
            f"longest sequence (rows {listed(dropped)})."
        )
    cut = [item.row for item in encoded if item.truncated]
    if cut:
        warnings.append(
            f"{len(cut)} of {len(examples)} completions were cut to fit the longest sequence; their end is "
            f"not learned (rows {listed(cut)})."
        )
    return warnings


def _encode_sequences(
    examples: Sequence[Example], tokenizer: Any, max_length: int
) -> list[EncodedExample | None]:
    renderer = Renderer(tokenizer)
    ids = _SegmentIds(tokenizer, [renderer.render(example) for example in examples])
    start, _ = _special_affixes(tokenizer)
    encoded: list[EncodedExample | None] = []
    for index, example in enumerate(examples):
        prefix = () if uses_chat_template(example, tokenizer) else start
        inputs, labels = _join(ids, index, tokenizer)
        inputs, labels = [*prefix, *inputs], [IGNORED] * len(prefix) + labels
        first = next((position for position, label in enumerate(labels) if label != IGNORED), len(labels))
        if first >= max_length:
            encoded.append(None)
            continue
        truncated = len(inputs) > max_length
        inputs, labels = inputs[:max_length], labels[:max_length]
        kept = [label for label in labels if label != IGNORED]
        bytes_ = _completion_bytes(tokenizer, trained_text(example), kept if truncated else None)
        encoded.append(EncodedExample(example.row, tuple(inputs), tuple(labels), bytes_, truncated))
    return encoded


def _encode_pairs(
    examples: Sequence[Example], tokenizer: Any, max_length: int
) -> list[EncodedExample | None]:
    text = next((example for example in examples if example.turns[-1].role == "text"), None)
    if text is not None:
        raise DataError(
            f"Row {text.row} is running text without a prompt; an encoder-decoder cannot be trained on it.",
            "Give prompts and completions, or choose a decoder-only model.",
        )
    prompts = _token_ids(tokenizer, [prompt_text(example) for example in examples])
    completions = _token_ids(tokenizer, [reference(example) for example in examples])
    start, end = _special_affixes(tokenizer)
    encoded: list[EncodedExample | None] = []
    for example, prompt, completion in zip(examples, prompts, completions, strict=True):
        inputs = (*start, *prompt, *end)
        if len(inputs) > max_length:
            encoded.append(None)
            continue
        labels = _ended(completion, tokenizer.eos_token_id)
        truncated = len(labels) > max_length
        labels = labels[:max_length]
        bytes_ = _completion_bytes(tokenizer, reference(example), labels if truncated else None)
        encoded.append(
            EncodedExample(
                example.row, inputs, tuple(labels), bytes_, truncated, architecture="encoder-decoder"
            )
        )
    return encoded


def _ended(ids: Sequence[int], eos: int | None) -> list[int]:
    """The ids with exactly one end-of-sequence token at their end, where there is such a token."""
    return [*ids] if eos is None or (ids and ids[-1] == eos) else [*ids, eos]


def _completion_bytes(tokenizer: Any, text: str, kept: list[int] | None) -> int:
    """UTF-8 bytes of the trained text; of the tokens that were ``kept`` where some were cut."""
    if kept is not None:
        text = tokenizer.decode(kept, skip_special_tokens=True)
    return len(text.encode("utf-8", "replace"))


def _join(ids: _SegmentIds, index: int, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Inputs and labels of one example's segments."""
    inputs: list[int] = []
    labels: list[int] = []
    for segment, tokens in ids.of(index):
        if segment.ends:
            tokens = _ended(tokens, tokenizer.eos_token_id)
        inputs.extend(tokens)
        labels.extend(tokens if segment.trained else [IGNORED] * len(tokens))
    return inputs, labels


class _SegmentIds:
    """Token ids of the segments of many examples, every distinct text tokenised once, in one batch.

    Some tokenizers put a space before whatever they are given; in a segment that continues another one it
    would be wrong, so there the text is tokenised behind a line break, whose tokens are then taken away.
    """

    def __init__(self, tokenizer: Any, rendered: Sequence[Sequence[Segment]]) -> None:
        self._rendered = rendered
        first = {segments[0].text for segments in rendered if segments}
        later = {segment.text for segments in rendered for segment in segments[1:]}
        self._first = _by_text(tokenizer, first)
        if _adds_space(tokenizer):
            anchor = _token_ids(tokenizer, ["\n"])[0]
            behind = _by_text(tokenizer, {f"\n{text}" for text in later})
            self._later = {text[1:]: tokens[len(anchor) :] for text, tokens in behind.items()}
        else:
            self._later = _by_text(tokenizer, later)

    def of(self, index: int) -> Iterable[tuple[Segment, list[int]]]:
        """The segments of the example at ``index`` with their tokens."""
        for position, segment in enumerate(self._rendered[index]):
            yield segment, (self._later if position else self._first)[segment.text]


def _adds_space(tokenizer: Any) -> bool:
    anchor, word, joined = _token_ids(tokenizer, ["\n", "a", "\na"])
    return joined != anchor + word and joined[: len(anchor)] == anchor


def _by_text(tokenizer: Any, texts: Iterable[str]) -> dict[str, list[int]]:
    ordered = list(texts)
    return dict(zip(ordered, _token_ids(tokenizer, ordered), strict=True))


def _token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of many texts, special tokens in them recognised, none added."""
    if not texts:
        return []
    # verbose=False: lengths are checked against max_length here, not against the tokenizer's own idea of it.
    batch = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    return [list(ids) for ids in batch["input_ids"]]


def _special_affixes(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the tokenizer puts before and after a single text by itself, such as a begin-of-sequence token."""
    bare = _token_ids(tokenizer, ["a"])[0]
    full = list(tokenizer("a", add_special_tokens=True)["input_ids"])
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return tuple(full[:start]), tuple(full[start + len(bare) :])
    return (), ()
