"""The HTML report of a session: one file that needs no network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tunecast.atomic import written_whole
from tunecast.records import Run
from tunecast.report.forecast import forecast_sentences, forecast_table
from tunecast.report.loading import HUB_ID, delivery
from tunecast.report.tables import (
    comparison_table,
    contender_pipelines,
    data_facts,
    failures_table,
    hardware_facts,
    pretty_json,
    version_facts,
)
from tunecast.report.trials import DOTS_DRAWN, DrawnTrial, view_trials, zero_shot_loss
from tunecast.report.wording import verdict
from tunecast.results import SessionRecord

if TYPE_CHECKING:
    from tunecast.report.figures import Plot, Style

OWN_LOCATIONS = ("output_dir", "store")
LOCATIONS = ("model", "data", *OWN_LOCATIONS)
"""Settings that hold a location; the last two are never on a hub."""
SAMPLED = "At most {} of {:,} trials are drawn: the best, and an even sample of the rest."


def write_report(record: SessionRecord, runs: Sequence[Run], path: Path) -> None:
    """Write the report of a session and all its runs as one self-contained HTML file, in one step.

    The page needs no network, and its content security policy forbids any. Text from users (dataset texts,
    names, error classes) is escaped.
    """
    text = _render(record, runs)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def _render(record: SessionRecord, runs: Sequence[Run]) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_asset("report.html.jinja"))
    return template.render(_values(record, runs)) + "\n"


def _values(record: SessionRecord, runs: Sequence[Run]) -> dict[str, Any]:
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    from tunecast.report.figures import FAILED, method_styles

    trials = view_trials(record, runs)
    scripts = [get_plotlyjs(), _asset("report.js")]
    sections = _plots(record, runs, trials)
    return {
        "record": record,
        "verdict": verdict(record, runs),
        "comparison": comparison_table(record, runs) if record.contenders else None,
        "pipelines": contender_pipelines(record),
        "forecast": forecast_sentences(record.forecast) if record.forecast else (),
        "forecast_table": forecast_table(record.forecast) if record.forecast else None,
        "legends": _legends(sections, method_styles(trials) | {"failed": FAILED}),
        "plots": sections,
        "figures": [(plot.name, Markup(_figure_json(plot))) for group in sections.values() for plot in group],
        "failures": failures_table(trials),
        "trials": len(trials),
        "sampled": SAMPLED.format(DOTS_DRAWN, len(trials)) if len(trials) > DOTS_DRAWN else "",
        "data": data_facts(runs[0]) if runs else {},
        "hardware": hardware_facts(runs[0].machine) if runs else {},
        "versions": version_facts(record),
        "configuration": pretty_json(_without_paths(record.configuration)),
        "loading": _loading_code(record, runs),
        # The hashes admit exactly these two scripts, so that no other could run, even if escaping failed.
        "policy": Markup(_policy(scripts)),
        "style": Markup(_asset("report.css")),
        "scripts": [Markup(script) for script in scripts],
    }


def _plots(record: SessionRecord, runs: Sequence[Run], trials: Sequence[DrawnTrial]) -> dict[str, list[Plot]]:
    """Draw the plots of every section; a section without data is empty."""
    from tunecast.report.choices import hyperparameter_plots
    from tunecast.report.curves import curves_plot, incumbent_plot
    from tunecast.report.forecast_plot import forecast_plot
    from tunecast.report.tradeoffs import cost_plots, scores_plot

    zero_shot = zero_shot_loss(runs)
    single = {
        "scores": scores_plot(record),
        "forecast": forecast_plot(record.forecast),
        "curves": curves_plot(record, trials, zero_shot),
        "incumbent": incumbent_plot(record, trials, zero_shot),
    }
    found = {name: [plot] if plot else [] for name, plot in single.items()}
    return found | {"cost": cost_plots(trials), "hyperparameters": hyperparameter_plots(trials)}


def _legends(sections: dict[str, list[Plot]], styles: dict[str, Style]) -> dict[str, dict[str, Style]]:
    """Collect, for every section, the styles that its plots use."""
    shown = {
        section: {trace.name for plot in plots for trace in plot.figure.data}
        for section, plots in sections.items()
    }
    return {
        section: {name: style for name, style in styles.items() if name in names}
        for section, names in shown.items()
    }


def _figure_json(plot: Plot) -> str:
    """Write the figure for a script element, which ``<`` could end."""
    return (
        str(plot.figure.to_json())
        .replace("<", "\\u003c")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )


def _loading_code(record: SessionRecord, runs: Sequence[Run]) -> str:
    winner = record.find_contender(record.winner)
    run = next((one for one in runs if winner and one.id == winner.run), None)
    if winner is None or run is None:
        return ""
    best = Path(record.output_dir) / "best"
    base_model = str(record.configuration.get("model", record.task.model))
    return delivery(run, base_model, best).code("best")


def _without_paths(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Replace paths by bare names, and remove a store's address and password.

    Reports are shared, and paths on the user's machine are private. Hub ids stay.
    """
    shown = dict(configuration)
    for name in LOCATIONS:
        value = shown.get(name)
        if isinstance(value, str) and (name in OWN_LOCATIONS or not HUB_ID.fullmatch(value)):
            url = urlsplit(value)
            shown[name] = PurePath(url.path).name or url.scheme if name == "store" else PurePath(value).name
    return shown


def _policy(scripts: Sequence[str]) -> str:
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"


def _asset(name: str) -> str:
    return (files("tunecast.report") / "assets" / name).read_text(encoding="utf-8")
