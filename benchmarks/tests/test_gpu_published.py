"""The comparison with published finetunings on GPUs leaves out what it says it leaves out."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

import gpu_published
from gpu_published import fit, held_out, predicted_bytes, read_rows, timed, with_widths, workload_of
from tunecast.estimate.speed import Speed

SMALL = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 500,
    "tie_word_embeddings": False,
}
USUAL = {
    "source": "fms_acceleration",
    "config": "small",
    "method": "lora",
    "quantizer": "",
    "rank": "8",
    "target_modules": "q_proj v_proj",
    "modules_to_save": "",
    "batch": "4",
    "accumulation": "2",
    "length": "64",
    "mean_length": "64",
    "packing": "packed",
    "kbit_upcast": "",
    "kernels": "none",
    "trainer": "hf-trainer",
    "mixed_precision": "no",
    "gradient_checkpointing": "1",
    "weights_dtype": "bfloat16",
    "adapter_dtype": "float32",
    "attention": "flash",
    "gpu": "A100 80GB",
    "devices": "1",
    "sharding": "none",
    "peak_bytes": "3000000",
    "peak_kind": "torch_peak_allocated",
    "seconds_per_step": "0.2",
    "outcome": "ok",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, width in (("small", 64), ("wide", 128)):
        (tmp_path / "configs" / name).mkdir(parents=True)
        config = {**SMALL, "hidden_size": width}
        (tmp_path / "configs" / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
    rows = [
        USUAL,
        {**USUAL, "config": "wide", "seconds_per_step": "0.3"},
        {**USUAL, "config": "wide", "method": "full", "rank": "", "target_modules": "", "adapter_dtype": ""},
        {**USUAL, "method": "qlora", "quantizer": "bnb-nf4-dq", "length": "", "peak_kind": "reported"},
        {**USUAL, "seconds_per_step": "", "peak_bytes": "", "outcome": "oom"},
    ]
    with (tmp_path / "runs.csv").open("w", encoding="utf-8", newline="") as lines:
        table = csv.DictWriter(lines, ["id", *USUAL])
        table.writeheader()
        table.writerows({"id": f"run{number}", **row} for number, row in enumerate(rows))
    return tmp_path


def test_a_row_becomes_the_workload_that_it_states(folder: Path) -> None:
    lora, _, full, four_bit, _ = read_rows(folder)
    workload = workload_of(lora, 64)
    assert workload.adapter == {"peft_type": "LORA", "r": 8, "target_modules": ["q_proj", "v_proj"]}
    assert (workload.batch_size, workload.passes, workload.gradient_checkpointing) == (4, 2, True)
    assert (workload.precision, workload.adapter_dtype) == ("bfloat16", "float32")
    assert workload_of(full, 64).adapter is None
    assert workload_of(four_bit, 64).precision == "4-bit"


@pytest.mark.parametrize(
    ("column", "value", "field", "expected"),
    [
        ("kernels", "foak", "kernels", "fused"),
        ("kernels", "liger", "kernels", "liger"),
        ("mixed_precision", "bf16", "mixed_precision", True),
        ("kbit_upcast", "1", "upcast_frozen", True),
        ("quantizer", "bnb-nf4", "double_quantised", False),
        ("trainer", "deepspeed", "sharding", "none"),
    ],
)
def test_a_column_becomes_the_field_that_it_means(
    folder: Path, column: str, value: str, field: str, expected: object
) -> None:
    row = read_rows(folder)[3]
    quantizer = value if column == "quantizer" else row.quantizer
    changed = replace(row, quantizer=quantizer, fields={**row.fields, column: value})
    assert getattr(workload_of(changed, 64), field) == expected


def test_deepspeed_keeps_float32_copies_on_one_device_too(folder: Path) -> None:
    full = read_rows(folder)[2]
    deepspeed = replace(full, fields={**full.fields, "trainer": "deepspeed"})
    assert workload_of(deepspeed, 64).sharding == "zero2"


def test_bytes_count_as_the_source_counts_them(folder: Path) -> None:
    lora, _, _, without_length, _ = read_rows(folder)
    tensors = predicted_bytes(lora)
    whole = predicted_bytes(replace(lora, fields={**lora.fields, "peak_kind": "reported"}))
    assert tensors is not None
    assert whole is not None
    assert whole - tensors == 600_000_000
    assert predicted_bytes(without_length) is None


def test_a_group_that_is_left_out_has_no_say_in_its_own_prediction(folder: Path) -> None:
    found = timed(read_rows(folder))

    def predictions(seconds: float) -> tuple[dict[str, list[float]], dict[str, float]]:
        changed = [replace(one, measured=seconds) if one.row.model == "wide" else one for one in found]
        by_model: dict[str, list[float]] = {}
        widths = {}
        for one, width in with_widths(held_out(changed, lambda row: row.model), lambda row: row.model):
            by_model.setdefault(one.row.model, []).append(one.predicted)
            widths[one.row.model] = width
        return by_model, widths

    (fast, fast_widths), (slow, slow_widths) = predictions(0.3), predictions(3.0)
    assert fast["wide"] == slow["wide"]
    assert fast["small"] != slow["small"]
    assert fast_widths["small"] != slow_widths["small"]


def test_predictions_move_towards_what_was_measured(folder: Path) -> None:
    found = timed(read_rows(folder))
    slow, usual = fit([replace(one, measured=10 * one.measured) for one in found]), fit(found)
    assert all(slow.seconds(one) > 2 * usual.seconds(one) for one in found)


def test_start_up_counts_only_in_the_table_that_includes_it(folder: Path) -> None:
    one = timed(read_rows(folder))[0]
    fitted = fit([one])
    elsewhere = replace(one, row=replace(one.row, fields={**one.row.fields, "source": "another"}))
    assert fitted.seconds(one) - fitted.seconds(elsewhere) == pytest.approx(fitted.start_up)


def test_the_written_file_is_one_that_the_package_reads(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "speed.json"
    gpu_published.write_coefficients(timed(read_rows(folder)), file)
    content = json.loads(file.read_text(encoding="utf-8"))
    assert Speed(**content["cuda"]).start > 0
    assert content["deviation"] > 0


def test_methods_with_and_without_a_quantizer_are_left_out_apart(folder: Path) -> None:
    ways = [row.way for row in read_rows(folder)]
    assert ways == ["lora", "lora", "full", "qlora bnb-nf4-dq", "lora"]


def test_the_tables_count_every_row_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = read_rows(folder)
    gpu_published.print_bytes(rows)
    gpu_published.print_seconds(timed(rows))
    out = capsys.readouterr().out
    first = next(line for line in out.splitlines() if line.startswith("all"))
    assert first.split()[1] == "3"
    assert "rows that ran out of memory: 0 of 1 predicted" in out
    assert "rows that fitted: 3 of 3 predicted" in out
    assert sum(line.startswith("all ") for line in out.splitlines()) == 3


def test_a_folder_without_runs_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["gpu_published.py", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        gpu_published.main()
    assert stopped.value.code == 0
