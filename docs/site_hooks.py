"""Adds to the site: pages that lie outside of docs/, and the commands as their help texts describe them."""

from __future__ import annotations

import html
import os.path
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages of the repository's root, and the names that they have in the site."""
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>~?")


def on_config(config: MkDocsConfig) -> None:
    """Let pages that the navigation does not name follow at its end."""
    nav: list[Any] = config.nav or []
    named = set(_targets(nav))
    docs = Path(config.docs_dir)
    pages = (path.relative_to(docs).as_posix() for path in sorted(docs.rglob("*.md")))
    more = [page for page in pages if page not in named]
    config.nav = [*nav, {"More": more}] if more else nav


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that docs/ does not hold."""
    for source, name in OUTSIDE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text))
    files.append(File.generated(config, "reference/commands.md", content=commands_page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links between files of the repository lead to their pages; the site has no other files."""
    here = next((source for source, name in OUTSIDE.items() if name == page.file.src_uri), None)
    folder = PurePosixPath(here or f"docs/{page.file.src_uri}").parent

    def linked(found: re.Match[str]) -> str:
        picture, text, link, anchor = found.groups(default="")
        if "://" in link:
            return found[0]
        target = os.path.normpath(folder / link)
        name = OUTSIDE.get(target) or target.removeprefix("docs/")
        if target not in OUTSIDE and not target.startswith("docs/") and (ROOT / target).exists():
            return text
        return f"{picture}[{text}]({os.path.relpath(name, PurePosixPath(page.file.src_uri).parent)}{anchor})"

    return LINK.sub(linked, markdown)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave the roles of docstrings out: the name that follows says what it is."""
    return ROLE.sub("<code>", content)


def commands_page() -> str:
    """Return a page of all commands, made from what ``--help`` prints."""
    import typer

    from tunecast.cli import app

    root = typer.main.get_command(app)
    return "\n".join(["# Commands", "", _text(root.help or ""), "", *_sections(root, "tunecast")])


def _sections(command: Any, path: str, parent: Any = None) -> Iterator[str]:
    """Describe a command and those below it."""
    context = command.make_context(path, [], parent=parent, resilient_parsing=True)
    below = getattr(command, "commands", {})
    if parent is not None:
        usage = " ".join((path, *command.collect_usage_pieces(context)))
        yield from (f"{'#' * (path.count(' ') + 1)} {path}", "", _text(command.help or ""), "")
        yield from ("```text", usage, "```", "")
    if not below:
        yield from ("| argument or option | what it is |", "|---|---|")
        yield from _rows(command, context)
        yield ""
    for name, inner in below.items():
        yield from _sections(inner, f"{path} {name}", context)


def _rows(command: Any, context: Any) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            name, description = record
            yield f"| <code>{_text(name)}</code> | {_text(description)} |"


def _text(text: str) -> str:
    """Return a text that Markdown and HTML show as it is."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"[|*_`{}\[\]]", lambda found: f"&#{ord(found[0])};", escaped)


def _targets(nav: Any) -> Iterator[str]:
    """All pages that a part of the navigation names."""
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from _targets(part)
