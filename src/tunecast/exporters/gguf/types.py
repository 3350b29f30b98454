"""The types of weights that GGUF files are written in, and what each may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunecast.errors import ConfigurationError, did_you_mean


@dataclass(frozen=True)
class GgufType:
    """A type of a file's weights.

    Args:
        name: As llama.cpp calls it, in lower case.
        ftype: Its number in llama.cpp's ``llama_ftype``.
        tolerance: How far the log-probability of a token may change on average, in nats.
        by_converter: Whether the converter writes it; the others need llama.cpp itself.
    """

    name: str
    ftype: int
    tolerance: float
    by_converter: bool = False


_KNOWN = (
    GgufType("f32", 0, 0.02, by_converter=True),
    GgufType("f16", 1, 0.05, by_converter=True),
    GgufType("bf16", 32, 0.1, by_converter=True),
    GgufType("q8_0", 7, 0.2, by_converter=True),
    GgufType("q6_k", 18, 0.3),
    GgufType("q5_k_m", 17, 0.5),
    GgufType("q5_k_s", 16, 0.5),
    GgufType("q5_1", 9, 0.5),
    GgufType("q5_0", 8, 0.5),
    GgufType("q4_k_m", 15, 0.8),
    GgufType("q4_k_s", 14, 0.8),
    GgufType("q4_1", 3, 0.8),
    GgufType("q4_0", 2, 0.8),
    GgufType("q3_k_l", 13, 1.2),
    GgufType("q3_k_m", 12, 1.2),
    GgufType("q3_k_s", 11, 1.2),
    GgufType("q2_k", 10, 2.0),
)
TYPES: Mapping[str, GgufType] = {known.name: known for known in _KNOWN}


def find_type(name: str) -> GgufType:
    """Return a type by its name, in either case.

    Raises:
        ConfigurationError: There is no such type, or it needs more than the model.
    """
    known = TYPES.get(name.lower())
    if known is None:
        raise ConfigurationError(
            f"--quantise: there is no GGUF type {name!r} here.",
            f"{did_you_mean(name.lower(), TYPES)}Known: {', '.join(TYPES)}.",
        )
    return known
