"""A law of how well a base model knows language, from its size and pretraining alone.

    L(N, D) = E + A / N^alpha + B / D^beta    (Hoffmann et al., arXiv 2203.15556, equation 2)

with N parameters, D tokens of pretraining and L in nats per token, and the constants of the replication
(Besiroglu et al., arXiv 2404.10102), which corrects the original ones. Unlike a power of N and D, it levels
off: with 10^8 parameters it is 8.4 nats after 10^7 tokens, 3.7 after 10^9, and from 10^12 on it hardly falls.
"""

from __future__ import annotations

import math

from tunecast.records import ModelFacts

IRREDUCIBLE = 1.8172
SIZE, SIZE_EXPONENT = 482.01, 0.3478
DATA, DATA_EXPONENT = 2085.43, 0.3658
REFERENCE = 7.0
"""At this many nats above the irreducible loss, differences between methods count in full: a model of 17
million parameters after 10 million tokens, and all smaller ones."""


def ln_language_loss(model: ModelFacts) -> float:
    """Return the logarithm of the loss over its value at :data:`REFERENCE`: 0 there, lower if better."""
    return math.log((IRREDUCIBLE + _excess(model)) / (IRREDUCIBLE + REFERENCE))


def excess_share(model: ModelFacts) -> float:
    """Return the part of language that is left to learn, as a share of :data:`REFERENCE`; at most 1."""
    return min(1.0, _excess(model) / REFERENCE)


def _excess(model: ModelFacts) -> float:
    tokens = model.likely_pretraining_tokens
    return SIZE / math.pow(model.parameters, SIZE_EXPONENT) + DATA / math.pow(tokens, DATA_EXPONENT)
