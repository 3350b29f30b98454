"""Converts published tables of finetunings to the layout of ``runs import --published``, and packs them.

    python benchmarks/published_tables.py FOLDER --tables TABLES --output src/tunecast/store/published.parquet

FOLDER holds the tables as they were collected: ``published/*.csv``, ``gpu/runs.csv`` with ``gpu/configs``,
``scaling/*.csv`` and ``peft_metamathqa_llama32_3b.json``; what is absent is left out. TABLES receives one CSV
file per table. A table whose source states no licence is converted, but not packed.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunecast.errors import report_user_errors
from tunecast.store import Store, export_parquet, put_published, read_published
from tunecast.store.importing.published_layout import UNITS
from tunecast_benchmarks.model_shapes import SHAPES

Row = dict[str, str]

PEFT = "peft_method_comparison"
NO_LICENCE = "none stated"
"""Licence of a source without one; such tables are not shipped."""

ORIGINS = {
    "tinker_sft_sweep": ("thinking-machines-lab/tinker-cookbook", "9dfcc3a2cf44", "Apache-2.0"),
    "peft_method_comparison": ("huggingface/peft", "5d602fdbff04", "Apache-2.0"),
    "litgpt_config_hub": ("Lightning-AI/litgpt", "26857050fe3f", "Apache-2.0"),
    "georgian": ("georgian-io/LLM-Finetuning-Toolkit", "", "Apache-2.0"),
    "proxylm_nusa": ("davidanugraha/proxylm", "ad0c95e1429c", "Apache-2.0"),
    "proxylm_mt560": ("davidanugraha/proxylm", "ad0c95e1429c", "Apache-2.0"),
    "fms_acceleration": ("foundation-model-stack/fms-acceleration", "876e2ed6fc4e", "Apache-2.0"),
    "qwen_readme_profiling": ("QwenLM/Qwen", "2df8e8ac450f", "Apache-2.0"),
    "scaling": ("linhaowei1/Fine-tuning-Scaling-Law", "b7012351b163", NO_LICENCE),
}
"""Repository, commit and licence of each source."""

TABLES = {
    ("tinker_sft_sweep", "test_nll"): ("tinker_sft_sweep", "nats per token"),
    ("tinker_sft_sweep", "train_nll"): ("tinker_sft_sweep", "nats per token"),
    ("peft_method_comparison", "test_accuracy"): ("peft_method_comparison", "accuracy"),
    ("peft_method_comparison", "train_loss_last_250_steps"): ("peft_train_loss", "nats per token"),
    ("peft_method_comparison", "forgetting"): ("peft_forgetting", "nats per token, change"),
    ("litgpt_config_hub", "validation_loss"): ("litgpt_config_hub", "nats per token"),
    ("litgpt_config_hub", "mmlu"): ("litgpt_config_hub_mmlu", "percent"),
    ("georgian", "accuracy"): ("georgian", "percent"),
}
"""Table and unit by source and metric; spBLEU of proxylm has one metric per test set instead."""

COSTS = ("seconds", "seconds_per_step", "tokens_per_second", "peak_bytes")
SAME = (
    *("model", "parameters", "active_parameters", "layers", "family", "architecture", "dataset"),
    *("task_kind", "variant", "trainable_parameters", "learning_rate", "steps", "epochs", "examples"),
    *("tokens", "seed", "metric", "higher_is_better", "seconds", "peak_bytes", "outcome"),
)
SAME_ON_GPUS = (
    *("model", "method", "mixed_precision", "adapter_dtype", "attention", "packing", "mean_length"),
    *("sharding", "quantizer", "kernels", "trainer", "peak_kind", "nvidia_bytes", "seconds_per_step"),
    *("tokens_per_second", "peak_bytes", "devices"),
)
FLAGS = {"1": "true", "0": "false", "": ""}
RENAMED = {
    "hidden_size": "width",
    "schedule": "lr_scheduler_type",
    "metric_value": "value",
    "metric_error": "value_error",
}
LINEAR = "down_proj,gate_proj,k_proj,o_proj,q_proj,up_proj,v_proj"
TARGETS = {LINEAR: "all-linear", "k_proj,o_proj,q_proj,v_proj": "attention", "query,value": "q_proj,v_proj"}
RANKS = {"lora": "lora_r", "qlora": "lora_r", "loha": "loha_r", "lokr": "lokr_r"}
SCALES = {"loha": "loha_scale", "lokr": "lokr_scale"}
FAMILIES = {
    "LaMini": ("gpt2", "decoder-only"),
    "Cerebras": ("gpt2", "decoder-only"),
    "GPT2": ("gpt2", "decoder-only"),
    "OPT": ("opt", "decoder-only"),
    "Phi": ("phi", "decoder-only"),
    "BART": ("bart", "encoder-decoder"),
    "T5": ("t5", "encoder-decoder"),
    "Switch Transformer": ("switch_transformers", "encoder-decoder"),
}
SCALED_TASKS = {"flan": "instructions", "wmt19": "translation"}


def main() -> None:
    """Convert and pack the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tables", type=Path, required=True, help="folder for the CSV files")
    parser.add_argument("--output", type=Path, help="Parquet file for shipping")
    chosen = parser.parse_args()
    with report_user_errors():
        files = write_tables(chosen.folder, chosen.tables)
        if chosen.output is not None:
            print(f"{pack(files, chosen.output)} runs in {chosen.output}")


def write_tables(folder: Path, output: Path) -> list[Path]:
    """Write one CSV file per table of ``folder``, and return their paths."""
    tables: dict[str, list[Row]] = {}
    for row in converted(folder):
        tables.setdefault(row["table"], []).append(row)
    output.mkdir(parents=True, exist_ok=True)
    return [_written(output / f"{name}.csv", rows) for name, rows in tables.items()]


def pack(files: Iterable[Path], output: Path) -> int:
    """Write the runs of the tables that have a licence to a Parquet export; return their number."""
    with Store.open(":memory:") as store:
        for file in files:
            runs = read_published(file)
            put_published(
                [run for run in runs if run.published and run.published.licence != NO_LICENCE], store
            )
        return export_parquet(store, output, shareable=False)


def converted(folder: Path) -> Iterator[Row]:
    """Convert the rows of all tables in ``folder``."""
    details = _peft_details(folder / "peft_metamathqa_llama32_3b.json")
    for file in sorted((folder / "published").glob("*.csv")):
        for row in _with_costs_once(map(published_row, _read(file))):
            yield row | (details.get(row["run"].rpartition("/")[0], {}) if row["table"] == PEFT else {})
    if (gpu := folder / "gpu" / "runs.csv").is_file():
        shapes = _configured(folder / "gpu" / "configs")
        yield from (gpu_row(row, shapes[row["config"]]) for row in _read(gpu))
    for name in SCALED_TASKS:
        if (file := folder / "scaling" / f"{name}.csv").is_file():
            yield from (converted for row in _read(file) for converted in scaling_rows(row, name))


def published_row(row: Row) -> Row:
    """Convert a row of ``published/*.csv``; empty for training from scratch, which is no finetuning."""
    if row["method"] == "from_scratch":
        return {}
    table, unit = TABLES.get((row["source"], row["metric"]), (row["source"], "spBLEU"))
    method = {"zero_shot": "zero-shot"}.get(row["method"], row["method"])
    found = {"table": table, "run": row["run_id"], "method": method, "unit": unit, **_origin(row["source"])}
    found |= {name: row[name] for name in SAME} | {ours: row[theirs] for theirs, ours in RENAMED.items()}
    found |= _hyperparameters(row) | _device(row["device"])
    if row["batch"]:  # of a step, on all devices together
        found["per_device_train_batch_size"] = f"{int(row['batch']) / int(found.get('devices', 1)):g}"
    if unit in UNITS:  # which says whether higher is better
        del found["higher_is_better"]
    return _shape(row["model"]) | {name: text for name, text in found.items() if text}


def gpu_row(row: Row, shape: Row) -> Row:
    """Convert a row of ``gpu/runs.csv``; its table tells seconds and bytes only."""
    found = {name: row[name] for name in SAME_ON_GPUS} | _origin(row["source"])
    found |= {name: FLAGS[row[name]] for name in ("gradient_checkpointing", "kbit_upcast")}
    found |= {
        "table": row["source"],
        "run": row["id"],
        "variant": row["stand_in"] and f"shapes of {row['stand_in']}",
        "per_device_train_batch_size": row["batch"],
        "gradient_accumulation_steps": row["accumulation"],
        "max_length": row["length"],
        "dtype": row["weights_dtype"],
        "optim": row["optimizer"],
        "lora_r": row["rank"],
        "target_modules": _targets(row["target_modules"]),
        "modules_to_save": row["modules_to_save"].replace(" ", ","),
        "device": row["gpu"],
        "outcome": {"ok": "completed", "oom": "out_of_memory"}[row["outcome"]],
    }
    return shape | {name: text for name, text in found.items() if text}


def scaling_rows(row: Row, name: str) -> Iterator[Row]:
    """Convert a model's row of ``scaling/*.csv``, with one column per number of training examples."""
    family, architecture = FAMILIES[row["family"]]
    for examples in filter(str.isdigit, row):
        if row[examples]:
            yield (
                _shape(row["config name"])
                | _origin("scaling")
                | {
                    "table": f"rectified_{name}",
                    "run": f"{row['config name']}/{examples}",
                    "model": row["config name"],
                    "parameters": row["size"],
                    "family": family,
                    "architecture": architecture,
                    "dataset": name,
                    "task_kind": SCALED_TASKS[name],
                    "method": "full" if int(examples) else "zero-shot",
                    "examples": examples,
                    "metric": "test_loss",
                    "unit": "nats per token",
                    "value": row[examples],
                }
            )


def _hyperparameters(row: Row) -> Row:
    """Return a row's hyperparameters by Tunecast's names; what has none there stays in ``variant``."""
    method, rank, alpha, variant = row["method"], row["rank"], row["alpha"], row["variant"]
    words = set(re.split(r"[ |;]+", variant))
    found = {"optim": {"AdamW": "adamw"}.get(row["optimizer"], row["optimizer"])}
    found["target_modules"] = "attention" if "attention only" in variant else _targets(row["target_modules"])
    if method in RANKS and rank:
        found[RANKS[method]] = rank
    if method in ("lora", "qlora"):
        found["lora_alpha"] = alpha
        found |= {f"use_{name}": "true" for name in ("dora", "rslora") if name in words}
    if method in SCALES and alpha:
        found[SCALES[method]] = f"{float(alpha) / float(rank):g}"
    if dropout := re.search(r"dropout ([0-9.]+)", variant):
        found["lora_dropout"] = dropout[1]
    if tokens := re.search(r"([0-9]+) virtual tokens", variant) or re.search(r"-tokens([0-9]+)-", variant):
        found["num_virtual_tokens"] = tokens[1]
    return found


def _targets(names: str) -> str:
    joined = ",".join(sorted(names.split()))
    return TARGETS.get(joined, joined)


def _device(text: str) -> Row:
    count, found, name = text.partition("x")
    return {"device": name, "devices": count} if found and count.isdigit() else {"device": text}


def _origin(source: str) -> Row:
    return dict(zip(("source", "commit", "licence"), ORIGINS[source], strict=True))


def _shape(model: str) -> Row:
    return SHAPES[model].cells() if model in SHAPES else {}


def _with_costs_once(rows: Iterable[Row]) -> Iterator[Row]:
    """Leave seconds, bytes and failures in the first row of each run only."""
    seen: set[str] = set()
    for row in filter(None, rows):
        if row["run"] not in seen:
            yield row
        elif "value" in row:
            yield {name: text for name, text in row.items() if name not in COSTS}
        seen.add(row["run"])


def _peft_details(file: Path) -> Mapping[str, Row]:
    """Return what the records of peft's comparison tell beyond its table, by run without its number."""
    records = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    return {f"peft/head/{record['experiment']}": _peft_detail(record) for record in records}


def _peft_detail(record: Mapping[str, Any]) -> Row:
    setup, config = record["train_config"], record["peft_config"] or {}
    seconds = sum(metric.get("train time", 0.0) for metric in record["metrics"])  # without evaluations
    found = {
        "dtype": setup["dtype"],
        "max_length": setup["max_seq_length"],
        "weight_decay": setup["optimizer_kwargs"].get("weight_decay", ""),
        "max_grad_norm": setup["grad_norm_clip"],
        "gradient_checkpointing": str(setup["use_gc"]).lower(),
        "mixed_precision": "bf16" if setup["use_amp"] else "no",
        "adapter_dtype": "float32" if setup["autocast_adapter_dtype"] else setup["dtype"],
        "seconds_per_step": f"{seconds / setup['max_steps']:.5g}",
        "tokens_per_second": f"{record['metrics'][-1]['train total tokens'] / seconds:.5g}",
        **{
            name: config[name]
            for name in ("num_virtual_tokens", "target_r", "init_r", "decompose_factor")
            if name in config
        },
    }
    return {name: str(value) for name, value in found.items()}


def _configured(folder: Path) -> Mapping[str, Row]:
    """Return the facts of the configurations in the folder by name, counted by transformers."""
    from transformers import AutoConfig

    from tunecast.models.describe import describe_config

    found: dict[str, Row] = {}
    for file in sorted(folder.glob("*/config.json")):
        config = json.loads(file.read_text(encoding="utf-8"))
        facts = describe_config(AutoConfig.for_model(**config), file.parent.name)
        names = (
            "parameters",
            "layers",
            "width",
            "feed_forward_width",
            "heads",
            "key_value_heads",
            "vocabulary",
        )
        row = {name: str(getattr(facts, name)) for name in names}
        row |= {"family": facts.family, "tied_embeddings": str(facts.tied_embeddings).lower()}
        if experts := config.get("num_local_experts"):
            used = config["num_experts_per_tok"]
            idle = facts.layers * (experts - used) * 3 * facts.width * facts.feed_forward_width
            row |= {"experts": str(experts), "experts_per_token": str(used)}
            row["active_parameters"] = str(facts.parameters - idle)
        found[file.parent.name] = row
    return found


def _read(file: Path) -> list[Row]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def _written(file: Path, rows: Sequence[Row]) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return file


if __name__ == "__main__":
    main()
