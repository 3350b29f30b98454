"""A comparison as one HTML file that needs no network, in the theme of Tunecast's reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunecast.atomic import write_page
from tunecast.report.shell import ChartPage, Section, chart_page
from tunecast.report.tables import Table
from tunecast_benchmarks.plots import anytime_plot, critical_difference_plot, final_plot, strategy_styles
from tunecast_benchmarks.verdict import Verdict
from tunecast_benchmarks.wording import (
    catch_sentences,
    claim_sentences,
    difference_caption,
    notes,
    rival_rows,
    simple_sentences,
)


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
    claims = claim_sentences(verdict)
    warned = bool(verdict.shortcomings)
    return chart_page(
        ChartPage(
            "Strategies compared",
            verdict.header,
            _sections(verdict),
            sentences=() if warned else claims,
            warnings=claims if warned else (),
        )
    )


def _sections(verdict: Verdict) -> list[Section]:
    looks = strategy_styles(verdict)
    budgets = verdict.comparison.budgets
    rivals = rival_rows(verdict)
    simple = simple_sentences(verdict)
    found = [
        Section(
            "Regret at the end",
            ("Normalised regret on the test split, with 95% intervals over families of tasks.",),
            plots=(final_plot(verdict),),
        ),
        Section(
            "Regret over time", items=catch_sentences(verdict), legend=looks, plots=(anytime_plot(verdict),)
        ),
        Section(
            "Normalised regret in percent, 95% interval, mean rank",
            ("Columns are budgets in baseline trials at full length.",),
            tables=(
                _table(
                    ("strategy", *(f"{one:g} trials" for one in budgets)),
                    [[cell.replace(" [", "\n[") for cell in row] for row in verdict.rows(with_interval=True)],
                ),
            ),
        ),
        Section(
            "Critical differences",
            (difference_caption(verdict),),
            plots=[critical_difference_plot(verdict, budget) for budget in reversed(budgets)],
        ),
        Section("Where simple strategies win", () if simple else ("Nowhere.",), simple),
        Section("Paired differences", tables=(_pairs(verdict),)),
        Section("How to read this", items=notes(verdict), tables=(_tasks(verdict),)),
    ]
    if rivals:
        header = ("rival", "library", "times asked", "mean distance of candidates")
        found.insert(-2, Section("Rivals", tables=(_table(header, rivals),)))
    return found


def _pairs(verdict: Verdict) -> Table:
    header = ("budget", "first", "second", "second minus first", "95% interval", "p")
    rows = [
        (
            f"{budget:g}", pair.first, pair.second,
            f"{pair.difference:.4f}", f"{pair.low:.4f} to {pair.high:.4f}", f"{pair.p:.3g}",
        )
        for budget, pairs in verdict.pairs.items()
        for pair in pairs
    ]  # fmt: skip
    return _table(header, rows)


def _tasks(verdict: Verdict) -> Table:
    comparison = verdict.comparison
    header = ("task", "family", "base model", "full length", "candidates", "baseline trial, s")
    rows = [
        (
            case.task, comparison.family_of[case.task], case.model.name,
            f"{case.full_length_tokens:,}", f"{len(case.candidates)}", f"{case.baseline_seconds:.1f}",
        )
        for case in comparison.cases
    ]  # fmt: skip
    return _table(header, rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    return Table(tuple(header), tuple(map(tuple, rows)), frozenset(range(1, len(header))))
