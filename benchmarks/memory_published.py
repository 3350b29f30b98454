"""Compares memory and seconds with published finetunings of Llama-3.2-3B on MetaMathQA by PEFT.

The runs are those of PEFT's method comparison. Every row is predicted from its peft configuration alone, at
the limits of the published setup (batch 4, 768 tokens, evaluation batch 50, up to 300 new tokens). Two
constants are shown beside it (22.5 GB, full finetuning 38.5 GB).

    python benchmarks/memory_published.py RUNS.json

``RUNS.json`` is a list of objects with ``experiment``, ``peft_config``, ``train_config``,
``memory_max_bytes`` and ``metrics`` (its ``train time`` entries add up to the seconds of all training steps).
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunecast.errors import UserError
from tunecast.estimate import Workload, estimate_memory
from tunecast.estimate.seconds import dry_run_seconds
from tunecast.hardware.accelerators import as_machine, find_accelerator

CORE = ("lora", "ia3", "prefixtuning", "prompttuning", "full-finetuning")
CALIBRATION_ROW = "lora/llama-3.2-3B-rank32"
CONSTANT_GB, CONSTANT_FULL_GB = 22.5, 38.5
EVALUATION_PROMPT = 300
"""Longest question of the evaluation in tokens; the published figures peak in training."""


@dataclass(frozen=True)
class Row:
    experiment: str
    measured_gb: float
    predicted_gb: float
    measured_seconds: float
    predicted_seconds: float

    @property
    def is_core(self) -> bool:
        return self.experiment.split("/")[0] in CORE

    @property
    def constant_gb(self) -> float:
        return CONSTANT_FULL_GB if self.experiment.startswith(("full", "osf")) else CONSTANT_GB


def llama_3b() -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=128_256,
        hidden_size=3072,
        intermediate_size=8192,
        num_hidden_layers=28,
        num_attention_heads=24,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
        max_position_embeddings=131_072,
    )


def predict(run: dict[str, Any]) -> Row:
    """Memory at the longest batch, seconds at the mean one."""
    setup = run["train_config"]
    request = Workload(
        adapter=run["peft_config"] or None,
        batch_size=setup["batch_size"],
        max_length=setup["max_seq_length"],
        eval_batch_size=setup["batch_size_eval"],
        max_new_tokens=setup["generation_kwargs"]["max_new_tokens"],
        prompt_length=EVALUATION_PROMPT,
        convention="hf-trainer",
        adapter_dtype=None if setup["autocast_adapter_dtype"] else "bfloat16",
    )
    memory = _memory(request)
    steps, tokens = setup["max_steps"], run["metrics"][-1]["train total tokens"]
    typical = Workload(
        adapter=request.adapter,
        batch_size=request.batch_size,
        max_length=round(tokens / steps / request.batch_size),
        convention="hf-trainer",
        adapter_dtype=request.adapter_dtype,
    )
    machine = as_machine(find_accelerator(run["accelerator"]))
    step = dry_run_seconds(llama_3b(), typical, machine, efficiency=1.0).step
    return Row(
        run["experiment"],
        run["memory_max_bytes"] / 1e9,
        memory / 1e9,
        sum(metric.get("train time", 0.0) for metric in run["metrics"]),
        step * steps,
    )


def _memory(request: Workload) -> int:
    """Peak bytes of tensors; losses were scored in batches of the training's size, only generation in 50."""
    from dataclasses import replace

    scored = estimate_memory(llama_3b(), replace(request, eval_batch_size=None, max_new_tokens=0))
    generated = estimate_memory(llama_3b(), replace(request, max_length=1))
    return max(scored.training_peak_bytes, scored.evaluation_peak_bytes, generated.evaluation_peak_bytes)


def report(rows: Sequence[Row], missing: Sequence[str]) -> None:
    for row in sorted(rows, key=lambda row: row.measured_gb):
        error = row.predicted_gb / row.measured_gb - 1
        print(f"{row.experiment:<58}{row.measured_gb:8.2f}{row.predicted_gb:8.2f} GB {error:+7.1%}")
    factor = statistics.median(row.measured_gb / row.predicted_gb for row in rows)
    print(f"\nallocator factor fitted to all rows: {factor:.3f}")
    groups = {"core": [row for row in rows if row.is_core], "other": [row for row in rows if not row.is_core]}
    for name, group in {**groups, "all": list(rows)}.items():
        measured = [row.measured_gb for row in group]
        _line(f"{name}, nothing fitted", measured, [row.predicted_gb for row in group])
        _line(f"{name}, one factor", measured, [factor * row.predicted_gb for row in group])
        _line(f"{name}, two constants", measured, [row.constant_gb for row in group])
    _seconds({**groups, "all": list(rows)})
    print(f"\nnot predicted: {', '.join(missing) or 'none'}")


def _seconds(groups: dict[str, list[Row]]) -> None:
    known = {row.experiment: row for row in groups["all"]}
    reference = known.get(CALIBRATION_ROW)
    if reference is None:
        print(f"\nseconds are not compared: {CALIBRATION_ROW} is missing, which gives the efficiency")
        return
    factor = reference.measured_seconds / reference.predicted_seconds
    print(f"\nseconds of training steps, efficiency from {CALIBRATION_ROW}: {1 / factor:.2f}")
    for name, group in groups.items():
        measured = [row.measured_seconds for row in group]
        _line(f"{name}, roofline", measured, [factor * row.predicted_seconds for row in group])
        _line(f"{name}, constant", measured, [reference.measured_seconds] * len(group))


def _line(name: str, measured: Sequence[float], predicted: Sequence[float]) -> None:
    from scipy.stats import spearmanr

    errors = [p / m - 1 for m, p in zip(measured, predicted, strict=True)]
    mean = statistics.fmean(abs(error) for error in errors)
    rank = float(spearmanr(measured, predicted)[0]) if len(set(predicted)) > 1 else float("nan")
    print(
        f"{name:<24} mean error {mean:6.1%}  lowest {min(errors):+6.1%}  rank correlation {rank:5.2f}"
        f"  ({len(errors)} runs)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("runs", type=Path, help="JSON list of published runs")
    path: Path = parser.parse_args().runs
    if not path.is_file():
        parser.exit(0, f"skipped: there is no file {path}; the published runs are not part of this project\n")
    rows, missing = [], []
    for run in json.loads(path.read_text(encoding="utf-8")):
        try:
            rows.append(predict(run))
        except UserError as error:
            missing.append(f"{run['experiment']} ({error.what})")
    report(rows, missing)


if __name__ == "__main__":
    main()
