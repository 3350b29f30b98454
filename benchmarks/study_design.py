"""The design of ``scaling_study.py``: its runs as cells, and families of cells that differ in one factor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from tunecast.records import Outcome, Run
from tunecast.scaling import Curve, LossRow, LossTable, build_table

METHODS = ("full", "lora", "prompt_tuning")
AMOUNT = {"lora": "lora_r", "prompt_tuning": "num_virtual_tokens"}
COMPARED = {"full": 0, "lora": 8, "prompt_tuning": 16}
"""Each method's pipeline for crossovers, fixed before any result was seen."""
MEASURES = {"test": "final test loss", "stopped": "early-stopped validation loss"}
SLOT = "model_parameters"
"""Tables have one factor X. It is always in this column; the package draws new curves by it."""


@dataclass(frozen=True)
class RunSpec:
    """One completed run: its settings and its two losses.

    Args:
        task: The dataset.
        model: The base model.
        method: The method.
        amount: LoRA rank or prompt length, 0 for full.
        planned: Unique examples available to the run.
        data_size: Unique examples that it saw.
        parameters: The model's parameters.
        body: Parameters outside the embeddings.
        pretraining: Pretraining tokens.
        last: Whether no model of this size saw more pretraining tokens.
        losses: The loss by measure.
        noise: Half the 95% interval of the log test loss.
    """

    task: str
    model: str
    method: str
    amount: int
    planned: int
    data_size: int
    parameters: int
    body: int
    pretraining: int
    last: bool
    losses: Mapping[str, float]
    noise: float = 0.0

    @property
    def pipeline(self) -> str:
        """The method and its amount."""
        return f"{self.method} {self.amount}" if self.amount else self.method


@dataclass(frozen=True)
class Factor:
    """One X of a joint law.

    Args:
        name: For tables.
        value: X of a cell.
        group: Other properties of the model that are held fixed.
        chosen: Which cells count.
        of_method: Whether X is the method's own amount, so that a family spans pipelines.
    """

    name: str
    value: Callable[[RunSpec], float]
    group: Callable[[RunSpec], str]
    chosen: Callable[[RunSpec], bool] = lambda cell: True
    of_method: bool = False

    def family(self, cell: RunSpec) -> str:
        """The key of cells of one task and method that differ only in X and data size."""
        return self.group(cell) if self.of_method else f"{cell.amount} {self.group(cell)}"

    def scope(self, cell: RunSpec) -> str:
        """The key of cells within which a complete family has every X."""
        return cell.method if self.of_method else self.group(cell)


def _rounded(tokens: int) -> str:
    return f"{tokens:.1e}"


MODEL = Factor("model, last checkpoints", lambda c: c.parameters, lambda c: "last", lambda c: c.last)
BODY = replace(MODEL, name="model without embeddings", value=lambda c: c.body)
EQUAL = Factor("model, equal pretraining", lambda c: c.parameters, lambda c: _rounded(c.pretraining))
PRETRAINING = Factor("pretraining", lambda c: c.pretraining, lambda c: str(c.parameters))
UNANNEALED = replace(PRETRAINING, name="pretraining, not annealed", chosen=lambda c: not c.last)
PEFT = Factor("PEFT", lambda c: c.amount, lambda c: c.model, lambda c: c.amount > 0, of_method=True)
FACTORS = (MODEL, BODY, EQUAL, PRETRAINING, UNANNEALED, PEFT)


def read_cells(runs: Iterable[Run]) -> list[RunSpec]:
    """The completed and tested runs; only the first run of each setting."""
    done = [
        r
        for r in runs
        if r.outcome is Outcome.COMPLETED and r.test is not None and r.pipeline.method in METHODS
    ]
    most: dict[int, int] = {}
    for run in done:
        size, tokens = run.model.parameters, run.model.pretraining_tokens or 0
        most[size] = max(most.get(size, 0), tokens)
    cells: dict[tuple[str, str, str, int], RunSpec] = {}
    for run in done:
        cell = _cell(run, most[run.model.parameters])
        cells.setdefault((cell.task, cell.model, cell.pipeline, cell.planned), cell)
    return list(cells.values())


def _cell(run: Run, most_tokens: int) -> RunSpec:
    method, tokens = run.pipeline.method, run.model.pretraining_tokens or 0
    best = run.best_point
    if run.test is None or best is None:
        raise ValueError(f"run {run.id} has no test score or no curve")
    known = run.test.loss_low is not None and run.test.loss_high is not None
    return RunSpec(
        run.task.dataset,
        run.task.model,
        method,
        int(run.pipeline.number(AMOUNT[method])) if method in AMOUNT else 0,
        run.unique_examples,
        run.examples_seen,
        run.model.parameters,
        run.model.parameters - run.model.embedding_parameters,
        tokens,
        tokens == most_tokens,
        {"test": run.test.loss, "stopped": best.validation.loss},
        float(np.log((run.test.loss_high or 1) / (run.test.loss_low or 1)) / 2) if known else 0.0,
    )


def complete_curves(cells: Sequence[RunSpec]) -> list[RunSpec]:
    """Cells of the curves that have as many sizes as the fullest curve."""
    counts = Counter(curve_key(cell) for cell in cells)
    fullest = max(counts.values(), default=0)
    return [cell for cell in cells if counts[curve_key(cell)] == fullest >= 3]


def curve_key(cell: RunSpec) -> tuple[str, str, str]:
    return cell.task, cell.model, cell.pipeline


def keys_of(cells: Iterable[RunSpec], methods: Sequence[str] = METHODS) -> list[tuple[str, str]]:
    """The existing (method, task) groups."""
    tasks = sorted({cell.task for cell in cells})
    return list(product(methods, tasks))


def chosen_pipelines(cells: Iterable[RunSpec]) -> list[RunSpec]:
    """Each method's compared pipeline."""
    return [cell for cell in cells if cell.amount == COMPARED[cell.method]]


def values_of(cells: Iterable[RunSpec], factor: Factor) -> dict[str, set[float]]:
    """Every existing X, by scope."""
    wanted: dict[str, set[float]] = {}
    for cell in filter(factor.chosen, cells):
        wanted.setdefault(factor.scope(cell), set()).add(factor.value(cell))
    return wanted


def matched(cells: Sequence[RunSpec], factor: Factor, method: str, task: str) -> list[list[RunSpec]]:
    """Cells of one method and task that differ only in X and have every X; curves may be incomplete."""
    wanted = values_of(cells, factor)
    groups: dict[tuple[str, int], list[RunSpec]] = {}
    for cell in filter(factor.chosen, cells):
        if (cell.method, cell.task) == (method, task):
            groups.setdefault((factor.family(cell), cell.planned), []).append(cell)
    return [group for group in groups.values() if len(group) == len(wanted[factor.scope(group[0])]) >= 2]


def factor_table(
    cells: Sequence[RunSpec], factor: Factor, method: str, task: str, measure: str
) -> LossTable | None:
    """The complete families of one method and task as a table with the only factor X; None without any.

    A family is complete if it has every existing X of its group of models (for a method's own amount: every X
    of the method), and at least two.
    """
    wanted = values_of(cells, factor)
    families: dict[str, list[RunSpec]] = {}
    for cell in filter(factor.chosen, cells):
        if (cell.method, cell.task) == (method, task):
            families.setdefault(factor.family(cell), []).append(cell)
    rows = []
    for family, members in families.items():
        expected = wanted[factor.scope(members[0])]
        if len(expected) >= 2 and {factor.value(cell) for cell in members} == expected:
            # The package lets curves of different methods differ in level, so families may differ too.
            labels = {"method": family}
            rows += [
                LossRow(cell.losses[measure], cell.data_size, labels, {SLOT: float(factor.value(cell))})
                for cell in members
            ]
    return build_table(rows, ["method"], f"{factor.name}, {method}, {task}") if rows else None


def families_of(table: LossTable) -> list[list[Curve]]:
    """The curves of a table by family, smallest X first."""
    members: dict[str, list[Curve]] = {}
    for curve in table.curves:
        members.setdefault(curve.labels["method"], []).append(curve)
    return [sorted(curves, key=lambda curve: curve.factors[SLOT]) for curves in members.values()]
