"""Whether completions have anything to do with their prompts, by their letters alone.

Rows that were shifted or sorted on one side look like any others, pass every check of form, and teach
nothing. The Hilbert-Schmidt independence criterion (Gretton et al., "A Kernel Statistical Test of
Independence", 2008) tells them: where prompts are alike, are completions more alike than in another order?
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunecast.data.examples import Example, prompt_text, trained_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_EXAMPLES = 256
LEAST_EXAMPLES = 50
LEAST_DISTINCT = 20
"""Distinct completions in the sample below which nothing is said: of a few labels, letters rarely tell which
belongs to a prompt, be it a riddle or a sentence whose grammar is in question."""
MOST_CHARACTERS = 1000
"""Characters of each text that are looked at, its last ones: many prompts begin with the same words."""
LETTERS = 4
"""Length of the pieces that texts are compared by; they need no words, so that any script will do."""
COLUMNS = 4096
PERMUTATIONS = 100
LEAST_DEVIATIONS = 3.0
"""Below this, prompts and completions count as unrelated. Of 35 datasets the 18 with enough kinds of
completions had 10.9 and more; three of them had less than 1 once their completions were dealt out anew."""
UNRELATED = (
    "The completions look unrelated to their prompts, as if they belonged to other rows: where prompts are "
    "alike, completions are no more alike than by chance. Check that no column was shifted or sorted."
)
"""What the user is told of such a dataset."""


def dependence(examples: Sequence[Example]) -> float | None:
    """By how many standard deviations prompts and completions depend on each other.

    The deviation is that over random pairings of the same prompts and completions, whose mean counts as zero.

    Args:
        examples: Training examples; an evenly spaced sample of them is looked at.

    Returns:
        None where nothing can be said: too few examples, too few kinds of completions, or no prompts.
    """
    chosen = np.linspace(0, len(examples) - 1, min(len(examples), MOST_EXAMPLES)).astype(int)
    sample = [examples[int(place)] for place in chosen]
    completions = [trained_text(example) for example in sample]
    if len(sample) < LEAST_EXAMPLES or len({text.strip() for text in completions}) < LEAST_DISTINCT:
        return None
    prompts, answers = _likeness([prompt_text(example) for example in sample]), _likeness(completions)
    np.fill_diagonal(prompts, 0.0)
    prompts -= prompts.mean(axis=0) + prompts.mean(axis=1)[:, None] - prompts.mean()
    draw = np.random.default_rng(0)
    orders = [draw.permutation(len(sample)) for _ in range(PERMUTATIONS)]
    at_random = np.array([(prompts * answers[np.ix_(order, order)]).sum() for order in orders])
    spread = float(at_random.std())
    found = float((prompts * answers).sum())
    return (found - float(at_random.mean())) / spread if spread > 1e-9 else None


def is_unrelated(deviations: float | None) -> bool:
    """Whether completions look as if they belonged to other prompts.

    Args:
        deviations: What :func:`dependence` found.
    """
    return deviations is not None and deviations < LEAST_DEVIATIONS


def _likeness(texts: Sequence[str]) -> NDArray[np.float64]:
    """Cosines of texts as bags of pieces, rare ones counting more; shape (texts, texts)."""
    bags = np.zeros((len(texts), COLUMNS))
    for row, text in zip(bags, texts, strict=True):
        row[[zlib.crc32(piece) % COLUMNS for piece in _pieces(text)]] = 1.0
    bags *= np.log((1 + len(texts)) / (1 + bags.sum(axis=0)))
    length = np.linalg.norm(bags, axis=1, keepdims=True)
    bags /= np.where(length > 0, length, 1.0)
    return np.asarray(bags @ bags.T)


def _pieces(text: str) -> set[bytes]:
    padded = f" {' '.join(text.lower().split())[-MOST_CHARACTERS:]} "
    return {padded[at : at + LETTERS].encode() for at in range(max(1, len(padded) - LETTERS + 1))}
