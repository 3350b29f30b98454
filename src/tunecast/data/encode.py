"""Turns examples into token ids and labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunecast.data.examples import Example, prompt_text, reference, trained_text
from tunecast.data.problems import listed
from tunecast.data.templates import Renderer, Segment, prompt_segments, uses_chat_template
from tunecast.data.tokens import adds_space, special_affixes, token_ids
from tunecast.errors import DataError
from tunecast.records import Architecture

IGNORED = -100
"""The label of an untrained token, as torch's cross entropy expects it."""


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """One example as token ids.

    Args:
        row: 1-based row in the source file.
        input_ids: Prompt and completion for a decoder-only model; the prompt for an encoder-decoder.
        labels: For a decoder-only model, as long as ``input_ids``, with -100 where nothing is trained (labels
            are not shifted). For an encoder-decoder, the completion and its end-of-sequence token.
        completion_bytes: UTF-8 bytes of the trained text that was kept.
        truncated: Whether the end of the completion was cut to fit ``max_length``.
        architecture: Decides how ``labels`` is to be read.
    """

    row: int
    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    completion_bytes: int
    truncated: bool
    architecture: Architecture = "decoder-only"

    @property
    def tokens(self) -> int:
        """The number of prompt and completion tokens, without padding."""
        if self.architecture == "decoder-only":
            return len(self.input_ids)
        return len(self.input_ids) + len(self.labels)

    @property
    def label_tokens(self) -> int:
        """The number of labels that can be predicted; a decoder-only model never predicts the first token."""
        if self.architecture == "encoder-decoder":
            return len(self.labels)
        predicted = self.labels[1:]
        return len(predicted) - predicted.count(IGNORED)


def encode(
    examples: Sequence[Example], tokenizer: Any, *, max_length: int, architecture: Architecture
) -> list[EncodedExample]:
    """Tokenise examples and mark the trained tokens.

    The assistant's turns are trained, with their end-of-turn tokens. All of a running text is trained.
    Prompts are never cut. A completion that does not fit loses its end. An example is left out if its prompt
    leaves no room for a trained token. :func:`encoding_warnings` reports both. For an encoder-decoder the
    prompt is everything before the last trained turn, and ``max_length`` applies to prompt and completion
    separately.

    Args:
        tokenizer: A transformers tokenizer. A decoder-only model uses its chat template if it has one.
        architecture: ``decoder-only`` or ``encoder-decoder``.

    Returns:
        The encoded examples in the given order, without those whose prompt is too long.

    Raises:
        DataError: Nothing is trained, more than half of the prompts are too long, the chat template rejects
            an example, or an encoder-decoder is given running text.
    """
    return fit(encode_whole(examples, tokenizer, architecture=architecture), tokenizer, max_length=max_length)


def encode_whole(
    examples: Sequence[Example], tokenizer: Any, *, architecture: Architecture
) -> list[EncodedExample]:
    """Tokenise examples without a length limit; see :func:`encode` for the arguments."""
    encoder = _encode_sequences if architecture == "decoder-only" else _encode_pairs
    encoded = encoder(examples, tokenizer) if examples else []
    if encoded and not any(item.label_tokens for item in encoded):
        raise DataError(
            "Nothing would be trained: no example has a completion token left under the mask.",
            "Check the columns with `tunecast data check`; it shows one example with its mask.",
        )
    return encoded


def fit(whole: Sequence[EncodedExample], tokenizer: Any, *, max_length: int) -> list[EncodedExample]:
    """Cut completions to ``max_length``, and leave out examples whose prompt is too long.

    Raises:
        DataError: More than half of the prompts are too long.
    """
    fitted = [_fit(item, tokenizer, max_length) for item in whole]
    kept = [item for item in fitted if item is not None]
    too_long = [item.row for item, result in zip(whole, fitted, strict=True) if result is None]
    if 2 * len(too_long) > len(whole):
        raise DataError(
            f"{len(too_long)} of {len(whole)} prompts alone fill the longest sequence of {max_length} "
            f"tokens (rows {listed(too_long)}).",
            "Shorten the prompts, raise --max-length, or choose a model with a longer context.",
        )
    return kept


def _fit(item: EncodedExample, tokenizer: Any, max_length: int) -> EncodedExample | None:
    if item.architecture == "encoder-decoder" and len(item.input_ids) > max_length:
        return None
    if max(len(item.input_ids), len(item.labels)) <= max_length:
        return item if item.label_tokens else None
    inputs, labels = item.input_ids[:max_length], item.labels[:max_length]
    kept = [label for label in labels if label != IGNORED]
    text = tokenizer.decode(kept, skip_special_tokens=True)
    cut = replace(item, input_ids=inputs, labels=labels, completion_bytes=_utf8_bytes(text), truncated=True)
    return cut if cut.label_tokens else None


def encode_prompt(
    example: Example, tokenizer: Any, *, max_length: int, architecture: Architecture
) -> tuple[int, ...]:
    """Encode the prompt to generate an answer from: everything before the last trained turn, and its header.

    A prompt longer than ``max_length`` tokens loses its beginning, because questions tend to come last. Leave
    room for the answer.

    Raises:
        DataError: The chat template rejects the example.
    """
    start, end = special_affixes(tokenizer)
    if architecture == "encoder-decoder":
        ids = token_ids(tokenizer, [prompt_text(example)])[0]
        return (*start, *ids[max(0, len(ids) - max_length + len(start) + len(end)) :], *end)
    start = () if uses_chat_template(example, tokenizer) else start
    segments = prompt_segments(Renderer(tokenizer).render(example))
    joined, _ = _join(_SegmentIds(tokenizer, [segments]), 0, tokenizer)
    return (*start, *joined[max(0, len(joined) - max_length + len(start)) :])


def kept_examples(examples: Sequence[Example], encoded: Sequence[EncodedExample]) -> list[Example]:
    """Return the examples that :func:`encode` kept, in the order of both."""
    kept = iter(encoded)
    following = next(kept, None)
    found = []
    for example in examples:
        if following is not None and following.row == example.row:
            found.append(example)
            following = next(kept, None)
    return found


def encoding_warnings(examples: Sequence[Example], encoded: Sequence[EncodedExample]) -> list[str]:
    """Report the examples that :func:`encode` left out or cut, one sentence each."""
    warnings = []
    kept = {id(example) for example in kept_examples(examples, encoded)}
    dropped = [example.row for example in examples if id(example) not in kept]
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


def _encode_sequences(examples: Sequence[Example], tokenizer: Any) -> list[EncodedExample]:
    renderer = Renderer(tokenizer)
    ids = _SegmentIds(tokenizer, [renderer.render(example) for example in examples])
    start, _ = special_affixes(tokenizer)
    encoded = []
    for index, example in enumerate(examples):
        prefix = () if uses_chat_template(example, tokenizer) else start
        inputs, labels = _join(ids, index, tokenizer)
        encoded.append(
            EncodedExample(
                row=example.row,
                input_ids=(*prefix, *inputs),
                labels=(*[IGNORED] * len(prefix), *labels),
                completion_bytes=_utf8_bytes(trained_text(example)),
                truncated=False,
            )
        )
    return encoded


def _encode_pairs(examples: Sequence[Example], tokenizer: Any) -> list[EncodedExample]:
    text = next((example for example in examples if example.turns[-1].role == "text"), None)
    if text is not None:
        raise DataError(
            f"Row {text.row} is running text without a prompt; an encoder-decoder cannot be trained on it.",
            "Give prompts and completions, or choose a decoder-only model.",
        )
    prompts = token_ids(tokenizer, [prompt_text(example) for example in examples])
    completions = token_ids(tokenizer, [reference(example) for example in examples])
    start, end = special_affixes(tokenizer)
    return [
        EncodedExample(
            row=example.row,
            input_ids=(*start, *prompt, *end),
            labels=tuple(_ended(completion, tokenizer.eos_token_id)),
            completion_bytes=_utf8_bytes(reference(example)),
            truncated=False,
            architecture="encoder-decoder",
        )
        for example, prompt, completion in zip(examples, prompts, completions, strict=True)
    ]


def _ended(ids: Sequence[int], eos: int | None) -> list[int]:
    """Append the end-of-sequence token if the tokenizer has one and the ids do not end with it."""
    return [*ids] if eos is None or (ids and ids[-1] == eos) else [*ids, eos]


def _utf8_bytes(text: str) -> int:
    return len(text.encode())


def _join(ids: _SegmentIds, index: int, tokenizer: Any) -> tuple[list[int], list[int]]:
    inputs: list[int] = []
    labels: list[int] = []
    for segment, tokens in ids.of(index):
        if segment.ends:
            tokens = _ended(tokens, tokenizer.eos_token_id)
        inputs.extend(tokens)
        labels.extend(tokens if segment.trained else [IGNORED] * len(tokens))
    return inputs, labels


class _SegmentIds:
    """Token ids of the segments of many examples; each distinct text is tokenised once, in one batch.

    Some tokenizers put a space before any text. In a segment that continues another one this would be wrong.
    There the text is tokenised after a line break, and the tokens of the line break are removed.
    """

    def __init__(self, tokenizer: Any, rendered: Sequence[Sequence[Segment]]) -> None:
        self._rendered = rendered
        first = {segments[0].text for segments in rendered if segments}
        later = {segment.text for segments in rendered for segment in segments[1:]}
        self._first = _by_text(tokenizer, first)
        if adds_space(tokenizer):
            anchor = token_ids(tokenizer, ["\n"])[0]
            after = _by_text(tokenizer, {f"\n{text}" for text in later})
            self._later = {text[1:]: tokens[len(anchor) :] for text, tokens in after.items()}
        else:
            self._later = _by_text(tokenizer, later)

    def of(self, index: int) -> Iterable[tuple[Segment, list[int]]]:
        for position, segment in enumerate(self._rendered[index]):
            yield segment, (self._later if position else self._first)[segment.text]


def _by_text(tokenizer: Any, texts: Iterable[str]) -> dict[str, list[int]]:
    ordered = list(texts)
    return dict(zip(ordered, token_ids(tokenizer, ordered), strict=True))
