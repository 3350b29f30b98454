from __future__ import annotations

import math
import re

import pytest

from scaling.planted import methods_table
from tunecast.report.scaling_plot import write_plot


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
