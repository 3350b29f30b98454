"""The page on adding a method is true: its blocks make a package whose method Tunecast trains with."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-method.md"
METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"


def block(after: str) -> str:
    """The first code block that follows a line."""
    found = re.search(re.escape(after) + r"\n\n```\w+\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"the page has no block after {after}"
    return found[1]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The folder that pip would have installed the page's package to."""
    project = tomllib.loads(block("`pyproject.toml`:"))["project"]
    site = tmp_path / "site"
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (site / "tunecast_values.py").write_text(block("`tunecast_values.py`:"))
    (info / "METADATA").write_text(METADATA.format(**project))
    lines = [
        line
        for group, entries in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {place}" for name, place in entries.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return site


def tunecast(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    places = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, "-m", "tunecast", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_the_method_is_searched_and_trained(
    installed: Path, tiny_llama: Path, toy_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    flags = ("--model", str(tiny_llama), "--data", str(toy_data), "--output-dir", str(folder))
    done = tunecast(
        installed, "tune", *flags, "--methods", "values", "--budget", "2-trials", "--threads", "1", "--json"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert result["incumbent"]["pipeline"]["method"] == "values"
    assert result["test"]["incumbent"]["loss"] < result["test"]["zero_shot"]["loss"]
    assert (folder / "best" / "model.safetensors").is_file()


def test_the_method_says_where_it_does_not_apply(
    installed: Path, tiny_gpt2: Path, toy_data: Path, tmp_path: Path
) -> None:
    flags = ("--model", str(tiny_gpt2), "--data", str(toy_data), "--output-dir", str(tmp_path / "out"))
    done = tunecast(installed, "tune", *flags, "--methods", "values", "--budget", "2-trials")
    assert done.returncode == 2
    assert "only models of Llama's layout have a v_proj" in done.stderr
