"""What other parts and users may rely on, and nothing else."""

from __future__ import annotations

import tunecast.data


def test_public_names() -> None:
    assert tunecast.data.__all__ == [
        "CheckReport",
        "Dataset",
        "EncodedExample",
        "Example",
        "Lengths",
        "Turn",
        "check",
        "describe",
        "encode",
        "encode_prompt",
        "encoding_warnings",
        "fitting_length",
        "read",
        "reference",
        "spread",
    ]
    for name in tunecast.data.__all__:
        assert getattr(tunecast.data, name).__doc__, name
