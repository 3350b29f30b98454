"""The frame of every page that Tunecast writes: theme, scripts and figures in one file without a network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunecast.atomic import write_page

if TYPE_CHECKING:
    from jinja2 import Environment

    from tunecast.report.figures import Plot, Style
    from tunecast.report.tables import Table


@dataclass(frozen=True)
class Section:
    """A part of a page of charts.

    Args:
        sentences: Paragraphs below the heading.
        items: A list below them.
        legend: Looks of the traces by name; each hides and shows its traces in the section's plots.
        plots: The first is as wide as the page; more form a grid.
    """

    title: str
    sentences: Sequence[str] = ()
    items: Sequence[str] = ()
    legend: Mapping[str, Style] = field(default_factory=dict)
    plots: Sequence[Plot] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class ChartPage:
    """A page of charts; all texts are escaped.

    Args:
        kicker: A few words above the title.
        sentences: What the page says, in a list below the title.
    """

    title: str
    kicker: str
    sections: Sequence[Section]
    sentences: Sequence[str] = ()
    warnings: Sequence[str] = ()


def chart_page(page: ChartPage) -> str:
    """Render a page of charts."""
    plots = [plot for section in page.sections for plot in section.plots]
    return render("charts.html.jinja", page.title, plots, {"page": page})


def write_chart_page(page: ChartPage, path: Path, flag: str) -> None:
    """Write a page of charts as one file that needs no network, replacing an older one.

    Args:
        flag: The option that names the file, such as ``--plot``.

    Raises:
        OutputError: The file cannot be written.
    """
    write_page(path, chart_page(page), flag)


def render(
    template: str, title: str, plots: Iterable[Plot], values: Mapping[str, Any], *, script: str = ""
) -> str:
    """Render a template that extends ``base.html.jinja``, with its plots, or with one script of its own.

    Strings among ``values`` are escaped, and the page's content security policy forbids any network.
    """
    from markupsafe import Markup

    scripts = [asset(script)] if script else _plotting_scripts()
    frame = {
        "title": title,
        "figures": [(plot.name, Markup(figure_json(plot))) for plot in plots],
        # The hashes admit exactly these scripts, so that no other could run, even if escaping failed.
        "policy": Markup(_policy(scripts)),
        "style": Markup(asset("report.css")),
        "scripts": [Markup(script) for script in scripts],
    }
    return _environment().get_template(template).render({**values, **frame}) + "\n"


def _plotting_scripts() -> list[str]:
    from plotly.offline import get_plotlyjs

    return [get_plotlyjs(), asset("report.js")]


def _environment() -> Environment:
    return environment(asset)


def environment(read: Callable[[str], str | None]) -> Environment:
    """Return the environment of templates, which escapes all texts.

    Args:
        read: Returns a template by its name, None if there is no such one.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    return Environment(
        loader=FunctionLoader(read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def figure_json(plot: Plot) -> str:
    """Write the figure for a script element, which ``<`` could end."""
    return (
        str(plot.figure.to_json())
        .replace("<", "\\u003c")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )


def _policy(scripts: Sequence[str]) -> str:
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"


def asset(name: str) -> str:
    """Return the text of a file that pages are made of."""
    return (files("tunecast.report") / "assets" / name).read_text(encoding="utf-8")
