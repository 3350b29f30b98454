"""What Flower's commands print is told in one sentence."""

from __future__ import annotations

from tunecast.federated.launch import _refusal


def test_a_refusal_is_told_without_its_frame() -> None:
    printed = "Using SuperLink: here\n╭─ Error ─────╮\n│ Connection  │\n│ refused.    │\n╰─────────────╯\n"
    assert _refusal(printed) == "Connection refused."
    assert _refusal("") == "it said nothing"
