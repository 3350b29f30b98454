"""Plugins of installed packages: good ones are registered, broken ones are reported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tunecast.plugins import broken_plugin, load_plugins


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with one good plugin and two broken ones."""
    (tmp_path / "words.py").write_text("good = lambda: 'good'\nnumber = lambda: 5\n")
    info = tmp_path / "words-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: words\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[tunecast.words]\nmissing = nowhere:Plugin\nnumber = words:number\ngood = words:good\n"
        "[tunecast.strategies]\nbad = nowhere:Strategy\n[tunecast.methods]\nworse = nowhere:Method\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("package")
def test_a_broken_plugin_leaves_the_others_alone() -> None:
    registered: list[str] = []
    broken = load_plugins("tunecast.words", str, registered.append)
    assert registered == ["good"]
    assert broken == {"missing": "No module named 'nowhere'", "number": "words:number is not a str"}
    assert "No module named 'nowhere'" in broken_plugin("missing", broken)
    assert broken_plugin("good", broken) == ""


@pytest.mark.parametrize(("kind", "name"), [("search", "bad"), ("methods", "worse")])
def test_only_the_broken_plugin_itself_is_refused(kind: str, name: str, package: Path) -> None:
    get = {"search": "get_strategy", "methods": "get_method"}[kind]
    known = {"search": "asha", "methods": "lora"}[kind]
    code = (
        f"from tunecast.{kind} import {get}\nfrom tunecast.errors import ConfigurationError\n"
        f"{get}('{known}')\n"
        f"try:\n    {get}('{name}')\nexcept ConfigurationError as error:\n    print(error.hint)\n"
    )
    said = subprocess.check_output(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(package)!r})\n{code}"], text=True
    )
    assert "cannot be loaded: No module named 'nowhere'" in said
