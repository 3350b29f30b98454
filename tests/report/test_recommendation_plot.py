from __future__ import annotations

import pytest

from report.sample_recommendation import sample_recommendation
from tunecast.report.recommendation_plot import prospects_page
from tunecast.report.shell import chart_page


def test_the_recommended_ones_have_bars_of_their_intervals() -> None:
    recommendation = sample_recommendation(None)
    (plot,) = prospects_page(recommendation).sections[0].plots
    barred = [trace for trace in plot.figure.data if trace.error_y.array is not None]
    tops = {y: y + up for t in barred for y, up in zip(t.y, t.error_y.array, strict=True)}
    expected = {one.predicted_loss: one.high for one in recommendation.recommendations}
    assert tops == pytest.approx(expected)
    dots = sum(len(trace.x) for trace in plot.figure.data if trace.mode == "markers")
    assert dots == len(recommendation.considered), "each is drawn once"


def test_money_is_at_the_axis_and_in_the_table_where_there_is_a_price() -> None:
    for price in (None, 0.4):
        section = prospects_page(sample_recommendation(price)).sections[0]
        marks = section.plots[0].figure.layout.xaxis.ticktext
        header = section.tables[0].header
        assert all(("<br>" in mark) == (price is not None) for mark in marks)
        assert ("money" in header, "money" in section.title) == ((price is not None),) * 2
    assert "30 min<br>0.20" in marks
    assert section.tables[0].rows[0][-1] == "0.18", "1,600 s"


def test_the_page_escapes_names() -> None:
    page = chart_page(prospects_page(sample_recommendation(0.4)))
    assert "<i>rows" not in page
    assert "<b>It suits" not in page
    assert "prefers-color-scheme: dark" in page
