"""Reasons say what the history shows."""

from __future__ import annotations

import pytest

from sample_runs import sample_pipeline, sample_point
from tunecast.records import Outcome
from tunecast.search import History, TrialView
from tunecast.search.reasons import reason, share_text


def trial(*losses: float, rank: int = 1, outcome: Outcome = Outcome.PAUSED) -> TrialView:
    curve = tuple(sample_point(8 * 2**place, loss) for place, loss in enumerate(losses))
    ends = len(losses) == 4
    return TrialView(
        sample_pipeline(lora_r=rank), curve, None if ends else 2 ** len(losses) / 8, outcome=outcome
    )


HISTORY = History(
    (
        trial(4.0, 3.5, 3.2, 3.0, outcome=Outcome.COMPLETED),
        trial(3.9, rank=2),
        trial(3.0, rank=3),
        trial(4.5, rank=4),
        trial(rank=5),
        trial(rank=6),
    )
)


@pytest.mark.parametrize(
    ("index", "text"),
    [
        (1, "It has the 2nd lowest of 4 losses at 1/8 of the full length."),
        (2, "It leads: of 4 trials with points, it is predicted to end best."),
        (3, "It has the 4th lowest of 4 losses at 1/8 of the full length."),
        (4, "It is the next of 2 candidates that were not tried yet."),
        (5, "It is the strategy's choice among 2 candidates not tried yet."),
    ],
)
def test_reasons(index: int, text: str) -> None:
    assert reason(HISTORY, index) == text


def test_shares_are_written_as_rungs() -> None:
    assert [share_text(nominal) for nominal in (0, -1, -6)] == [
        "the full length",
        "1/2 of the full length",
        "1/64 of the full length",
    ]
