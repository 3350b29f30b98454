"""The embedded dataset: the same pairs every time, none of them about what should not be asked."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tunecast.data import read
from tunecast.data.standard_library import LONGEST_ANSWER, SHORTEST_ANSWER, read_standard_library
from tunecast.errors import DataError


def test_pairs() -> None:
    pairs = {row["prompt"]: row["completion"] for _, row in read_standard_library().rows}
    assert 2000 < len(pairs) < 4000
    assert pairs["What does `json.dumps` do in Python?"].startswith("Serialize ``obj`` to a JSON formatted")
    assert (
        pairs["What does `str.upper` do in Python?"] == "Return a copy of the string converted to uppercase."
    )
    assert "What is `pathlib.Path` in Python?" in pairs
    assert "What is Python's module `textwrap` for?" in pairs
    assert len(set(pairs.values())) == len(pairs)
    for prompt, answer in pairs.items():
        assert "._" not in prompt
        assert SHORTEST_ANSWER <= len(answer) <= LONGEST_ANSWER
        assert "\n" not in answer


def test_another_process_makes_the_same_pairs() -> None:
    code = "from tunecast.data import read; print(read('stdlib').fingerprint)"
    command = [sys.executable, "-X", "utf8", "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == read("stdlib").fingerprint
    assert done.stderr == ""


def test_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stdlib").mkdir()
    with pytest.raises(DataError, match="stdlib holds no data file"):
        read("stdlib")


def test_modules_are_not_imported() -> None:
    code = "import sys; before = set(sys.modules); from tunecast.data import read; read('stdlib')\n"
    code += "print({'antigravity', 'smtplib', 'webbrowser', 'turtle', 'idlelib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_python_without_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr("tunecast.data.standard_library.COMPILED", ())
    with pytest.raises(DataError, match="without the sources"):
        read_standard_library()
