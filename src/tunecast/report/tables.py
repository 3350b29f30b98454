"""Tables of a report, as plain text cells that the template escapes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tunecast.records import ZERO_SHOT, Machine, Run, Score
from tunecast.report.numbers import MISSING, compact, decimal, finite, interval, rate, storage
from tunecast.report.trials import DrawnTrial
from tunecast.report.wording import RIVAL_NAMES, contender_name, describe_pipeline, training_text
from tunecast.results import Contender, SessionRecord

FAILURES_SHOWN = 50
ShownInterval = Callable[[float | None, float | None, float | None], str]
"""Writes a value and the ends of its interval."""


@dataclass(frozen=True)
class Table:
    """Rows of text under a header.

    Args:
        rows: The cells; a second line of a cell is shown smaller.
        numeric: Indices of the columns that are aligned to the right.
        winner: Index of the row to highlight, None for no row.
        note: A sentence below the table.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    winner: int | None = None
    note: str = ""


def comparison_table(record: SessionRecord, runs: Sequence[Run]) -> Table:
    """Build the table of all contenders with their validation and test scores."""
    by_id = {run.id: run for run in runs}
    titles, scores = score_cells(record, _two_lines)
    header = (*titles, "tokens trained on")
    trained = [tokens_trained_on(one, by_id.get(one.run)) for one in record.models]
    trained += [MISSING] * len(record.constant_answers)
    rows = [(*cells, tokens) for cells, tokens in zip(scores, trained, strict=True)]
    winner = next((index for index, one in enumerate(record.models) if one.name == record.winner), None)
    reading = "Small figures are 95% intervals. Lower is better for losses and bits per byte."
    note = f"{split_sizes(record)} {reading}"
    return Table(header, tuple(rows), frozenset(range(1, len(header))), winner, note)


def scorings(record: SessionRecord) -> str:
    """Say how often the test split was scored."""
    if record.test_scorings == 1:
        return "once, afterwards"
    return f"{record.test_scorings} times, after each budget that the session was given"


def split_sizes(record: SessionRecord) -> str:
    """Say which examples chose the winner and which are only reported."""
    first = record.contenders[0]
    test = f"{first.test.examples:,} test examples"
    if first.validation is None:
        return f"Scored on {test}, which also chose the winner."
    chosen = first.validation.metric_examples or first.validation.examples
    return f"{chosen:,} validation examples chose the winner; {test} were scored {scorings(record)}."


def score_cells(record: SessionRecord, shown: ShownInterval) -> tuple[list[str], list[list[str]]]:
    """Build the header, and a row of name and scores for each contender, then for each constant answer.

    The measure that decided comes first.
    """
    metric = next((one.test.metric_name for one in record.contenders if one.test.metric is not None), "")
    by_metric = record.objective != "loss"
    validated = any(one.validation for one in record.contenders)
    tested = ["test loss (95%)", *([f"test {metric} (95%)"] if metric else [])]
    header = [
        "",
        *([f"validation {record.objective}"] if validated else []),
        *(reversed(tested) if by_metric else tested),
        "nats per completion",
        "bits per byte",
    ]
    rivals = [(contender_name(one), one.test, one.validation) for one in record.models]
    rivals += [(RIVAL_NAMES.get(one.name, one.name), one.test, None) for one in record.constant_answers]
    rows = []
    for name, test, validation in rivals:
        chosen_by = [_cell(validation, by_metric, shown)] if validated else []
        scores = [_cell(test, False, shown), *([_cell(test, True, shown)] if metric else [])]
        extra = [decimal(finite(test.nats_per_completion), 2), decimal(finite(test.bits_per_byte))]
        rows.append([name, *chosen_by, *(reversed(scores) if by_metric else scores), *extra])
    return header, rows


def _cell(score: Score | None, by_metric: bool, shown: ShownInterval) -> str:
    if score is None:
        return MISSING
    if by_metric:
        return shown(score.metric, score.metric_low, score.metric_high)
    return shown(finite(score.loss), score.loss_low, score.loss_high)


def tokens_trained_on(contender: Contender | None, run: Run | None) -> str:
    """Count the tokens that a contender's checkpoint had seen in its run."""
    points = run.curve if contender and run else ()
    seen = next((point.tokens_seen for point in points if contender and point.step == contender.step), None)
    return compact(seen)


def contender_pipelines(record: SessionRecord) -> dict[str, str]:
    """Write every contender's pipeline in one line, and how much it was trained."""
    return {contender_name(one): _pipeline_text(one) for one in record.models}


def _pipeline_text(contender: Contender) -> str:
    if contender.pipeline.method == ZERO_SHOT.method:
        return "nothing is trained"
    separator = "\u00a0· "
    parts = (describe_pipeline(contender.pipeline, separator), training_text(contender))
    return separator.join(filter(None, parts))


def _two_lines(value: float | None, low: float | None, high: float | None) -> str:
    return f"{decimal(value)}\n{interval(low, high)}".strip()


def failures_table(trials: Sequence[DrawnTrial]) -> Table | None:
    """Build the table of failed trials; None if none failed."""
    failed = [trial for trial in trials if trial.failed]
    if not failed:
        return None
    rows = [
        (
            trial.run.outcome.value.replace("_", " "),
            trial.run.error.kind if trial.run.error else MISSING,
            trial.method,
            rate(trial.learning_rate),
            f"{trial.share:.0%}",
            decimal(trial.run.final_loss),
            MISSING if trial.peak_bytes is None else storage(trial.peak_bytes),
        )
        for trial in failed[:FAILURES_SHOWN]
    ]
    header = ("outcome", "error", "method", "learning rate", "reached", "last loss", "peak memory")
    note = f"{FAILURES_SHOWN} of {len(failed):,} failures are listed." if len(failed) > FAILURES_SHOWN else ""
    return Table(header, tuple(rows), frozenset({3, 4, 5, 6}), None, note)


def data_facts(run: Run) -> dict[str, str]:
    """Describe the dataset and the base model."""
    counts = ", ".join(f"{count:,} {split}" for split, count in run.dataset.examples.items())
    return {
        "dataset": f"{run.dataset.name} ({run.dataset.format})",
        "examples": counts or MISSING,
        "training examples available": f"{run.unique_examples:,}",
        "fingerprint": run.dataset.fingerprint,
        "longest sequence": f"{run.max_length:,} tokens",
        "base model": f"{run.model.name} ({run.model.family}, {compact(run.model.parameters)} parameters)",
    }


def hardware_facts(machine: Machine) -> dict[str, str]:
    """Describe the machine as measured."""
    rates = ", ".join(
        f"{dtype} {value / 1e9:.3g} GFLOP/s"
        for dtype, value in machine.flops_per_second.items()
        if finite(value)
    )
    return {
        "device": f"{machine.device}, {machine.cores} cores, {machine.threads} threads",
        "main memory": storage(machine.memory_bytes),
        "device memory": storage(machine.device_memory_bytes),
        "measured rate": rates or MISSING,
        "measured bandwidth": f"{storage(machine.bandwidth_bytes_per_second)}/s",
    }


def version_facts(record: SessionRecord) -> dict[str, str]:
    """List the versions of the software that ran the session."""
    return {name: str(version) for name, version in asdict(record.versions).items()}


def pretty_json(value: Mapping[str, Any]) -> str:
    """Write a configuration as indented JSON; values that JSON does not know become text."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
