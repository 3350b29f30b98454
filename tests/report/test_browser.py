"""The report in a real browser: nothing complains, every plot is drawn, nothing overflows, both themes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from report.browser import Browser, Page, chromium, needed_chromium
from report.sample_recommendation import sample_recommendation
from report.sample_session import failures, full_session, make_record, make_runs, metric_session
from scaling.planted import models_table
from tunecast.report.page import write_report
from tunecast.report.recommendation_plot import write_prospects
from tunecast.report.scaling_plot import write_plot

DRAWN = """[...document.querySelectorAll('.plot')].map(
  (plot) => ['.main-svg', '.trace, .contour'].every((part) => plot.querySelectorAll(part).length > 0))"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(needed_chromium(), tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    record, runs = full_session()
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(record, runs, path)
    return path


def assert_sound(page: Page, path: Path) -> None:
    page.open(path)
    assert page.problems == []
    assert page.requests == [path.resolve().as_uri()]
    drawn = page.evaluate(DRAWN)
    assert drawn
    assert all(drawn)
    root = "document.documentElement.dataset"
    assert page.evaluate(f"{root}.plots") == page.evaluate(f"{root}.plotsExpected") == str(len(drawn))
    assert page.evaluate("window.hacked") is None


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "phone"), [(1280, False), (390, True), (320, True)])
def test_every_plot_is_drawn_and_nothing_overflows(
    browser: Browser, report: Path, width: int, phone: bool, dark: bool
) -> None:
    page = browser.page()
    page.emulate(width, 844, dark=dark, phone=phone)
    assert_sound(page, report)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("innerWidth") == width
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    assert page.evaluate("document.documentElement.dataset.theme") == ("dark" if dark else "light")


def test_theme_follows_the_reader_while_the_page_is_open(browser: Browser, report: Path) -> None:
    page = browser.page()
    page.emulate(1280, 900)
    page.open(report)
    colour = "document.querySelector('#plot-curves .xtitle').style.fill"
    light = page.evaluate(colour)
    page.emulate(1280, 900, dark=True)
    page.wait_for("document.documentElement.dataset.theme === 'dark'")
    assert page.evaluate(colour) != light
    assert page.problems == []


def test_legend_hides_and_shows_a_method(browser: Browser, report: Path) -> None:
    page = browser.page()
    page.emulate(1280, 900)
    page.open(report)
    traces = "document.querySelectorAll('#plot-cost-seconds .trace').length"
    button = (
        "[...document.querySelectorAll('.legend button')].filter((one) => one.textContent == 'full').at(-2)"
    )
    before = page.evaluate(traces)
    page.evaluate(f"{button}.click()")
    page.wait_for(f"{traces} === {before - 1}")
    assert page.evaluate(f"{button}.getAttribute('aria-pressed')") == "false"
    page.evaluate(f"{button}.click()")
    page.wait_for(f"{traces} === {before}")


@pytest.mark.parametrize("trials", [1, 1000])
def test_few_and_many_trials(browser: Browser, tmp_path: Path, trials: int) -> None:
    runs = [*make_runs(trials), *failures()]
    write_report(make_record(runs, metric=False), runs, tmp_path / "report.html")
    page = browser.page()
    page.emulate(390, 844, phone=True)
    assert_sound(page, tmp_path / "report.html")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390


def test_no_table_is_cut_off_at_any_width(browser: Browser, tmp_path: Path) -> None:
    record, runs = metric_session()
    write_report(record, runs, tmp_path / "report.html")
    page = browser.page()
    page.emulate(1280, 844)
    assert_sound(page, tmp_path / "report.html")
    right = "getBoundingClientRect().right"
    tables = f"""[...document.querySelectorAll('.scroll')].map((one) => [
      one.scrollWidth - one.clientWidth,
      one.querySelector('tbody tr > :last-child').{right} > one.{right}])"""
    for width in (1280, 1000, *range(900, 700, -20), 600, 500, 390, 320):
        page.emulate(width, 844)
        assert page.evaluate(tables) == [[0, False]], width


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_pages_of_charts_are_sound_on_a_phone_and_in_the_readers_theme(
    browser: Browser, tmp_path: Path, dark: bool
) -> None:
    path = tmp_path / "page.html"
    for write in (
        lambda: write_prospects(sample_recommendation(0.4), path),
        lambda: write_plot(path, models_table(count=3), "power", 1e6, [5000.0]),
    ):
        write()
        page = browser.page()
        page.emulate(390, 844, dark=dark, phone=True)
        assert_sound(page, path)
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 390
        assert page.evaluate("document.documentElement.dataset.theme") == ("dark" if dark else "light")
