from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sample_runs import sample_pipeline, sample_run, sample_score
from scaling.planted import methods_table, models_table, write_long
from tunecast.cli import app
from tunecast.errors import ConfigurationError, DataError, OutputError
from tunecast.records import Outcome, Pipeline, Run
from tunecast.scaling.stored import rows_of


@pytest.fixture(scope="module")
def models_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_long(tmp_path_factory.mktemp("tables") / "models.csv", models_table(count=3))


@pytest.fixture(scope="module")
def methods_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = methods_table({"full": (30, 0.1, 0.25, 0.5), "lora": (6, 0.08, 0.1, 0.45)})
    return write_long(tmp_path_factory.mktemp("tables") / "methods.csv", table)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["scale", *(str(argument) for argument in arguments)])


def as_json(*arguments: object) -> dict[str, list[dict[str, object]]]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("law", ["power", "rectified", "joint-rectified"])
def test_fit(models_csv: Path, law: str) -> None:
    fits = as_json("fit", "--table", models_csv, "--by", "model", "--law", law)["fits"]
    assert [entry["group"] for entry in fits] == [{"model": f"m{index}"} for index in range(3)]
    for entry in fits:
        errors = {"rmsd_log", "rmsd_log_leave_one_out"}
        assert set(entry) == {"group", "law", "parameters", "exponents", "points", "note"} | errors
        assert entry["law"] == law
        assert entry["points"] == 12


@pytest.mark.parametrize("law", ["joint", "additive"])
def test_fit_of_a_joint_law(methods_csv: Path, law: str) -> None:
    fits = as_json("fit", "--table", methods_csv, "--by", "method", "--law", law)["fits"]
    assert {json.dumps(entry["parameters"]) for entry in fits if entry["group"]["method"] == "full"}
    assert len(fits) == 8


def test_fit_names_the_factors_their_intervals_and_what_they_stand_for(methods_csv: Path) -> None:
    result = run(
        "fit", "--table", methods_csv, "--by", "method", "--law", "joint", "--factor", "model_parameters"
    )
    assert result.exit_code == 0, result.output
    assert re.search(r"alpha_model_parameters 0\.\d+ \(0\.\d+ to 0\.\d+\)  beta 0\.\d+ \(", result.stdout)
    result = run("fit", "--table", methods_csv, "--law", "joint", "--factor", "width")
    assert isinstance(result.exception, ConfigurationError)
    assert "The factors are model_parameters, pretraining_tokens, peft_parameters." in str(result.exception)


def test_forecast(models_csv: Path) -> None:
    result = as_json(
        "forecast",
        "--table",
        models_csv,
        "--by",
        "model",
        "--data-size",
        "400000,800000",
        "--max-observed",
        51200,
    )
    entries = result["forecasts"]
    assert len(entries) == 6
    for entry in entries:
        assert set(entry) == {"group", "data_size", "loss", "low", "high", "law", "supported", "reason"}
        assert entry["low"] <= entry["loss"] <= entry["high"]
        assert isinstance(entry["supported"], bool)
    assert [entry["data_size"] for entry in entries[:2]] == [400000, 800000]
    assert {"group", "data_size", "target_size", "narrows_by", "cost"} == set(result["advice"][0])


def test_strict_refuses_with_exit_code_2_and_text_leads_with_the_refusal(models_csv: Path) -> None:
    far = ("forecast", "--table", models_csv, "--by", "model", "--data-size", "1e9", "--law", "power")
    plain = run(*far)
    assert plain.exit_code == 0
    assert plain.stdout.startswith("NOT SUPPORTED, too far")
    assert run(*far, "--strict").exit_code == 2
    near = run("forecast", "--table", models_csv, "--by", "model", "--data-size", "800000", "--strict")
    assert near.exit_code == 0
    assert "Measure next" in near.stdout


def test_forecast_of_a_metric(models_csv: Path, tmp_path: Path) -> None:
    lines = models_csv.read_text(encoding="utf-8").splitlines()
    place = lines[0].split(",").index("loss")
    scored = [f"{line},{60 - 20 * float(line.split(',')[place])}" for line in lines[1:]]
    table = tmp_path / "scored.csv"
    table.write_text("\n".join([f"{lines[0]},bleu", *scored]), encoding="utf-8")
    flags = ("forecast", "--table", table, "--by", "model", "--law", "power", "--data-size", 1000)
    (relation,) = as_json(*flags, "--metric", "bleu")["relations"]
    assert relation["holds"]
    shown = run(*flags, "--metric", "bleu").stdout.splitlines()
    assert shown[0].startswith("bleu follows from the loss")
    assert re.fullmatch(r"m0 at 1,000 examples: bleu \S+ \(\S+ to \S+\)", shown[1])
    missing = run(*flags, "--metric", "chrf")
    assert "no column 'chrf'" in str(missing.exception)


def test_select(models_csv: Path) -> None:
    ranking = as_json("select", "--table", models_csv, "--by", "model", "--data-size", "1e6")["ranking"]
    assert {entry["model"] for entry in ranking} == {"m0", "m1", "m2"}
    cautious = [entry["cautious"] for entry in ranking]
    assert cautious == sorted(cautious)
    assert set(ranking[0]) == {"model", "loss", "low", "high", "cautious", "best"}
    shown = run("select", "--table", models_csv, "--data-size", "1e6").stdout
    assert shown.startswith("  1. ")
    assert f"best with {ranking[0]['best']:.0%}" in shown.splitlines()[0]


def test_advise(methods_csv: Path, tmp_path: Path) -> None:
    arguments = (
        "advise",
        "--table",
        methods_csv,
        "--by",
        "method",
        "--target",
        "0.95",
        "--price-example",
        "0.1",
    )
    options = as_json(*arguments, "--have", "1000", "--model-parameters", "6e9")["options"]
    assert [option["price"] for option in options] == sorted(option["price"] for option in options)
    assert options[0]["price"] == pytest.approx(0.1 * max(0, options[0]["data_size"] - 1000))
    page = tmp_path / "page.html"
    shown = run(*arguments, "--plot", page).stdout.splitlines()
    assert len(shown) == 8
    assert "at most 0.95 with" in shown[0]
    assert "target 0.95" in page.read_text()
    unreachable = run("advise", "--table", methods_csv, "--target", "0.1").stdout
    assert unreachable.count("NOT REACHED by ") == 8


def test_advise_takes_seconds_from_a_column(tmp_path: Path) -> None:
    table = tmp_path / "timed.csv"
    rows = [f"full,{size},{6 * size**-0.2 + 0.5},{size / 10}" for size in (1000, 2000, 4000, 8000)]
    table.write_text("method,data_size,loss,seconds\n" + "\n".join(rows))
    (option,) = as_json("advise", "--table", table, "--target", "1.4", "--price-hour", "36")["options"]
    assert option["hours"] == pytest.approx(option["data_size"] / 36_000)
    assert option["price"] == pytest.approx(36 * option["hours"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--target", "0"), "--target must be a number above 0"),
        (("--target", "nan"), "--target must be a number above 0"),
        (("--target", "1", "--confidence", "80"), "--confidence must be between 0 and 1, not 80"),
        (("--target", "1", "--model-parameters", "7B"), "--model-parameters '7B' is not a list of numbers"),
        (("--target", "1", "--price-hour", "2"), "An hour has a price, but"),
    ],
)
def test_advise_refuses(methods_csv: Path, flags: tuple[str, ...], message: str) -> None:
    refused = run("advise", "--table", methods_csv, *flags).exception
    assert isinstance(refused, ConfigurationError)
    assert message in str(refused)


def test_crossover(methods_csv: Path) -> None:
    (entry,) = as_json("crossover", "--table", methods_csv, "--by", "method", "--model-parameters", "1e9")[
        "crossovers"
    ]
    assert entry["first"] == {"method": "full"}
    root = entry["roots"][0]
    assert root["low"] <= root["data_size"] <= root["high"]
    assert root["better_above"] == "full"


def test_plot_is_self_contained(models_csv: Path, tmp_path: Path) -> None:
    page = tmp_path / "curves.html"
    result = run("select", "--table", models_csv, "--data-size", "1e6", "--law", "rectified", "--plot", page)
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert "Lines of equal loss" in text
    assert "<script src=" not in text
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text


@pytest.mark.parametrize(
    "what", [("fit",), ("forecast", "--data-size", 9e5), ("select", "--data-size", 9e5), ("crossover",)]
)
def test_a_plot_is_refused_before_the_work_and_fails_after_the_answer(
    what: tuple[object, ...], methods_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OutputError("The disk is full.")

    monkeypatch.setattr("tunecast.report.scaling_plot.write_plot", full)
    asked = (*what, "--table", methods_csv, "--by", "method", "--law", "power", "--plot")
    early, late = run(*asked, tmp_path), run(*asked, tmp_path / "curves.html")
    assert isinstance(early.exception, OutputError)
    assert isinstance(late.exception, OutputError)
    assert (early.stdout, "full" in late.stdout) == ("", True)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("fit",), ConfigurationError),
        (("fit", "--table", "none.csv"), DataError),
        (("forecast", "--table", "none.csv", "--data-size", "many"), ConfigurationError),
        (("select", "--table", "none.csv", "--data-size", "1,2"), ConfigurationError),
        (("fit", "--table", "none.csv", "--max-observed", "-3"), ConfigurationError),
    ],
)
def test_mistakes(arguments: tuple[str, ...], error: type[Exception]) -> None:
    assert isinstance(run(*arguments).exception, error)


def test_a_negative_seed_is_refused(models_csv: Path) -> None:
    refused = run("fit", "--table", models_csv, "--law", "power", "--seed", "-1")
    assert refused.exit_code == 2
    assert "--seed" in refused.output


def test_examples_are_not_taken_for_a_table(toy_data: Path) -> None:
    error = run("fit", "--table", toy_data).exception
    assert isinstance(error, DataError)
    assert "is JSON, not a table of losses" in error.what
    assert ".csv" in error.hint


def test_store(tmp_path: Path) -> None:
    from tunecast.store import Store, export_parquet

    url = tmp_path / "runs.sqlite"
    with Store.open(url) as store:
        for number, size in enumerate((100, 200, 400, 800)):
            store.put(completed_run(number, size))
        store.put(replace(completed_run(4, 1600), outcome=Outcome.DIVERGED))
        export_parquet(store, tmp_path / "runs.PARQUET")
    for file in (url, tmp_path / "runs.PARQUET"):
        (fitted,) = as_json("fit", "--store", file, "--law", "power")["fits"]
        assert fitted["points"] == 4
        assert fitted["rmsd_log"] < 1e-3


def completed_run(number: int, size: int) -> Run:
    """A run of one pipeline on ``size`` examples that ended at a loss of a power law."""
    run = sample_run(number, unique_examples=size, total_steps=1000, pipeline=sample_pipeline())
    last = replace(run.curve[-1], validation=sample_score(5.0 * size**-0.2))
    return replace(run, curve=(*run.curve[:-1], last), validation=None)


def test_a_store_knows_how_many_examples_a_short_schedule_saw() -> None:
    short = completed_run(0, 2000)
    batch = short.pipeline.number("per_device_train_batch_size")
    assert replace(short, total_steps=10).examples_seen == 10 * batch
    assert replace(short, total_steps=10**6).examples_seen == 2000
    unknown = replace(short, pipeline=Pipeline("lora", {"learning_rate": 1e-4}))
    assert unknown.examples_seen == 2000, "runs from elsewhere may not tell their batch"
    (row,) = rows_of([replace(short, total_steps=10)])
    assert row.data_size == 10 * batch
    assert list(rows_of([replace(short, total_steps=10**6)], max_observed=1999)) == []


def test_a_run_without_a_finite_loss_is_not_an_end_point() -> None:
    run = completed_run(0, 2000)
    assert list(rows_of([replace(run, validation=sample_score(math.nan))])) == []
