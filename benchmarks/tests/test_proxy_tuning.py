from __future__ import annotations

from pathlib import Path

import pytest

import proxy_tuning
import tiny
from proxy_tuning import LARGE, SMALL, Cell, Outcome, cells, gap_closed, main, read, show
from tunecast_benchmarks.page_figures import MARK


def test_the_expert_comes_first_and_every_large_model_has_three_rows() -> None:
    made = list(cells(["geo_sql", "banking77"]))
    assert made[0] == Cell("geo_sql", "", "expert")
    assert len(set(made)) == len(made) == 2 * (1 + 3 * len(LARGE))


def test_the_gap_is_a_share_of_the_way_from_base_to_tuned() -> None:
    assert gap_closed(4.0, 2.0, 3.0) == pytest.approx(0.5)
    assert gap_closed(4.0, 2.0, 1.0) == pytest.approx(1.5)
    assert gap_closed(0.1, 0.5, 0.2, higher_is_better=True) == pytest.approx(0.25)
    assert gap_closed(1.0, 1.0, 2.0) is None
    assert gap_closed(2.0, 4.0, 3.0) is None
    assert gap_closed(0.5, 0.1, 0.2, higher_is_better=True) is None


def test_tables_have_every_row_and_the_gap_of_the_proxy() -> None:
    known = {
        Cell("geo_sql", "", "expert"): Outcome(2.5, 0.4, 90.0),
        Cell("geo_sql", LARGE[0], "base"): Outcome(6.0, 0.1, 60.0),
        Cell("geo_sql", LARGE[0], "proxy"): Outcome(3.0, 0.3, 20.0, 1.0, {"1": 3.1}),
        Cell("geo_sql", LARGE[0], "tuned"): Outcome(2.0, 0.5, 60.0),
    }
    page = show(known)
    assert f"|  | {SMALL} tuned alone |  | 2.500 | 0.400 | 90 |  |  |" in page
    assert f"| {LARGE[0]} | proxy | 1 | 3.000 | 0.300 | 20 | 75% | 50% |" in page
    assert LARGE[1] not in page


def test_rows_are_measured_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On tiny models, all rows of one task; a second call measures nothing."""
    for seed, name in enumerate((SMALL, LARGE[0])):
        tiny.build_llama(tmp_path / "models" / name, width=32 + 16 * seed, seed=seed)
    (tmp_path / "tasks").mkdir()
    tiny.write_jsonl(tmp_path / "tasks" / "toy.jsonl", tiny.toy_rows(60))
    monkeypatch.setattr(proxy_tuning, "LARGE", LARGE[:1])
    monkeypatch.setattr(proxy_tuning, "EXAMPLES", 30)
    monkeypatch.setattr(proxy_tuning, "TESTED", 6)
    monkeypatch.setattr(proxy_tuning, "TASKS", {"toy.jsonl": "token_f1"})
    results, page = tmp_path / "results.jsonl", tmp_path / "page.md"
    page.write_text(f"# Page\n\n{MARK}\n\nold\n")
    places = ["--models", str(tmp_path / "models"), "--tasks", str(tmp_path / "tasks")]
    main([*places, "--results", str(results), "--page", str(page)])
    known = read(results)
    assert [cell.way for cell in known] == ["expert", "base", "proxy", "tuned"]
    by_way = {cell.way: found for cell, found in known.items()}
    assert by_way["tuned"].loss < by_way["base"].loss
    by_alpha = by_way["proxy"].by_alpha
    assert by_alpha is not None
    assert by_alpha[f"{by_way['proxy'].alpha:g}"] == min(by_alpha.values())
    assert all(found.tokens_per_second > 0 for found in known.values())
    assert "old" not in page.read_text()
    capsys.readouterr()
    main([*places, "--results", str(results)])
    assert capsys.readouterr().out == ""
    assert read(results) == known
