"""Fits the formulas of bytes and seconds to dry runs, and prints their errors.

Every family of ``tunecast.models.layer_specs`` is dry-run on the meta device in each way of training: three
shapes, two batches, bfloat16 on CUDA and on the CPU, float32 on the CPU. A dry run takes some 0.2 s. Results
are kept in ``--results`` and reused. ``--coefficients`` writes the file that the package reads.

    python benchmarks/closed_form.py [--family llama] [--shape small]
        [--coefficients src/tunecast/estimate/coefficients.json]

Prints the worst errors of the formulas with the new coefficients, the same errors for each family with
coefficients fitted to the other families, and the errors by the power that joins traffic and kernel starts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.optimize import nnls

from tunecast.estimate import Workload, cached_dry_run, estimate_memory
from tunecast.estimate.closed_form import amounts, bytes_held, parts, step_seconds, table_key
from tunecast.estimate.coefficients import FILE, Coefficients, Table, fitted
from tunecast.estimate.forms import Form, form_of
from tunecast.estimate.seconds import dry_run_seconds
from tunecast.methods.workload import workload_of
from tunecast.models.describe import describe_config
from tunecast.models.layer_specs import LAYER_SPECS
from tunecast.records import Machine, ModelFacts, Pipeline, Scalar

GPU = Machine("cuda", 8, 8, 64 * 10**9, 85 * 10**9, {"float32": 67e12, "bfloat16": 989e12}, 3.35e12)
CPU = Machine("cpu", 2, 2, 25 * 10**9, 25 * 10**9, {"float32": 1e11, "bfloat16": 2.2e11}, 3e10)
MACHINES: Mapping[str, Machine] = {"cuda": GPU, "cpu": CPU}
"""An H100's data sheet, and two cores of a server."""
COMPUTE: tuple[tuple[Literal["cpu", "cuda"], Literal["float32", "bfloat16"]], ...] = (
    ("cuda", "bfloat16"),
    ("cpu", "float32"),
    ("cpu", "bfloat16"),
)
BATCHES = ((4, 192, 64), (2, 640, 128))
"""Examples, tokens of each, label tokens of each."""
WEIGHTS = ("weights", "adapters")
BEFORE = ("forward", "opening", "top")
"""Moments of a dry run before gradients take the place of activations."""
POWERS = (1.5, 2.0, 3.0, 4.0)
FITTED_TO = (
    "3,240 dry runs of the families in tunecast.models.layer_specs: widths 576, 2,048 and 3,584 at 24 to 30 "
    "layers, 4 sequences of 192 tokens and 2 of 640, bfloat16 on CUDA and on the CPU, float32 on the CPU"
)
"""The data behind the shipped coefficients. Steps are off by 3.6%, 2.6%, 2.6% and 2.7% on average with powers
of 1.5, 2, 3 and 4, and by 35%, 27%, 23% and 23% at worst."""
SMALLEST = 0.05
"""Coefficients below it are left out."""

RANK: Mapping[str, Scalar] = {"lora_r": 32, "lora_alpha": 64, "lora_dropout": 0.0}
WAYS: Mapping[str, Pipeline] = {
    "full": Pipeline("full"),
    "lora": Pipeline("lora", {**RANK, "target_modules": "all-linear"}),
    "dropout": Pipeline("lora", {**RANK, "lora_dropout": 0.1, "target_modules": "all-linear"}),
    "attention": Pipeline("lora", {**RANK, "target_modules": "attention"}),
    "ia3": Pipeline("ia3"),
}


class Shape(NamedTuple):
    """Sizes of a model; heads of the Gemmas and the GLMs have a width of their own."""

    width: int
    inner: int
    layers: int
    heads: int
    groups: int
    vocabulary: int
    gemma_head: int
    glm_head: int


SHAPES: Mapping[str, Shape] = {
    "small": Shape(576, 1536, 30, 9, 3, 49_152, 96, 64),
    "medium": Shape(2048, 8192, 24, 32, 32, 32_000, 96, 128),
    "large": Shape(3584, 18_944, 28, 28, 4, 152_064, 256, 128),
}
NEW_FALCON = "falcon_new"
"""Falcon as of 40B: keys and values in groups, two norms."""
FAMILIES = sorted([*LAYER_SPECS, NEW_FALCON])
GPT = {
    "hidden_size": "n_embd",
    "intermediate_size": "n_inner",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
}
OWN_NAMES: Mapping[str, Mapping[str, str]] = {
    "falcon": {"intermediate_size": "ffn_hidden_size"},
    "gpt2": GPT,
    "gpt_bigcode": GPT,
    "opt": {"intermediate_size": "ffn_dim"},
}
"""Names of a family's fields where they differ from Llama's."""
UNGROUPED = ("falcon", "gpt2", "gpt_bigcode", "gpt_neox", "opt")
"""Families without a field ``num_key_value_heads``."""


@dataclass(frozen=True)
class Case:
    """One dry run."""

    family: str
    shape: str
    way: str
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    batch: int
    length: int
    labels: int


@dataclass(frozen=True)
class Seen:
    """The result of a case's dry run.

    Args:
        case: The case.
        total: Bytes at the peak of training, the framework's included.
        held: Bytes beside weights and adapters at the highest moment before gradients take over.
        kernels: Kernels of the forward and the backward pass.
        moved: Bytes that the kernels without FLOPs move.
        scoring_kernels: Kernels of scoring.
        scoring_moved: Bytes that scoring's kernels without FLOPs move.
        step: Seconds of a step at full efficiency.
        scoring: Seconds of scoring at full efficiency.
    """

    case: Case
    total: float
    held: float
    kernels: float
    moved: float
    scoring_kernels: float
    scoring_moved: float
    step: float
    scoring: float


def config_of(family: str, shape: Shape) -> Any:
    """A configuration of a family; all layers are alike, so a dry run needs only two of them."""
    from transformers import AutoConfig

    model_type = "falcon" if family == NEW_FALCON else family
    fields: dict[str, Any] = {
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": 2048,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    own = OWN_NAMES.get(model_type, {})
    fields = {own.get(name, name): value for name, value in fields.items()}
    if model_type not in UNGROUPED:
        fields["num_key_value_heads"] = shape.groups
    if family == NEW_FALCON:
        fields |= {"num_kv_heads": shape.groups, "new_decoder_architecture": True}
    if family == "opt":
        fields["word_embed_proj_dim"] = shape.width
    if family in ("gemma", "gemma2", "gemma3_text"):
        fields["head_dim"] = shape.gemma_head
    if family in ("glm", "glm4"):
        fields["head_dim"] = shape.glm_head
    if family in ("helium", "hunyuan_v1_dense", "ministral", "seed_oss"):
        fields["head_dim"] = shape.width // shape.heads
    if family == "smollm3":
        fields["no_rope_layers"] = [1] * shape.layers
    if family == "ministral":
        fields["sliding_window"] = 1024
    if family in ("cohere2", "exaone4", "gemma2", "gemma3_text", "ministral", "olmo3", "smollm3"):
        fields["layer_types"] = ["full_attention"] * shape.layers
    return AutoConfig.for_model(model_type, **fields)


@cache
def described(family: str, shape: str) -> tuple[Any, ModelFacts]:
    """Configuration and facts of a family in one of :data:`SHAPES`."""
    config = config_of(family, SHAPES[shape])
    return config, describe_config(config, family)


def workload(case: Case) -> Workload:
    """The case as an estimate takes it."""
    _, facts = described(case.family, case.shape)
    sizes = {"batch_size": case.batch, "max_length": case.length, "label_tokens": case.labels}
    found = workload_of(WAYS[case.way], facts, dtype=case.dtype, device=case.device, **sizes)
    if found is None:
        raise ValueError(f"there is no footprint for {case}")
    return found


def form(case: Case) -> Form:
    """The case as the formulas see it."""
    _, facts = described(case.family, case.shape)
    found = form_of(facts, workload(case))
    if found is None:
        raise ValueError(f"there is no formula for {case}")
    return found


def dry_run(case: Case) -> Seen:
    """Run a case on the meta device."""
    config, _ = described(case.family, case.shape)
    request = workload(case)
    memory = estimate_memory(config, request)
    seconds = dry_run_seconds(config, request, MACHINES[case.device], efficiency=1.0)
    observed = cached_dry_run(config, request).observed
    passes = [observed.work["forward"], observed.work["backward"]]
    held = [
        sum(count for part, count in observed.training[name].parts.items() if part not in WEIGHTS)
        for name in BEFORE
        if name in observed.training
    ]
    return Seen(
        case,
        total=sum(memory.training_parts.values()) + memory.parts["framework"],
        held=max(held),
        kernels=sum(work.launches for work in passes),
        moved=sum(_traffic(work) for work in passes),
        scoring_kernels=observed.work["scoring"].launches,
        scoring_moved=_traffic(observed.work["scoring"]),
        step=seconds.step,
        scoring=seconds.scoring_batch or 0.0,
    )


def _traffic(work: Any) -> int:
    return sum(moved * times for (flops, moved, _), times in work.kernels.items() if not flops)


def cases(families: Iterable[str], shapes: Iterable[str]) -> list[Case]:
    """All cases of these families and shapes."""
    return [
        Case(family, shape, way, device, dtype, *batch)
        for family in families
        for shape in shapes
        for device, dtype in COMPUTE
        for way in WAYS
        for batch in BATCHES
    ]


def fit(seen: Sequence[Seen]) -> Coefficients:
    """Fit non-negative coefficients of every table by least squared relative errors; bytes held are relative
    to the whole peak."""
    groups: dict[tuple[str, str], list[Seen]] = defaultdict(list)
    for one in seen:
        groups[table_key(form(one.case))].append(one)

    def table(
        given: Callable[[Seen], Mapping[str, float]],
        wanted: Callable[[Seen], float],
        whole: Callable[[Seen], float],
        left_out: Callable[[str], Sequence[str]],
    ) -> Table:
        return {
            key: _coefficients([given(one) for one in group], group, wanted, whole, left_out(key[1]))
            for key, group in sorted(groups.items())
        }

    def none(_: str) -> Sequence[str]:
        return ()

    return Coefficients(
        held=table(
            _amounts,
            lambda one: one.held,
            lambda one: one.total,
            lambda way: ("outputs", "ends", "table", *(("copies",) if way != "full" else ())),
        ),
        kernels=table(_parts, lambda one: one.kernels, lambda one: one.kernels, none),
        moved=table(_amounts, lambda one: one.moved, lambda one: one.moved, _not_moved),
        scoring_kernels=table(_parts, lambda one: one.scoring_kernels, lambda one: one.scoring_kernels, none),
        scoring_moved=table(
            _amounts, lambda one: one.scoring_moved, lambda one: one.scoring_moved, _not_moved
        ),
        power=fitted().power,
    )


def as_json(coefficients: Coefficients, fitted_to: str) -> str:
    """Write coefficients as :func:`fitted` reads them, with a description of the data they were fitted to."""
    tables = coefficients._asdict()
    power = tables.pop("power")
    named = {
        name: {", ".join(key): dict(factors) for key, factors in table.items()}
        for name, table in tables.items()
    }
    made_by = f"python benchmarks/closed_form.py --coefficients src/tunecast/estimate/{FILE}"
    whole = {"fitted_to": fitted_to, "made_by": made_by, "power": power, "tables": named}
    return json.dumps(whole, indent=1) + "\n"


def _not_moved(way: str) -> Sequence[str]:
    return ("rank", "dropped", *(("copies", "table") if way != "full" else ()))


def _amounts(one: Seen) -> Mapping[str, float]:
    case = one.case
    _, facts = described(case.family, case.shape)
    tokens = case.batch * case.length
    return amounts(facts, form(case), tokens, case.length, case.batch * case.labels)


def _parts(one: Seen) -> Mapping[str, float]:
    _, facts = described(one.case.family, one.case.shape)
    return parts(facts, form(one.case))


def _coefficients(
    given: Sequence[Mapping[str, float]],
    group: Sequence[Seen],
    wanted: Callable[[Seen], float],
    whole: Callable[[Seen], float],
    left_out: Sequence[str],
) -> dict[str, float]:
    names = [name for name in given[0] if name not in left_out]
    weights = np.array([1 / whole(one) for one in group])
    rows = np.array([[row[name] for name in names] for row in given], dtype=float)
    targets = np.array([wanted(one) for one in group], dtype=float)
    found, _ = nnls(rows * weights[:, None], targets * weights)
    return {
        name: float(f"{value:.3g}") for name, value in zip(names, found, strict=True) if value >= SMALLEST
    }


def errors(seen: Sequence[Seen], tables: Coefficients) -> list[tuple[float, float, float]]:
    """Relative errors of bytes, seconds of a step and seconds of scoring, by formula against each dry run."""
    found = []
    for one in seen:
        case = one.case
        _, facts = described(case.family, case.shape)
        of = form(case)
        held = bytes_held(
            facts, of, batch=case.batch, length=case.length, label_tokens=case.labels, tables=tables
        )
        seconds = step_seconds(
            facts,
            of,
            MACHINES[case.device],
            batch=case.batch,
            length=case.length,
            label_tokens=case.labels,
            efficiency=1.0,
            tables=tables,
        )
        scoring = seconds.scoring_batch or 0.0
        found.append((held / one.total - 1, seconds.step / one.step - 1, scoring / one.scoring - 1))
    return found


def worst(seen: Sequence[Seen], tables: Coefficients) -> str:
    """The largest errors as cells of a Markdown table."""
    columns = zip(*errors(seen, tables), strict=True)
    return " | ".join(f"{max(abs(error) for error in column):.0%}" for column in columns)


def report(seen: Sequence[Seen], tables: Coefficients) -> str:
    """The errors as Markdown."""
    rows = ["| families | bytes | seconds of a step | seconds of scoring |", "| --- | --- | --- | --- |"]
    for device, dtype in COMPUTE:
        for gated in (True, False):
            some = [
                one
                for one in seen
                if (one.case.device, one.case.dtype) == (device, dtype) and _is_gated(one) == gated
            ]
            if some:
                name = "with a gate" if gated else "without"
                rows.append(f"| {name}, {dtype} on {device} | {worst(some, tables)} |")
    families = sorted({one.case.family for one in seen})
    if len(families) > 1:
        rows += ["", "With coefficients fitted to the other families:", "", *rows[:2]]
        for family in families:
            own = [one for one in seen if one.case.family == family]
            others = fit([one for one in seen if one.case.family != family])
            rows.append(f"| {family} | {worst(own, others)} |")
    rows += ["", "| power | step: mean error | worst | scoring: mean error | worst |", "|" + " --- |" * 5]
    for power in POWERS:
        columns = list(zip(*errors(seen, tables._replace(power=power)), strict=True))
        cells = [
            f"{rule(abs(error) for error in column):.1%}" for column in columns[1:] for rule in (fmean, max)
        ]
        rows.append(f"| {power} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _is_gated(one: Seen) -> bool:
    return LAYER_SPECS[described(one.case.family, one.case.shape)[1].family].gated


def _read(results: Path) -> dict[Case, Seen]:
    if not results.exists():
        return {}
    rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    made = [Seen(**{**row, "case": Case(**row["case"])}) for row in rows]
    return {one.case: one for one in made}


def main() -> None:
    """Make the missing dry runs, fit, and print the errors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", action="append", choices=FAMILIES, help="default: all")
    parser.add_argument("--shape", action="append", choices=list(SHAPES), help="default: all")
    parser.add_argument("--results", type=Path, default=Path("closed-form.jsonl"))
    parser.add_argument("--coefficients", type=Path, help="file for the fitted coefficients")
    arguments = parser.parse_args()
    wanted = cases(arguments.family or FAMILIES, arguments.shape or SHAPES)
    known = _read(arguments.results)
    with arguments.results.open("a", encoding="utf-8") as stream:
        for case in wanted:
            if case not in known:
                known[case] = dry_run(case)
                stream.write(json.dumps(asdict(known[case])) + "\n")
                stream.flush()
    seen = [known[case] for case in wanted]
    print(f"{len(seen)} dry runs", file=sys.stderr)
    tables = fit(seen)
    print(report(seen, tables))
    if arguments.coefficients:
        arguments.coefficients.write_text(as_json(tables, FITTED_TO), encoding="utf-8")


if __name__ == "__main__":
    main()
