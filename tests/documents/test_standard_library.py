"""The embedded dataset: the same pairs every time, none of them about what should not be asked."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tunecast.data import read
from tunecast.documents.docstrings import LONGEST_ANSWER, SHORTEST_ANSWER
from tunecast.documents.standard_library import standard_library_pairs
from tunecast.errors import DataError
from tunecast.progress import Silent


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for every test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TUNECAST_CACHE", str(folder))
    return folder


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only source of a standard library of its own: a module that documents one function."""
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "library"))
    monkeypatch.setattr("tunecast.documents.standard_library.COMPILED", ())
    source = tmp_path / "library" / "fruit.py"
    source.parent.mkdir()
    write(source, "The first docstring of the function.")
    return source


def write(source: Path, docstring: str, name: str = "peel") -> None:
    source.write_text(f"def {name}():\n    {docstring!r}\n", encoding="utf-8")


def answers() -> list[str]:
    return [answer for _, answer in standard_library_pairs()]


def kept(cache: Path) -> list[Path]:
    return sorted((cache / "stdlib").iterdir())


def test_pairs() -> None:
    pairs = dict(standard_library_pairs())
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


def test_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stdlib").mkdir()
    with pytest.raises(DataError, match="stdlib holds no data file"):
        read("stdlib")


def test_a_python_without_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr("tunecast.documents.standard_library.COMPILED", ())
    with pytest.raises(DataError, match="no sources of its standard library"):
        standard_library_pairs()


class Noted(Silent):
    """Keeps notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        self.notes.append(note)


def test_kept_pairs_are_the_same_and_need_no_parsing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = Noted()
    made = standard_library_pairs(noted)
    assert len(kept(cache)) == 1
    monkeypatch.setattr("ast.parse", None)
    assert standard_library_pairs(noted) == made
    assert noted.notes == ["collecting the docstrings of the standard library, once"]


def test_another_library_is_read_anew(library: Path) -> None:
    assert answers() == ["The first docstring of the function."]
    write(library, "The other docstring of the function.")  # as long as the first
    os.utime(library, (0, 0))  # file systems' clocks are too coarse for two writes of a test
    assert answers() == ["The other docstring of the function."]
    write(library.with_name("more.py"), "Documented in a module that was added.")
    assert len(answers()) == 2
    library.unlink()
    assert answers() == ["Documented in a module that was added."]


def test_another_python_is_read_again(library: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers()
    (before,) = kept(cache)
    others = [cache / "stdlib" / "notes.json", cache / "stdlib" / f".{before.name}.1-1"]
    for other in others:
        other.write_text("not pairs that were kept")
    monkeypatch.setattr(sys, "version", sys.version.replace(".", ".1", 1))
    answers()
    (after,) = set(kept(cache)) - set(others)  # what the other Python kept is gone, and nothing else
    assert after != before
    assert all(other.exists() for other in others)


def test_another_selection_is_read_again(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers()
    changed = tmp_path / "changed.py"
    module = Path(sys.modules["tunecast.documents.docstrings"].__file__ or "")
    changed.write_bytes(module.read_bytes() + b"\nSHORTEST_ANSWER = 60\n")
    monkeypatch.setattr("tunecast.documents.docstrings.__file__", str(changed))
    monkeypatch.setattr("tunecast.documents.docstrings.SHORTEST_ANSWER", 60)
    with pytest.raises(DataError, match="no sources of its standard library"):
        answers()


@pytest.mark.parametrize("damage", [b"", b"\n", b"[]", None])
def test_damaged_pairs_are_made_anew(library: Path, cache: Path, damage: bytes | None) -> None:
    answers()
    (file,) = kept(cache)
    whole = file.read_bytes()
    file.write_bytes(whole[:-5] if damage is None else damage)
    assert answers() == ["The first docstring of the function."]
    assert file.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_done_without(library: Path, cache: Path) -> None:
    (cache / "stdlib").write_text("a file where the folder should be")
    assert answers() == answers() == ["The first docstring of the function."]


def test_built_ins_that_a_library_changed_make_no_difference(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def display(thing: object) -> None:
        """Show something below the cell that is being run."""

    def safe_print(*things: object) -> None:
        """Print without harming a progress bar that is being drawn."""

    before = standard_library_pairs()
    with monkeypatch.context() as patch:
        patch.setattr("builtins.display", display, raising=False)
        patch.setattr("builtins.print", safe_print)
        kept(cache)[0].unlink()
        assert standard_library_pairs() == before


def test_other_processes_make_the_same_pairs_at_once_and_import_nothing_for_it(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import sys; from tunecast.data import read; print(read('stdlib').fingerprint)\n"
    code += "print({'antigravity', 'smtplib', 'webbrowser', 'turtle', 'idlelib'} & set(sys.modules))"
    command = [sys.executable, "-X", "utf8", "-W", "error", "-c", code]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
    said = [process.communicate() for process in processes]
    assert len(kept(cache)) == 1  # nothing unfinished is left beside it
    monkeypatch.setenv("TUNECAST_CACHE", str(tmp_path))
    assert said == [(f"{read('stdlib').fingerprint}\nset()\n", "")] * 2
    assert [process.returncode for process in processes] == [0, 0]
