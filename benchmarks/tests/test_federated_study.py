from __future__ import annotations

import json
from pathlib import Path

import pytest

import tiny
import tunecast.recommender.federated_study as recommended
from federated_study import (
    CENTRALISED,
    LOCAL,
    RESULTS,
    SMALLEST_CLIENT,
    Line,
    dirichlet_split,
    export,
    kept_gains,
    main,
    place,
    read,
    table,
)
from tunecast_benchmarks.page_figures import MARK


def line(variant: str, losses: list[float], **values: object) -> Line:
    usual = {"model": "m", "parameters": 5, "task": "t", "variant": variant, "clients": 4, "share": 1.0}
    more = {"examples": 9, "validation": 5, "rounds": len(losses) - 1, "concentration": 0.5, "seed": 0}
    measured = {"losses": losses, "bytes": [0] * len(losses), "biases": [None] * len(losses)}
    return usual | more | measured | values


def test_every_place_goes_to_one_client_and_no_client_is_too_small() -> None:
    labels = [f"{number % 5}" for number in range(200)]
    for concentration in (0.1, 10.0):
        parts = dirichlet_split(labels, 8, concentration, seed=0)
        assert sorted(index for part in parts for index in part) == list(range(200))
        assert min(map(len, parts)) >= SMALLEST_CLIENT
    kinds = [
        sum(len({labels[index] for index in part}) for part in dirichlet_split(labels, 8, one, seed=0))
        for one in (0.1, 10.0)
    ]
    assert kinds[0] < kinds[1], "a low concentration gives each client few labels"


def test_too_many_clients_are_refused() -> None:
    with pytest.raises(ValueError, match="10 examples are too few for 8 clients"):
        dirichlet_split(["a"] * 10, 8, 1.0, seed=0)


def test_a_split_that_cannot_be_drawn_is_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, output = tiny.build_llama(tmp_path / "model"), tmp_path / "study.jsonl"
    data = tmp_path / "toy.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in tiny.toy_rows(30, seed=0)))
    arguments = ["--model", str(model), "--task", str(data), "--output", str(output), "--examples", "20"]
    arguments += ["--validation", "5", "--rounds", "1", "--concentrations", "10"]
    arguments += ["--variants", "centralised", "fedavg-lora"]
    monkeypatch.setattr("sys.argv", ["federated_study.py", *arguments, "--clients", "8"])
    main()
    assert "fedavg-lora 10.0: 20 examples are too few for 8 clients of 4." in capsys.readouterr().out
    assert not output.exists()
    monkeypatch.setattr("sys.argv", ["federated_study.py", *arguments, "--clients", "2"])
    main()
    assert [one["variant"] for one in read(output)] == ["centralised", "fedavg-lora"]


def test_kept_is_the_share_of_the_centralised_gain_by_the_best_round_so_far() -> None:
    lines = [
        line(CENTRALISED, [10.0, 6.0, 2.0], concentration=0.1),
        line("fedavg-lora", [10.0, 8.0, 9.0]),
        line("slora", [10.0, 1.0, 11.0]),
        line(LOCAL, [10.0, 9.0, 9.0]),
    ]
    found = [(one["variant"], one["round"], one["kept"]) for one in kept_gains(lines)]
    assert found[:2] == [("fedavg-lora", 1, 0.5), ("fedavg-lora", 2, 0.25)]
    assert found[2:] == [("slora", 2, 0.0)], "its first stage is not delivered, and the base model is better"


def test_a_centralised_cell_is_the_same_however_clients_are_split() -> None:
    ends = [line(CENTRALISED, [1.0], concentration=one, clients=int(10 * one)) for one in (0.1, 10.0)]
    assert place(ends[0]) == place(ends[1])
    assert place(line("slora", [1.0])) != place(line("slora", [1.0], concentration=10.0))
    assert place(line(CENTRALISED, [1.0])) != place(line(CENTRALISED, [1.0, 2.0])), "other rounds"


def test_the_page_and_the_package_have_the_published_results(tmp_path: Path) -> None:
    lines = read(RESULTS)
    page = (Path(__file__).parents[2] / "docs" / "federated.md").read_text()
    assert page.endswith(f"{MARK}\n\n{table(lines)}\n")
    export(lines, tmp_path / "study.csv")
    shipped = Path(recommended.__file__).parent / recommended.STUDY
    assert (tmp_path / "study.csv").read_text() == shipped.read_text()
