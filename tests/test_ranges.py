"""Numbers that cannot be meant are refused by one message with flag and range."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from sessions import call_main
from tunecast.budget import Budget
from tunecast.errors import BudgetError, ConfigurationError
from tunecast.methods import Restrictions, pipeline_space
from tunecast.methods.space import USUAL_MODEL, check_pipeline
from tunecast.ranges import ABOVE_ZERO, AT_LEAST, check_range
from tunecast.records import Pipeline
from tunecast.session.settings import NUMBERS, SessionSettings


@pytest.mark.parametrize("name", [*AT_LEAST, *ABOVE_ZERO])
def test_both_ends_of_every_range(name: str) -> None:
    least, most = AT_LEAST.get(name, (0, ABOVE_ZERO.get(name, 0)))
    flag = f"--{name.replace('_', '-')}"
    for value in (None, most, least if name in AT_LEAST else 1e-9):
        check_range(name, value)
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(ConfigurationError, match=f"^{flag} must be a finite number"):
            check_range(name, value)
    for value in (1e300, 10**40):
        with pytest.raises(ConfigurationError, match=f"^{flag} must be at most {most:,.0f}, not 1"):
            check_range(name, value)
    with pytest.raises(ConfigurationError, match=f"^{flag} must be (at least {least:g}|above 0), not -1"):
        check_range(name, -1)


def test_every_number_of_a_session_has_a_range() -> None:
    for name in NUMBERS:
        with pytest.raises(ConfigurationError, match=f"--{name.replace('_', '-')} must be at most"):
            SessionSettings("model", "data", **{name: 10**40})  # type: ignore[arg-type]


def test_a_name_in_other_words() -> None:
    with pytest.raises(ConfigurationError, match=r"^batch_size must be at least 1, not 0\."):
        check_range("batch_size", 0, called="batch_size")


@pytest.mark.parametrize("text", ["9" * 400 + "s", "4000d", "1" + "0" * 300 + "-tokens", "2M-trials"])
def test_an_impossible_budget(text: str) -> None:
    with pytest.raises(BudgetError, match="budget") as caught:
        Budget.parse(text)
    assert "is more than" in caught.value.what or "is not a budget" in caught.value.what


@pytest.mark.parametrize("name", ["learning_rate", "lora_r", "per_device_train_batch_size"])
@pytest.mark.parametrize("value", [1e300, 10**40, math.inf, math.nan])
def test_hyperparameters_have_a_largest_value(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"--fix {name}=.*: this is not a value of {name}"):
        check_pipeline(Pipeline("lora", {name: value}))
    if value == 1e300:
        restrictions = Restrictions(("lora",), {}, {name: (1e-5, value)})
        with pytest.raises(ConfigurationError, match=f"--range {name}=.*must be at most 1,000,000"):
            pipeline_space(USUAL_MODEL, restrictions)


@pytest.mark.parametrize(("value", "meant"), [("acuracy", "accuracy"), ("completoin", "completion")])
def test_a_misspelt_value_gets_a_hint(value: str, meant: str) -> None:
    """Also if only other methods take what was meant."""
    with pytest.raises(ConfigurationError, match=rf"Did you mean {meant}\? training_loss takes completion"):
        check_pipeline(Pipeline("lora", {"training_loss": value}))


@pytest.mark.parametrize(
    "arguments",
    [
        ("data", "check", "stdlib"),
        ("scale", "fit"),
        ("learn", "--output", "x"),
        ("recommend", "--model", "x", "--data", "y"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_seed_has_a_range(arguments: tuple[str, ...]) -> None:
    code, out, err = call_main(*arguments, "--seed", str(10**40))
    assert (code, out, "4294967295" in err.replace(",", "")) == (2, "", True), err


LONG = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ("tune", "--model", LONG, "--data", "stdlib", "--output-dir", "{out}"),
        ("recommend", "--model", "{model}", "--data", f"{LONG}.jsonl"),
        ("data", "check", LONG),
        ("memory", "--model", f"{LONG}.gguf"),
        ("runs", "list", "--store", LONG),
        ("runs", "list", "--store", f"{LONG}.parquet"),
        ("runs", "export", f"{LONG}.parquet"),
        ("runs", "import", LONG, "--store", "{out}"),
        ("scale", "fit", "--table", f"{LONG}.csv"),
        ("export", LONG, "--to", "trl"),
        ("evaluate", "--model", "{model}", "--adapter", LONG, "--data", "stdlib"),
        ("collect", "--plan", LONG, "--store", "{out}"),
    ],
    ids=lambda arguments: f"{arguments[0]}-{arguments[1].strip('-')[:8]}",
)
def test_names_that_no_file_can_have(arguments: tuple[str, ...], tiny_llama: Path, tmp_path: Path) -> None:
    places = {"out": str(tmp_path / "out"), "model": str(tiny_llama)}
    code, out, err = call_main(*(text.format(**places) for text in arguments))
    assert (code, out) == (2, ""), err
    assert "longer than a file name may be" in err or "File name too long" in err
    assert not (tmp_path / "out").exists()


def test_a_path_with_a_nul(tmp_path: Path) -> None:
    for name in ("model", "data", "output_dir", "store", "prior"):
        with pytest.raises(ConfigurationError, match=f"--{name.replace('_', '-')} .* contains a NUL"):
            SessionSettings(**{"model": "m", "data": "d", name: "a\0b"})  # type: ignore[arg-type]
    (tmp_path / "c.yaml").write_text('model: "a\\0b"\n')
    code, _, err = call_main("tune", "--config", str(tmp_path / "c.yaml"))
    assert (code, "line 1: a character that no text has" in err) == (2, True)
