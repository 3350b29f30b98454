"""Templates, scripts and styles of the dashboard; theme, macros and the drawing of plots are the report's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from tunecast.report import shell
from tunecast.report.figures import Plot

if TYPE_CHECKING:
    from jinja2 import Environment

OF_REPORT = ("macros.html.jinja",)
"""Templates of the report that pages of the dashboard import."""


def page(template: str, title: str, values: Mapping[str, Any], plots: Sequence[Plot] = ()) -> str:
    """Render a page; strings among ``values`` are escaped."""
    from markupsafe import Markup

    figures = [(plot.name, Markup(shell.figure_json(plot))) for plot in plots]
    frame = {"title": title, "figures": figures, "version": version()}
    return _environment().get_template(template).render({**values, **frame}) + "\n"


def part(template: str, values: Mapping[str, Any]) -> str:
    """Render a part of a page, which may change while the page is open."""
    return _environment().get_template(template).render(values)


def refusal(title: str, sentence: str) -> str:
    """Render a page that says why a request is refused; it needs no other file."""
    from markupsafe import Markup

    return part(
        "refusal.html.jinja", {"title": title, "sentence": sentence, "style": Markup(static()["style.css"])}
    )


@cache
def static() -> dict[str, str]:
    """Return the files that pages load, by name."""
    from plotly.offline import get_plotlyjs

    return {
        "plotly.js": get_plotlyjs(),
        "report.js": shell.asset("report.js"),
        "dashboard.js": _asset("dashboard.js"),
        "style.css": shell.asset("report.css") + _asset("dashboard.css"),
    }


@cache
def version() -> str:
    """Return what changes with the files, so that browsers may keep them for as long."""
    return hashlib.sha256("".join(static().values()).encode()).hexdigest()[:12]


@cache
def _environment() -> Environment:
    return shell.environment(lambda name: shell.asset(name) if name in OF_REPORT else _asset(name))


def _asset(name: str) -> str:
    return (files("tunecast.dashboard") / "assets" / name).read_text(encoding="utf-8")
