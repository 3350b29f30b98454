from __future__ import annotations

import math
import re
from importlib.resources import files

import pytest

from report.sample_session import full_session
from tunecast.report.figures import (
    SYMBOLS,
    log_axis,
    loss_axis,
    method_styles,
    new_figure,
    reference_line,
    styles,
    token_axis,
)
from tunecast.report.numbers import rate
from tunecast.report.trials import view_trials


def themes() -> dict[str, dict[str, str]]:
    css = (files("tunecast.report") / "assets" / "report.css").read_text()
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w{6});", block)) for block in css.split("@media")[:2])
    return {"light": light, "dark": dark}


def luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (one / 12.92 if one <= 0.03928 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    """Contrast ratio by WCAG 2.2."""
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_are_legible(theme: str) -> None:
    colours = themes()[theme]
    methods = [value for name, value in colours.items() if name.startswith("method-")]
    assert len(set(methods)) == 8
    # WCAG asks 4.5 of text and 3 of graphics.
    assert all(contrast(colour, colours["card"]) >= 4 for colour in methods)
    for name in ("ink", "muted", "accent", "bad"):
        assert contrast(colours[name], colours["card"]) >= 4.5
    assert contrast(colours["ink"], colours["page"]) >= 7
    assert contrast(colours["ink"], colours["soft"]) >= 7
    assert contrast(colours["ink"], colours["warn-soft"]) >= 7


def test_both_themes_name_the_same_colours() -> None:
    assert themes()["light"].keys() == themes()["dark"].keys()


def test_methods_differ_in_colour_and_marker() -> None:
    record, runs = full_session()
    styles = method_styles(view_trials(record, runs))
    assert list(styles) == ["full", "ia3", "lora"]
    assert len({style.colour for style in styles.values()}) == 3
    assert all(style.path == SYMBOLS[style.symbol] for style in styles.values())


def test_an_explosion_does_not_stretch_the_axis() -> None:
    losses = [2.7 + 0.01 * step for step in range(60)] + [40.0, 1e9]
    for known, top in ((losses, 5.0), ([2.6, 2.8, 9.0], 5.0), ([2.6, 1e9], 5.0)):
        axis = loss_axis(known, 4.1, shows_zero_shot=True)
        assert axis is not None
        assert axis.low < 2.7
        assert 4.1 < axis.high < top


def test_losses_of_different_magnitude_get_a_logarithmic_axis() -> None:
    axis = loss_axis([0.165, 0.1655, 5.5], 6.5, shows_zero_shot=True)
    assert axis is not None
    assert axis.layout["type"] == "log"
    assert "0.5" in axis.layout["ticktext"]
    low, high = axis.layout["range"]
    assert low < math.log10(0.165) < math.log10(6.5) < high


def test_noise_is_not_magnified() -> None:
    axis = loss_axis([0.1648, 0.1655])
    assert axis is not None
    assert axis.high - axis.low > 0.05 * 0.165


def test_loss_axis_of_nothing_and_of_one() -> None:
    assert loss_axis([]) is None
    axis = loss_axis([2.0])
    assert axis is not None
    assert axis.low < 2.0 < axis.high


@pytest.mark.parametrize(("scale", "place"), [("linear", 100.0), ("log", 2.0)])
def test_the_name_of_a_line_is_beside_it(scale: str, place: float) -> None:
    figure = new_figure("", "")
    figure.update_xaxes(type=scale)
    reference_line(figure, 100.0, "crossover", "x")
    assert (figure.layout.shapes[0].x0, figure.layout.annotations[0].x) == (100.0, place)


def test_many_names_differ() -> None:
    assert len(set(styles(map(str, range(64))).values())) == 64


def test_tokens_are_marked_on_the_fidelity_grid() -> None:
    axis = token_axis(64_000, 1000)
    assert axis["ticktext"] == ["64k", "32k", "16k", "8k", "4k", "2k", "1k"]
    assert token_axis(0, 1000) == {"type": "log"}


def test_log_axis_has_round_ticks_in_range() -> None:
    axis = log_axis([1e-5, 3e-3], rate)
    low, high = axis["range"]
    assert axis["ticktext"][0] == "1e-5"
    assert all(low <= math.log10(tick) <= high for tick in axis["tickvals"])
    assert len(log_axis([2.0, 2.0], rate)["range"]) == 2


def test_figures_share_no_settings() -> None:
    first, second = new_figure("steps", "loss"), new_figure("tokens", "loss")
    first.update_layout(showlegend=True, xaxis={"range": [0, 1]})
    assert (second.layout.showlegend, second.layout.xaxis.range) == (False, None)
    assert (first.layout.xaxis.title.text, second.layout.xaxis.title.text) == ("steps", "tokens")
    assert first.to_plotly_json()["layout"]["template"] == {}, "plotly's own style is 7 KB in every plot"
