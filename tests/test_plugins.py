"""Plugins of installed packages: good ones are registered, broken ones are reported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tunecast.plugins import Registry


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with one good plugin and two broken ones."""
    (tmp_path / "words.py").write_text(
        "from types import SimpleNamespace\ngood = lambda: SimpleNamespace(name='good')\nnumber = lambda: 5\n"
    )
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
    registry = Registry("word", "tunecast.words", SimpleNamespace)
    assert list(registry.all()) == ["good"]
    assert "cannot be loaded: No module named 'nowhere'" in registry.hint("missing")
    assert "cannot be loaded: words:number is not a SimpleNamespace" in registry.hint("number")
    assert registry.hint("god") == "Did you mean good? "


def test_a_name_is_registered_once() -> None:
    registry = Registry("word", "tunecast.no_words", SimpleNamespace)
    registry.register(SimpleNamespace(name="a"))
    for name in ("", "a"):
        with pytest.raises(ValueError, match=f"the word name '{name}' is missing or taken"):
            registry.register(SimpleNamespace(name=name))


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
