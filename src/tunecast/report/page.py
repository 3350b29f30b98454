"""The HTML report of a session: one file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunecast.atomic import written_whole
from tunecast.records import Run
from tunecast.report.classification import confusions, measures_table, winner_classification
from tunecast.report.forecast import forecast_sentences, forecast_table, missing_forecast
from tunecast.report.guards import guards_table
from tunecast.report.loading import LIKELIEST, Delivery, delivery, origin_of
from tunecast.report.locations import without_paths
from tunecast.report.longer import longer_command, longer_sentence
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
    from tunecast.report.shell import render

    trials = view_trials(record, runs)
    sections = _plots(record, runs, trials)
    plots = [plot for group in sections.values() for plot in group]
    title = f"{record.task.dataset} · {record.task.model}"
    return render("report.html.jinja", title, plots, _values(record, runs, trials, sections))


def _values(
    record: SessionRecord,
    runs: Sequence[Run],
    trials: Sequence[DrawnTrial],
    sections: dict[str, list[Plot]],
) -> dict[str, Any]:
    from tunecast.report.figures import FAILED, method_styles

    forecast, longer, given = record.forecast, record.longer, _delivery(record, runs)
    configuration = without_paths(record.configuration)
    return {
        "record": record,
        "verdict": verdict(record, runs),
        "comparison": comparison_table(record, runs) if record.contenders else None,
        "pipelines": contender_pipelines(record),
        "measures": measures_table(record),
        "confusions": confusions(classified) if (classified := winner_classification(record)) else None,
        "guards": guards_table(record),
        "forecast": forecast_sentences(forecast) if forecast and forecast.forecasts else (),
        "forecast_table": forecast_table(forecast) if forecast else None,
        "no_forecast": missing_forecast(forecast, {**configuration, "store": ""}),
        "longer": longer_sentence(longer) if longer else "",
        "longer_command": longer_command(longer, configuration) if longer else "",
        "legends": _legends(sections, method_styles(trials) | {"failed": FAILED}),
        "plots": sections,
        "failures": failures_table(trials),
        "trials": len(trials),
        "sampled": SAMPLED.format(DOTS_DRAWN, len(trials)) if len(trials) > DOTS_DRAWN else "",
        "data": data_facts(runs[0]) if runs else {},
        "hardware": hardware_facts(runs[0].machine) if runs else {},
        "versions": version_facts(record),
        "configuration": pretty_json(configuration),
        "loading": given.code("best") if given else "",
        "requirement": given.requirement(given.base_model) if given else "",
        "choice_of_label": given.choice_of_label if given else LIKELIEST,
    }


def _plots(record: SessionRecord, runs: Sequence[Run], trials: Sequence[DrawnTrial]) -> dict[str, list[Plot]]:
    """Draw the plots of every section; a section without data is empty."""
    from tunecast.report.choices import hyperparameter_plots
    from tunecast.report.curves import curves_plot, incumbent_plot
    from tunecast.report.forecast_plot import forecast_plot
    from tunecast.report.tradeoffs import cost_plots, scores_plots

    zero_shot = zero_shot_loss(runs)
    single = {
        "forecast": forecast_plot(record.forecast),
        "curves": curves_plot(record, trials, zero_shot),
        "incumbent": incumbent_plot(record, trials, zero_shot),
    }
    return {
        "scores": scores_plots(record),
        **{name: [plot] if plot else [] for name, plot in single.items()},
        "cost": cost_plots(trials, zero_shot),
        "hyperparameters": hyperparameter_plots(trials, zero_shot),
    }


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


def _delivery(record: SessionRecord, runs: Sequence[Run]) -> Delivery | None:
    """Return what the session delivered; None if the winner's run is not known."""
    winner = record.find_contender(record.winner)
    run = next((one for one in runs if winner and one.id == winner.run), None)
    if winner is None or run is None:
        return None
    best = Path(record.output_dir) / "best"
    base_model = str(record.configuration.get("model", record.task.model))
    pattern = str(record.configuration.get("pattern") or "")
    chooses = winner.classification is not None
    return delivery(run, base_model, best, chooses_labels=chooses, pattern=pattern, origin=origin_of(record))
