from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from scaling.planted import methods_table
from tunecast.report.scaling_plot import write_plot
from tunecast.scaling import Prices


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("scaling") / "page.html"
    table = methods_table({"full": (30, 0.1, 0.25, 0.5), "lora": (6, 0.08, 0.1, 0.45)})
    write_plot(path, table, "joint", crossings=[5860.0])
    return path.read_text()


def test_lines_of_equal_loss_are_of_one_method(page: str) -> None:
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings == ["Joint law", "Lines of equal loss: full", "Lines of equal loss: lora"]


def test_a_crossover_is_named_at_its_line(page: str) -> None:
    (place,) = re.findall(r'"text":"crossover 5.86k"[^{}]*"x":([\d.]+)', page)
    assert float(place) == pytest.approx(math.log10(5860))


def test_lines_of_equal_price_are_those_of_the_prices(tmp_path: Path) -> None:
    table = methods_table({"full": (30, 0.1, 0.25, 0.5)})
    timed = (replace(c, seconds_per_example=c.factors["model_parameters"] / 1e9) for c in table.curves)
    path, prices = tmp_path / "page.html", Prices(example=0.1, hour=3.6, owned=1000)
    write_plot(path, replace(table, curves=tuple(timed)), "joint", prices=prices)
    text = path.read_text()
    assert "Dashed lines join those of the same price." in text
    labels = [float(label) for label in re.findall(r'"price ([\d.]+)k"', text)]
    assert len(labels) == 4
    assert labels == sorted(labels)  # a larger model takes longer on the same examples


def test_without_a_price_there_are_no_lines_of_equal_price(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_plot(path, methods_table({"full": (30, 0.1, 0.25, 0.5)}), "joint", prices=Prices())
    assert "Lines of equal loss" in path.read_text()
    assert "same price" not in path.read_text()
