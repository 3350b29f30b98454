"""``tunecast memory``: the contract of ``--json``, the screen, and mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sessions import call_main
from tunecast.cli import app
from tunecast.errors import UserError
from tunecast.hardware.machine import has_accelerator

BASE = ["--batch-size", "2", "--max-length", "32"]


@pytest.fixture
def config_only(tiny_llama: Path, tmp_path: Path) -> str:
    """A folder with a configuration and no weights."""
    (tmp_path / "config.json").write_text((tiny_llama / "config.json").read_text())
    return str(tmp_path)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["memory", *arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_json_from_a_configuration_alone(config_only: str) -> None:
    answer = json.loads(run("--model", config_only, "--method", "lora", *BASE, "--gpu", "L4", "--json"))
    assert answer["total_bytes"] == sum(answer["parts"].values())
    assert {"weights", "adapters", "activations", "framework"} <= set(answer["parts"])
    assert answer["fits"] is True
    assert answer["total_bytes"] >= answer["training_peak_bytes"]


@pytest.mark.parametrize("method", ["full", "lora", "ia3"])
def test_every_method_is_served(config_only: str, method: str) -> None:
    answer = json.loads(run("--model", config_only, "--method", method, *BASE, "--json"))
    assert answer["trainable_parameters"] > 0


def test_hyperparameters_can_be_fixed(config_only: str) -> None:
    small, large = (
        json.loads(run("--model", config_only, "--fix", f"lora_r={rank}", *BASE, "--json"))
        for rank in (4, 16)
    )
    assert large["trainable_parameters"] == 4 * small["trainable_parameters"]


def test_any_peft_method_from_its_file(config_only: str, tmp_path: Path) -> None:
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({"peft_type": "VERA", "r": 16, "target_modules": ["q_proj"]}))
    answer = json.loads(
        run("--model", config_only, "--peft-config", str(file), *BASE, "--max-new-tokens", "4", "--json")
    )
    assert answer["trainable_parameters"] == 2 * (16 + 32)


@pytest.mark.parametrize("flag", ["--batch-size", "--eval-batch-size"])
def test_a_batch_that_cannot_be_counted_is_refused_by_its_flag(config_only: str, flag: str) -> None:
    largest = json.loads(run("--model", config_only, "--max-length", "32", flag, "1000000", "--json"))
    assert largest["total_bytes"] > 1e9
    asked = ["memory", "--model", config_only, "--max-length", "32", flag, "1000001"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 2
    assert flag in result.stderr


def test_screen_lists_parts_and_the_verdict(config_only: str) -> None:
    shown = run("--model", config_only, *BASE, "--gpu", "T4")
    assert "activations" in shown
    assert "Fits T4 (15.8 GB, which is 14.7 GiB)." in shown
    assert "90% interval" in shown
    assert "s if all have 32 tokens (" in shown


def test_a_named_accelerator_tells_the_seconds_of_a_step(config_only: str) -> None:
    answer = json.loads(run("--model", config_only, *BASE, "--gpu", "A100", "--json"))
    seconds = answer["step_seconds"]
    assert 0 < seconds["low"] < seconds["value"] < seconds["high"]
    assert answer["low_bytes"] < answer["total_bytes"] < answer["high_bytes"]
    assert json.loads(run("--model", config_only, *BASE, "--json"))["step_seconds"] is None


def test_kernels_and_mixed_precision_can_be_told(config_only: str) -> None:
    trainer = (*BASE, "--gpu", "A100", "--convention", "hf-trainer", "--json")
    torch, liger = (
        json.loads(run("--model", config_only, *trainer, "--kernels", kernels))["training_peak_bytes"]
        for kernels in ("torch", "liger")
    )
    assert liger < torch
    several = (*trainer, "--method", "full", "--sharding", "fsdp", "--devices", "2")
    plain, mixed = (
        json.loads(run("--model", config_only, *several, *flag))["training_peak_bytes"]
        for flag in ((), ("--mixed-precision",))
    )
    assert mixed > plain


def test_the_first_line_says_what_was_computed(config_only: str, tmp_path: Path) -> None:
    shown = run("--model", config_only, *BASE, "--fix", "lora_r=4", "--gpu", "H100", "--optimizer", "sgd")
    assert shown.splitlines()[0] == (
        f"{Path(config_only).name} (31.4k parameters), lora (r=4), batch 2 of 32 tokens, bfloat16, sgd, "
        "without gradient checkpointing, sdpa attention, for H100 SXM:"
    )
    (tmp_path / "a.json").write_text('{"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]}')
    more = ("--gradient-checkpointing", "--sharding", "zero3", "--devices", "4", "--convention", "hf-trainer")
    shown = run(
        "--model", config_only, *BASE, "--gpu", "T4", "--peft-config", str(tmp_path / "a.json"), *more
    )
    assert "a.json, batch 2 of 32 tokens, float32, adamw, with gradient" in shown.splitlines()[0]
    assert shown.splitlines()[0].endswith("zero3 over 4 devices, as hf-trainer, for T4:")
    of = json.loads(run("--model", config_only, *BASE, "--gpu", "T4", "--json"))["of"]
    assert (of["method"], of["batch_size"], of["max_length"], of["precision"]) == (
        *("lora (r=16)", 2, 32, "float32"),
    )


def test_the_named_accelerator_decides_what_can_be_trained(config_only: str, tiny_gpt2: Path) -> None:
    four_bit = json.loads(run("--model", config_only, "--method", "qlora", *BASE, "--gpu", "4090", "--json"))
    plain = json.loads(run("--model", config_only, "--method", "lora", *BASE, "--gpu", "4090", "--json"))
    assert four_bit["parts"]["weights"] < plain["parts"]["weights"]
    with pytest.raises(UserError, match="Conv1D"):
        run("--model", str(tiny_gpt2), "--method", "qlora", *BASE, "--gpu", "4090")


@pytest.mark.skipif(has_accelerator(), reason="this machine has an accelerator")
def test_without_a_name_this_machine_decides(config_only: str) -> None:
    with pytest.raises(
        UserError, match="--method qlora cannot run on this machine: there is no CUDA"
    ) as caught:
        run("--model", config_only, "--method", "qlora", *BASE)
    assert "--gpu" in caught.value.hint


def test_what_leaves_no_headroom_is_tight(config_only: str) -> None:
    """A card sold as 24 GB offers 23.6 GiB; a plan that fills more than 92% of them is no safe advice."""
    larger = json.loads(Path(config_only, "config.json").read_text())
    larger |= {"hidden_size": 8192, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128}
    verdicts = {}
    for width in (210_000, 235_000, 260_000):
        Path(config_only, "config.json").write_text(json.dumps(larger | {"intermediate_size": width}))
        asked = ["--model", config_only, *BASE, "--gpu", "RTX 4090"]
        answer = json.loads(run(*asked, "--json"))
        verdict = "tight" if answer["tight"] else "fits" if answer["fits"] else "none"
        share = answer["total_bytes"] / (23.6 * 2**30)
        assert verdict == ("fits" if share <= 0.92 else "tight" if share <= 1 else "none")
        verdicts[verdict] = run(*asked)
    assert set(verdicts) == {"fits", "tight", "none"}
    assert "Tight on RTX 4090 (25.3 GB, which is 23.6 GiB): less than 8% stays free" in verdicts["tight"]
    assert "Would leave room: a 4-bit base model (QLoRA)" in verdicts["tight"]


def test_an_accelerator_without_native_bfloat16_holds_float32(config_only: str) -> None:
    """As a session computes there, and as advice expects it to."""
    assumed, float32, float16 = (
        json.loads(run("--model", config_only, *BASE, "--gpu", "T4", *more, "--json"))["parts"]["weights"]
        for more in ((), ("--precision", "float32"), ("--precision", "float16"))
    )
    assert assumed == float32 > float16


def enlarge(folder: str, layers: int) -> None:
    """Make a model of Llama 70B's width from a small one's configuration."""
    file = Path(folder, "config.json")
    huge = json.loads(file.read_text())
    huge |= {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": layers}
    huge |= {"num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128}
    file.write_text(json.dumps(huge | {"max_position_embeddings": 4096}))


@pytest.mark.parametrize(("length", "shorter"), [("512", ", sequences of half the length"), ("128", "")])
def test_where_nothing_helps_only_what_was_tried_is_named(
    config_only: str, length: str, shorter: str
) -> None:
    enlarge(config_only, layers=300)
    shown = run("--model", config_only, "--batch-size", "2", "--max-length", length, "--gpu", "T4")
    assert f"Neither a smaller batch{shorter}, 4-bit weights nor up to 64 devices would make it fit." in shown


def test_a_method_that_recomputation_does_not_suit_is_not_advised_to_recompute(config_only: str) -> None:
    enlarge(config_only, layers=2)
    asked = ("--model", config_only, "--method", "prefix_tuning", "--batch-size", "64")
    asked += ("--max-length", "4000")
    shown = run(*asked, "--gpu", "T4")
    assert "Does not fit T4" in shown
    assert "gradient checkpointing and" not in shown
    code, _, err = call_main("memory", *asked, "--gpu", "T4", "--gradient-checkpointing")
    assert code == 2
    assert "--gradient-checkpointing does not suit prefix_tuning" in err


def test_what_does_not_fit_comes_with_advice(config_only: str) -> None:
    enlarge(config_only, layers=80)
    shown = run("--model", config_only, *BASE, "--gpu", "H100")
    assert "Does not fit H100 SXM (85.0 GB, which is 79.2 GiB)." in shown
    assert "Would fit: a 4-bit base model (QLoRA)" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu", "RTX 4099"], "Did you mean RTX 4090"),
        (["--method", "loro"], "Did you mean lora"),
        (["--fix", "lora_r"], "not NAME=VALUE"),
        (["--fix", "=3"], "not NAME=VALUE"),
        (["--fix", "lora_r=["], "this is not a value"),
        (["--fix", "lora_r=[1,2]"], "not a list"),
        (["--fix", "lora_q=4"], "no hyperparameter 'lora_q' for lora"),
        (["--fix", "learning_rate=high"], "not a value of learning_rate"),
        (["--max-length", "4096"], "longer than the context of .* .128 tokens"),
        (["--peft-config", "nowhere.json"], "cannot be read"),
        (["--peft-config", "x.json", "--method", "lora"], "exclude each other"),
        (["--precision", "int3"], "is unknown"),
        (
            ["--peft-config", "x.json", "--fix", "lora_r=64"],
            "--fix lora_r=64 has no effect",
        ),
        (["--sharding", "zero3"], "--sharding zero3 needs several devices"),
        (["--devices", "4"], "--devices 4 has no effect without --sharding"),
    ],
)
def test_mistakes_are_named(config_only: str, arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        run("--model", config_only, *arguments)
    for sentence in filter(None, (caught.value.what, caught.value.hint)):
        assert sentence[-1] in ".?"


def test_a_small_number_is_a_value_of_a_rate(config_only: str) -> None:
    assert "Fits" in run("--model", config_only, "--fix", "learning_rate=1e-4", *BASE)
