"""Scripts and kinds of characters, against Python's own Unicode database."""

from __future__ import annotations

import unicodedata

import pytest

from tunecast.data.characters import KINDS, SCRIPTS, count_characters


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ABC", "latin_upper"),
        ("abcéßñ", "latin_lower"),
        ("0123456789", "digit"),
        ("Привет", "cyrillic"),
        ("Ελλάδα", "greek"),
        ("漢字", "han"),
        ("ひらカタ", "kana"),
        ("한국어", "hangul"),
        ("שלום", "hebrew"),
        ("مرحبا", "arabic"),
        ("हिन्दी", "indic"),
        ("ไทย", "thai"),
        (" \t\u00a0", "white_space"),
        ("\n\n", "line_break"),
        (".,;:!?'\"", "punctuation"),
        ("(){}[]<>=+|\\/_", "code"),
        ("😀🚀", "symbol"),
    ],
)
def test_kinds(text: str, kind: str) -> None:
    assert count_characters(text) == {kind: len(text)}


def test_counts_add_up_over_parts() -> None:
    parts = ["Hello, мир! 42\n", "漢字 and λ", "", "{code: []}"]
    whole = count_characters("".join(parts))
    assert sum(whole.values()) == len("".join(parts))
    assert whole == {
        kind: total for kind in KINDS if (total := sum(count_characters(part).get(kind, 0) for part in parts))
    }


def test_letters_of_every_plane_belong_to_a_script() -> None:
    scripts = {kind for kinds in SCRIPTS.values() for kind in kinds}
    letters = [chr(point) for point in range(0x20000) if unicodedata.category(chr(point)) in ("Lu", "Ll")]
    found = count_characters("".join(letters))
    assert sum(found.get(kind, 0) for kind in scripts) > 0.9 * len(letters)
