"""Pages link to pages that exist, and name source files, benchmarks and options that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from pages import GENERATED, PAGES, ROOT, commands, shell_commands
from test_imports import SOURCE
from tunecast.cli import app

PLACES = (ROOT, SOURCE, ROOT / "docs")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    named = {
        *re.findall(r"`([a-z_]+/[\w./-]+\.(?:py|yaml|sh|parquet|json))`", text),
        *re.findall(r"python (benchmarks/\w+\.py)", text),
    }
    missing += [name for name in sorted(named) if not any((place / name).exists() for place in PLACES)]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_the_options_that_pages_give_them(page: Path) -> None:
    for text in commands(page):
        words, command = shlex.split(text)[1:], typer.main.get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
        context = command.make_context("tunecast", [], resilient_parsing=True)
        context.resilient_parsing = False
        command.make_parser(context).parse_args(words)  # raises, and runs nothing


def test_commands_stand_where_tests_find_them() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if page.name not in GENERATED:
            shown = re.findall(r"^ *(?:\w*\$ )?tunecast .*$", text, re.MULTILINE)
            assert len(shown) <= len(commands(page)) + 1, page  # one line may be what a command prints


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        for command in shell_commands(page):
            if target := re.match(r"make (\S+)", command):
                assert re.search(rf"^{target[1]}:", makefile, re.MULTILINE), command
