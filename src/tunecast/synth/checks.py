"""Checks made pairs one by one; a pair that fails is dropped for the first reason found."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from tunecast.synth.pairs import Pair

REASONS = {
    "malformed": "the writer's text is not the structure that was asked for",
    "unsafe": "it has control characters, hidden characters or the marks of a chat template",
    "trivial": "the completion says nothing that the prompt does not say",
    "leaking": "it speaks of a document or passage that a reader of the prompt does not have",
    "ungrounded": "the completion has words or numbers that the passage does not have",
    "not entailed": "the model for inference does not conclude the completion from the passage",
    "unanswerable": "the writer, asked with the passage at hand, answers otherwise",
    "guessable": "the writer answers alike without the passage",
    "duplicate": "a pair that was kept is nearly the same",
    "too long": "it does not fit in the model's context",
}
"""What a pair can be dropped for."""

GROUNDED_SHARE = 0.6
"""Smallest share of a completion's content words that the passage has too."""
LONGEST_SUMMARY = 0.7
"""Length of a summary, as a share of its passage, above which it says everything again."""
SAME = 0.8
"""Jaccard similarity of two pairs' words, in threes, above which one is dropped."""
PERMUTATIONS = 64

_UNSAFE_CATEGORIES = frozenset(("Cc", "Cf", "Co", "Cs"))
_HARMLESS = frozenset(
    "\n\t\u200c\u200d\u00ad"
)  # joiners and soft hyphens belong to the spelling of languages
_TEMPLATE_MARK = re.compile(r"<\|[a-z_]+\|>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>")
_LEAK = re.compile(
    r"\b(?:according to|in|from|by|of|as per) (?:the|this|that) (?:above |given |provided |following )?"
    r"(?:document|passage|text|excerpt|context|article|paper|section|paragraph|author|authors)\b"
    r"|\b(?:the|this) (?:passage|excerpt|text|document|context|author)s? "
    r"(?:says?|states?|mentions?|describes?|explains?|provides?|discusses|does|do|is|are)\b"
    r"|\b(?:mentioned|described|shown|stated|given) (?:above|below|earlier|here)\b",
    re.IGNORECASE,
)
_NO_ANSWER = re.compile(
    r"\bnot (?:mentioned|specified|stated|provided|given)\b"
    r"|\bi (?:do not|don't|cannot|can't) (?:know|answer|say)\b|\bas an ai\b",
    re.IGNORECASE,
)


class Checker:
    """Checks pairs in order and remembers those that it kept, to find near-duplicates.

    Args:
        fits: Says whether a pair fits the model to be finetuned, None without a model.
        entails: Says whether the passage of a question or a summary entails it, None to leave that open.
    """

    def __init__(
        self,
        fits: Callable[[Pair], bool] | None = None,
        entails: Callable[[Pair], bool] | None = None,
    ) -> None:
        from datasketch import MinHashLSH

        self._fits, self._entails = fits, entails
        self._prompts: set[str] = set()
        self._near = MinHashLSH(threshold=SAME, num_perm=PERMUTATIONS)

    def reason(self, pair: Pair) -> str:
        """Return the reason in :data:`REASONS` to drop a pair; empty if it is kept."""
        text = f"{pair.whole_prompt}\n{pair.completion}"
        if is_unsafe(text):
            return "unsafe"
        if is_trivial(pair):
            return "trivial"
        if pair.kind == "qa" and (_LEAK.search(pair.prompt) or _LEAK.search(pair.completion)):
            return "leaking"
        if not is_grounded(pair):
            return "ungrounded"
        if self._entails is not None and pair.kind in ("qa", "summary") and not self._entails(pair):
            return "not entailed"
        if self._fits is not None and not self._fits(pair):
            return "too long"
        return "" if self._is_new(pair) else "duplicate"

    def _is_new(self, pair: Pair) -> bool:
        """Remember the pair, unless one that was kept is nearly the same or has the same prompt."""
        from datasketch import MinHash

        prompt = " ".join(_words(pair.whole_prompt))
        # Questions about one passage differ by less than the passage that they share.
        asked = pair.prompt if pair.kind in ("qa", "extraction") else pair.whole_prompt
        words = _words(f"{asked} {pair.completion}")
        threes = {" ".join(words[at : at + 3]) for at in range(max(len(words) - 2, 1))}
        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch([three.encode() for three in sorted(threes)])
        if prompt in self._prompts or self._near.query(sketch):
            return False
        self._near.insert(len(self._prompts), sketch)
        self._prompts.add(prompt)
        return True


def is_unsafe(text: str) -> bool:
    """Return whether a text has characters that a reader does not see, or marks of a chat template."""
    odd = (
        letter == "\ufffd" or (letter not in _HARMLESS and unicodedata.category(letter) in _UNSAFE_CATEGORIES)
        for letter in text
    )
    return any(odd) or _TEMPLATE_MARK.search(text) is not None


def is_trivial(pair: Pair) -> bool:
    """Return whether the completion is empty, repeats the prompt or declines to answer.

    A summary that is nearly as long as its passage repeats it. The labels and short answers of a
    classification and an extraction often stand in the prompt.
    """
    asked, answered = set(_words(pair.prompt)), _words(pair.completion)
    if len(asked) < 2 or not answered or _NO_ANSWER.search(pair.completion):
        return True
    if pair.kind == "summary":
        return len(pair.completion) > LONGEST_SUMMARY * len(pair.passage.text)
    return pair.kind == "qa" and set(answered) <= asked


def is_grounded(pair: Pair) -> bool:
    """Return whether the completion follows from the passage, as far as its words and numbers tell.

    An extraction has to stand there literally.
    """
    if pair.kind == "extraction":
        copied = re.escape(" ".join(pair.completion.split()))
        return re.search(rf"(?<!\w){copied}(?!\w)", " ".join(pair.passage.text.split())) is not None
    return grounded_share(pair) >= GROUNDED_SHARE and has_its_numbers(pair)


def grounded_share(pair: Pair) -> float:
    """Return the share of the completion's content words whose stem the passage, a heading or the prompt has.

    A word of a language without spaces counts as one, so the share is strict there.
    """
    if pair.kind == "classification":  # its label is a word about the passage, not of it
        return 1.0
    known = {_stem(word) for word in _words(_known_text(pair))}
    content = [_stem(word) for word in _words(pair.completion) if len(word) > 3]
    return sum(word in known for word in content) / len(content) if content else 1.0


def has_its_numbers(pair: Pair) -> bool:
    """Return whether every number of the completion stands in the passage or the prompt."""
    numbers = re.compile(r"\d+(?:[.,]\d+)*")
    return set(numbers.findall(pair.completion)) <= set(numbers.findall(_known_text(pair)))


def _known_text(pair: Pair) -> str:
    return "\n".join((pair.passage.text, *pair.passage.headings, pair.prompt))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _stem(word: str) -> str:
    """Return the first letters, which inflected forms share."""
    return word[:5]
