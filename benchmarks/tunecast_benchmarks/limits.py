"""Reports whether a benchmark meets its limits, by its last line and its exit status."""

from __future__ import annotations

from collections.abc import Sequence

CANDIDATES = 1000
"""Number of candidates to score at once."""
ALLOWED_MILLISECONDS = 50.0
"""Wall time to score them, on two cores."""
ALLOWED_LOADING_SECONDS = 0.3
"""Wall time to read a prior."""
LEARNED_FROM = 2000
"""Number of runs to train a prior on at once."""
ALLOWED_LEARNING_SECONDS = 300.0
"""Wall time to train it, on two cores."""
MISSED = "Missed: "
"""Beginning of the last line if a benchmark measured everything and missed a limit."""


def verdict(missed: Sequence[str]) -> int:
    """Print the missed limits, as the last line of the output.

    Args:
        missed: One phrase for each limit that was missed.

    Returns:
        The exit status: 1 if any limit was missed.
    """
    print(MISSED + "; ".join(missed) if missed else "All limits are met.")
    return 1 if missed else 0


def too_slow(milliseconds: float, loading_seconds: float = 0.0, learning_seconds: float = 0.0) -> list[str]:
    """The missed limits of a prior's speed.

    Args:
        milliseconds: Wall time to score :data:`CANDIDATES` candidates.
        loading_seconds: Wall time to read the prior.
        learning_seconds: Wall time to train one on :data:`LEARNED_FROM` runs.
    """
    missed = []
    if milliseconds >= ALLOWED_MILLISECONDS:
        missed.append(f"{CANDIDATES} candidates scored in under {ALLOWED_MILLISECONDS:.0f} ms")
    if loading_seconds >= ALLOWED_LOADING_SECONDS:
        missed.append(f"the prior read in under {ALLOWED_LOADING_SECONDS} s")
    if learning_seconds >= ALLOWED_LEARNING_SECONDS:
        missed.append(f"{LEARNED_FROM} runs learned from in under {ALLOWED_LEARNING_SECONDS:.0f} s")
    return missed


def is_missed(status: int, output: str) -> bool:
    """Whether a benchmark with this exit status and output measured everything but missed a limit."""
    return status == 1 and output.rstrip().rpartition("\n")[2].startswith(MISSED)
