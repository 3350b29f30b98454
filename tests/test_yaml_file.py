"""Files of YAML: what they hold, and one message with file and line for each way to be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunecast.errors import ConfigurationError
from tunecast.yaml_file import read_yaml


def test_what_a_file_holds(tmp_path: Path) -> None:
    file = tmp_path / "tune.yaml"
    file.write_text("budget: 3m\nmethods: [lora]\n")
    assert read_yaml("--config", file) == {"budget": "3m", "methods": ["lora"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed: 5\nmethods: [lora\n", r"tune\.yaml, line 3: this is not YAML"),
        (b"name: 2026-13-45\n", r"tune\.yaml: this is not YAML: month must be in 1\.\.12"),
        (b"\xff\xfe\xfa", r"tune\.yaml is not a text file"),
        (None, r"tune\.yaml cannot be read: No such file"),
    ],
)
def test_what_is_wrong_is_told_with_flag_file_and_line(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "tune.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"--config .*{message}"):
        read_yaml("--config", file)
