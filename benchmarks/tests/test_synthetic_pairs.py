from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

import tiny
from synth.servers import serving
from synthetic_pairs import RESULTS, Cell, Outcome, main, read, show, with_passage
from tunecast_benchmarks.page_figures import MARK


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    cell, outcome = Cell("m", "filtered", 100, 0), Outcome(2.5, 10.0, 200)
    file = tmp_path / "results.jsonl"
    assert read(file) == {}
    file.write_text(json.dumps(asdict(cell) | asdict(outcome)) + "\n")
    assert read(file) == {cell: outcome}


def test_tables_have_mean_deviation_and_number_of_seeds() -> None:
    known = {
        Cell("m", "untouched", 0, 0): Outcome(4.0, 5.0, 9),
        **{Cell("m", "filtered", 100, seed): Outcome(2.0 + seed, 10.0, 9) for seed in (0, 1)},
    }
    page = show(known)
    assert "| untouched | 0 | 4.000 (1) | 5.0 (1) |" in page
    assert "| filtered | 100 | 2.500 ± 0.707 (2) | 10.0 ± 0.0 (2) |" in page


def test_the_passage_is_what_the_source_says() -> None:
    row = {"prompt": "?", "source": {"document": "d", "start": 3, "end": 6}}
    assert with_passage(row, {"d": "0123456789"})["passage"] == "345"


@pytest.mark.slow
def test_all_ways_are_run_once(tmp_path: Path) -> None:
    """With a real server as the writer, which writes three questions a manual."""
    folder, model = tmp_path / "manuals", tmp_path / "model"
    folder.mkdir()
    model.mkdir()
    tiny.build_llama(model)
    for number, colour in enumerate(tiny.COLOURS * 3):
        parts = " ".join(
            f"The {part} of the {colour}{number} machine weighs {10 * number + at} kilograms."
            for at, part in enumerate(("rotor", "shaft", "housing"))
        )
        oiled = (
            f"Oil the gear of machine {number} every {number + 2} weeks, and then once more before you leave."
        )
        text = f"# Machine {colour} {number}\n\n{oiled}\n\n{parts} All are {colour}, as the maker wants it.\n"
        (folder / f"{number}.md").write_text(text)
    results, page = tmp_path / "results.jsonl", tmp_path / "page.md"
    page.write_text("Before.\n\n<!-- figures -->\n\nOld.\n")
    with serving() as server:
        arguments = [str(folder), "--model", str(model), "--writer", server.address, "--sizes", "10,50,500"]
        arguments += ["--seeds", "1", "--work", str(tmp_path / "work"), "--results", str(results)]
        main([*arguments, "--page", str(page)])
        found = {(cell.way, cell.pairs): outcome for cell, outcome in read(results).items()}
        assert set(found) == {
            ("untouched", 0),
            ("passage", 0),
            ("extractive", 10),
            *((way, size) for way in ("unfiltered", "filtered") for size in (10, 50)),
        }
        assert found["extractive", 10].loss < found["untouched", 0].loss
        asked = len(server.asked)
        main([*arguments, "--page", str(page)])
        assert len(server.asked) == asked
    assert len(results.read_text().splitlines()) == len(found)
    assert page.read_text().startswith("Before.\n\n<!-- figures -->\n\n## model\n")
    assert "Old." not in page.read_text()


def test_the_page_shows_the_published_results() -> None:
    page = (Path(__file__).parents[2] / "docs" / "documents.md").read_text()
    assert page.endswith(f"{MARK}\n\n{show(read(RESULTS))}")
