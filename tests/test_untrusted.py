"""JSON and YAML of others: what a text holds, and one message with its place for each way to be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunecast import untrusted
from tunecast.errors import ConfigurationError, ModelError
from tunecast.untrusted import MAX_DEPTH, Malformed, parse_json, parse_yaml, read_json, read_object, read_yaml

BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
CHAIN = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 2 * MAX_DEPTH))


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_json_is_what_the_library_reads() -> None:
    text = '{"a": [1, -2.5e3, true, null, "x\\u00e9"], "limit": 1000000000000000019884624838656}'
    assert parse_json(text) == parse_json(text.encode()) == json.loads(text)
    assert parse_json('{"a": 1}', lambda found: sorted(found)) == ["a"]
    assert parse_json(nested(MAX_DEPTH)) == json.loads(nested(MAX_DEPTH))
    wide = json.dumps([{"a": [n]} for n in range(500)])
    assert parse_json(wide) == json.loads(wide)
    digits = "7" * 5000
    assert parse_json(f'["{digits}", 5]') == [digits, 5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n"b" 2}', r"line 2, column 5: Expecting ':' delimiter"),
        (b'{"a": "\xff"}', "byte 8 is not UTF-8"),
        (nested(MAX_DEPTH + 1), "nested more than 100 levels"),
        (nested(100_000), "nested more than 100 levels"),
        ('{"a":' * 50_000 + "1" + "}" * 50_000, "nested more than 100 levels"),
        (f"[{'9' * 1002}]", "an integer of 1,002 digits"),
        (f"[-{'9' * 6000}]", "an integer of 6,001 digits"),
    ],
    ids=["comma", "bytes", "deep", "deeper", "objects", "digits", "thousands"],
)
def test_json_beyond_a_limit(text: str | bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        parse_json(text)


def test_yaml_with_aliases_and_merges() -> None:
    text = "base: &base {rate: 1e-3, steps: [1, 2]}\nother: {<<: *base, seed: 0x1f}\nday: 2026-01-02\n"
    found = parse_yaml(text)
    assert found["other"] == {**found["base"], "seed": 31}
    assert parse_yaml("") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 5\nmethods: [lora\n", "line 3: "),
        ("name: 2026-13-45\n", r"month must be in 1\.\.12"),
        (nested(100_000), "nested more than 100 levels"),
        ("".join(" " * n + "a:\n" for n in range(300)), "nested more than 100 levels"),
        (BOMB, "line 6: its aliases stand for too much"),
        (CHAIN, "its aliases stand for too much"),
        ("a: &a [*a]", "line 1: an alias refers to itself"),
        ("a: &a {b: {<<: *a}}", "line 1: an alias refers to itself"),
        ("a: 1\nseed: 0x" + "f" * 5000, "line 2: an integer of 5,002 digits"),
        ("seed: " + "1:" * 5000 + "1", "an integer of"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("? {a: b}\n: 3", "unhashable key"),
        ('path: "a\\0b"', "line 1: a character that no text has"),
        ('path: "\\ud800"', "a character that no text has"),
    ],
    ids=[
        *("list", "date", "deep", "deep-block", "bomb", "chain", "cycle", "merge", "hexadecimal"),
        *("sexagesimal", "python", "key", "nul", "surrogate"),
    ],
)
def test_yaml_beyond_a_limit(text: str, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        parse_yaml(text)


def test_files_have_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted, "MAX_YAML_BYTES", 8)
    (tmp_path / "small").write_text("a: [1]\n")
    (tmp_path / "large").write_text("a: [1,2]\n")
    assert read_yaml(tmp_path / "small") == {"a": [1]}
    with pytest.raises(Malformed, match="more than 8 bytes"):
        read_yaml(tmp_path / "large")
    assert untrusted.read_text(tmp_path / "large") == "a: [1,2]\n"


def test_a_name_that_no_file_has(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="no file has such a name"):
        read_json(tmp_path / "a\0b")
    with pytest.raises(OSError, match="too long"):
        read_json(tmp_path / ("a" * 500))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed: 5\nmethods: [lora\n", r"tune\.yaml cannot be read as YAML: line 3: "),
        (b"\xff\xfe\xfa", r"tune\.yaml cannot be read as YAML: byte 1 is not UTF-8"),
        (b"- lora\n", r"tune\.yaml holds a list where names and values were expected"),
        (b"", r"tune\.yaml holds nothing where"),
        (None, r"tune\.yaml cannot be read: No such file"),
    ],
)
def test_what_is_wrong_is_told_with_flag_and_file(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "tune.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"^--config .*{message}"):
        read_object(file, f"--config {file}", language="YAML")


def test_the_caller_chooses_error_and_hint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ModelError, match=r"config\.json holds a list") as caught:
        read_object(tmp_path / "config.json", "config.json", error=ModelError, hint="Save it again.")
    assert caught.value.hint == "Save it again."
    (tmp_path / "config.json").write_text('{"a": {"b": 1}}')
    found: dict[str, Any] = read_object(tmp_path / "config.json", "config.json")
    assert found == {"a": {"b": 1}}
