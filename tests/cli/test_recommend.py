"""``tunecast recommend``: the contract of ``--json``, the screen, the chart, and what it does not import."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tunecast.cli import app
from tunecast.errors import ConfigurationError, OutputError


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["recommend", *arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.fixture
def asked(tiny_llama: Path, toy_data: Path) -> list[str]:
    return ["--model", str(tiny_llama), "--data", str(toy_data), "--gpu", "RTX 4090"]


def test_json(asked: list[str]) -> None:
    answer = json.loads(run(*asked, "--price", "0.4", "--top", "3", "--json"))
    assert len(answer["recommendations"]) == 3
    for one in answer["recommendations"]:
        keys = ("predicted_loss", "low", "high", "relative_gain", "hours", "memory_gb", "money")
        assert all(isinstance(one[key], float) for key in keys)
        assert one["hours_low"] < one["hours"] < one["hours_high"]
        assert one["memory_gb_low"] < one["memory_gb"] < one["memory_gb_high"]
        assert one["pipeline"]["method"]
        assert one["pipeline"]["learning_rate"] > 0
    assert set(answer["zero_shot_loss"]) == {"value", "source", "low", "high"}
    assert answer["zero_shot_loss"]["source"] == "predicted"
    assert answer["neighbours"][0]["dataset"]
    assert any("zero-shot loss is predicted" in warning for warning in answer["warnings"])


def test_a_pattern_and_a_verbaliser_change_what_is_predicted(tiny_llama: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"text {n}", "completion": ("good", "bad")[n % 2]} for n in range(90)]
    data = tmp_path / "moods.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ["--model", str(tiny_llama), "--data", str(data), "--gpu", "RTX 4090", "--json"]
    longer = [
        "--pattern",
        "Is this a good text, or is it a bad one? {prompt}",
        "--verbaliser",
        "1=good,0=bad",
    ]
    plain, other = (json.loads(run(*asked, *flags))["recommendations"][0] for flags in ([], longer))
    assert other["full_length_tokens"] > 1.5 * plain["full_length_tokens"]
    with pytest.raises(ConfigurationError, match="no training example has the label 'god'"):
        run(*asked, "--verbaliser", "Yes=god,No=bad")
    with pytest.raises(ConfigurationError, match=r"has \{prompt\} in it 0 times"):
        run(*asked, "--pattern", "Good?")
    with pytest.raises(ConfigurationError, match="--pattern does not go with --federated"):
        run(*asked, "--federated", "4", "--pattern", "{prompt}?")


def test_without_a_price_there_is_no_money(asked: list[str]) -> None:
    assert json.loads(run(*asked, "--json"))["recommendations"][0]["money"] is None


def test_screen_has_the_gain_first_and_says_how_to_override(asked: list[str]) -> None:
    shown = run(*asked)
    table = shown[shown.index("predicted, nothing") :]
    assert 0 < table.index("gain") < table.index("test") < table.index("GB")
    for part in (
        "Base model",
        "predicted",
        "By epochs",
        "Why the first:",
        "--fix learning_rate=",
        "Nearest known",
    ):
        assert part in shown


def test_chart_is_one_file(asked: list[str], tmp_path: Path) -> None:
    file = tmp_path / "chart.html"
    run(*asked, "--plot", str(file))
    text = file.read_text(encoding="utf-8")
    assert "Pareto front" in text
    assert "base model" in text


def test_the_chart_has_every_method(asked: list[str], tmp_path: Path) -> None:
    methods = ["full", "gmt", "ia3", "ln_tuning", "loha", "lokr", "lora", "mezo", "oft", "top_layers", "vera"]
    asked = [*asked, "--methods", ",".join(methods)]
    considered = json.loads(run(*asked, "--json", "--plot", str(tmp_path / "chart.html")))["recommendations"]
    assert considered
    text = (tmp_path / "chart.html").read_text(encoding="utf-8")
    assert [name for name in methods if f'"name":"{name}"' not in text] == []


def test_a_chart_that_cannot_be_written_is_refused_before_the_work(
    asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunecast.api.asking.recommend", lambda *_, **__: pytest.fail("the work began"))
    with pytest.raises(OutputError, match=r"--plot .* cannot be written"):
        run(*asked, "--plot", str(tmp_path))


def test_a_chart_that_fails_in_the_end_leaves_the_answer_on_the_screen(
    asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OutputError("The disk is full.")

    monkeypatch.setattr("tunecast.report.recommendation_plot.write_prospects", full)
    result = CliRunner().invoke(app, ["recommend", *asked, "--json", "--plot", str(tmp_path / "chart.html")])
    assert isinstance(result.exception, OutputError)
    assert json.loads(result.stdout)["recommendations"]


def test_a_recommended_pipeline_can_be_trained(asked: list[str], tmp_path: Path) -> None:
    from tunecast.methods.pipeline_file import read_pipeline

    file = tmp_path / "pipeline.json"
    file.write_text(json.dumps(json.loads(run(*asked, "--json"))["recommendations"][0]["pipeline"]))
    assert read_pipeline(file).hyperparameters["learning_rate"]


@pytest.mark.parametrize("fixture", ["tiny_llama", "tiny_gpt2"])
def test_nothing_heavy_is_imported(fixture: str, asked: list[str], request: pytest.FixtureRequest) -> None:
    asked[asked.index("--model") + 1] = str(request.getfixturevalue(fixture))
    code = (
        "import sys; from typer.testing import CliRunner; from tunecast.cli import app;"
        "result = CliRunner().invoke(app, ['recommend', *sys.argv[1:]]); assert not result.exception;"
        "print([m for m in ('torch', 'transformers', 'peft', 'ConfigSpace', 'plotly') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *asked], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"


def federate_options(command: str) -> dict[str, Any]:
    """What ``tunecast federate`` reads of a command line."""
    group = typer.main.get_command(app)
    (name, *arguments) = shlex.split(command)[1:]
    subcommand = group.get_command(None, name)  # type: ignore[attr-defined]
    return dict(subcommand.make_context(name, arguments).params)


def test_federated_methods_are_compared(asked: list[str]) -> None:
    federated = [*asked, "--federated", "8", "--rounds", "4", "--skew", "high"]
    text = run(*federated)
    assert "predicted, nothing was run" in " ".join(text.split())
    assert "Shares were learned from" in text
    found = json.loads(run(*federated, "--json"))
    assert found["federation"] == {"clients": 8, "rounds": 4, "share": 1.0, "skew": "high"}
    (command,) = [line for line in text.splitlines() if "tunecast federate" in line]
    parsed = federate_options(command.replace("DIR...", "a b"))
    assert (parsed["rounds"], parsed["share"], parsed["device"]) == (4, 1.0, "cuda")
    assert parsed["method"] in found["prospects"][0]["variant"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--skew", "low"], "--skew needs --federated"),
        (["--rounds", "0"], "--rounds needs --federated"),
        (["--federated", "8", "--top", "3"], "--top does not go with --federated"),
        (["--federated", "8", "--fix", "lora_r=4"], "--fix does not go with --federated"),
        (["--federated", "8", "--plot", "chart.html"], "--plot does not go with --federated"),
    ],
)
def test_options_that_would_be_ignored_are_refused(asked: list[str], more: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run(*asked, *more)


def test_a_mistake_is_one_message_and_exit_code_2(asked: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tunecast", "recommend", *asked[:-1], "RTX 4099"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert "Did you mean RTX 4090" in done.stderr
    assert "Traceback" not in done.stderr
