"""A comparison as one HTML file that needs no network."""

from __future__ import annotations

from pathlib import Path

from tunecast.atomic import write_page
from tunecast_benchmarks.verdict import Verdict
from tunecast_benchmarks.wording import (
    catch_sentences,
    claim_sentences,
    difference_caption,
    notes,
    rival_rows,
    simple_sentences,
)

TEMPLATE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Strategies compared</title>
<style>
body { font-family: system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } td, th { padding: .3rem .7rem; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr { border-bottom: 1px solid #ccc; }
.scroll { overflow-x: auto; } .warning { background: #fff3cd; padding: .5rem 1rem; }
</style></head>
<body>
<h1>Strategies compared</h1>
<p>{{ header }}</p>
<h2>What may be claimed</h2>
{% for sentence in claims %}<p{% if warned %} class="warning"{% endif %}>{{ sentence }}</p>{% endfor %}
<h2>Normalised regret in percent, 95% interval, mean rank</h2>
<div class="scroll"><table><tr><th>strategy</th>
{% for budget in budgets %}<th>{{ budget }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</table></div>
<p>Columns are budgets in baseline trials at full length.</p>
<h2>Regret over time</h2>{{ anytime }}
{% if catches %}<ul>{% for sentence in catches %}<li>{{ sentence }}</li>{% endfor %}</ul>{% endif %}
<h2>Critical differences</h2>
<p>{{ tested }}</p>
{% for figure in differences %}{{ figure }}{% endfor %}
<h2>Where simple strategies win</h2>
{% if simple %}<ul>{% for sentence in simple %}<li>{{ sentence }}</li>{% endfor %}</ul>
{% else %}<p>Nowhere.</p>{% endif %}
{% if rivals %}<h2>Rivals</h2><div class="scroll"><table>
<tr><th>rival</th><th>library</th><th>times asked</th><th>mean distance of candidates</th></tr>
{% for row in rivals %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</table></div>
{% endif %}
<h2>Paired differences</h2>
<div class="scroll"><table><tr><th>budget</th><th>first</th><th>second</th><th>second minus first</th>
<th>95% interval</th><th>p</th></tr>
{% for budget, pairs in pairs %}{% for pair in pairs %}<tr><td>{{ budget }}</td><td>{{ pair.first }}</td>
<td>{{ pair.second }}</td><td>{{ "%.4f"|format(pair.difference) }}</td>
<td>{{ "%.4f"|format(pair.low) }} to {{ "%.4f"|format(pair.high) }}</td>
<td>{{ "%.3g"|format(pair.p) }}</td></tr>
{% endfor %}{% endfor %}</table></div>
<h2>How to read this</h2>
<ul>{% for sentence in notes %}<li>{{ sentence }}</li>{% endfor %}</ul>
<div class="scroll"><table><tr><th>task</th><th>family</th><th>base model</th><th>full length</th>
<th>candidates</th><th>baseline trial, s</th></tr>
{% for case in cases %}<tr><td>{{ case.task }}</td><td>{{ families[case.task] }}</td>
<td>{{ case.model.name }}</td>
<td>{{ "{:,}".format(case.full_length_tokens) }}</td><td>{{ case.candidates|length }}</td>
<td>{{ "%.1f"|format(case.baseline_seconds) }}</td></tr>{% endfor %}</table></div>
</body></html>
"""


def write_comparison(verdict: Verdict, path: Path) -> None:
    """Write a comparison as one self-contained HTML file; an older one is replaced.

    Args:
        verdict: The comparison's statistics.
        path: The file.

    Raises:
        OutputError: The file cannot be written.
    """
    write_page(path, render(verdict), "--output")


def render(verdict: Verdict) -> str:
    """The page's text; names from stores are escaped."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    from tunecast_benchmarks.plots import anytime_plot, critical_difference_plot

    comparison = verdict.comparison
    budgets = comparison.budgets
    anytime = anytime_plot(verdict).to_html(full_html=False, include_plotlyjs=True)
    differences = [
        Markup(critical_difference_plot(verdict, budget).to_html(full_html=False, include_plotlyjs=False))
        for budget in budgets
    ]
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(TEMPLATE)
    return template.render(
        header=verdict.header,
        claims=claim_sentences(verdict),
        warned=bool(verdict.shortcomings),
        budgets=[f"{budget:g}" for budget in budgets],
        rows=verdict.rows(with_interval=True),
        anytime=Markup(anytime),
        catches=catch_sentences(verdict),
        tested=difference_caption(verdict),
        differences=differences,
        simple=simple_sentences(verdict),
        rivals=rival_rows(verdict),
        pairs=[(f"{budget:g}", verdict.pairs[budget]) for budget in budgets],
        notes=notes(verdict),
        cases=comparison.cases,
        families=comparison.family_of,
    )
