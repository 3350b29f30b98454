"""One run as names and texts: what a person asks of it first, and all its settings."""

from __future__ import annotations

from collections.abc import Iterator

from tunecast.records import GuardScore, Published, Run, Score
from tunecast.report.numbers import compact, decimal, duration, finite, interval, storage
from tunecast.report.wording import pipeline_line, value_text


def run_rows(run: Run) -> list[tuple[str, str]]:
    """Write pipeline, task, outcome, losses, seconds and bytes of a run."""
    described = [
        ("run", run.id),
        ("task", f"{run.task.dataset} on {run.task.model}"),
        ("pipeline", pipeline_line(run.pipeline)),
        ("outcome", _outcome(run)),
    ]
    return [*described, *(_measured(run) if run.published is None else _told(run, run.published))]


def setting_rows(run: Run) -> list[tuple[str, str]]:
    """Write everything that was set: hyperparameters, seed, lengths and the session."""
    return [
        ("session", run.session),
        ("method", run.pipeline.method),
        *((name, value_text(name, value)) for name, value in run.pipeline.hyperparameters.items()),
        ("seed", str(run.seed)),
        ("full length", f"{run.full_length_tokens:,} tokens, {run.total_steps:,} steps"),
        ("longest sequence", f"{run.max_length:,} tokens"),
        ("unique examples", f"{run.unique_examples:,}"),
        ("trainable parameters", f"{run.trainable_parameters:,}"),
    ]


def _told(run: Run, published: Published) -> list[tuple[str, str]]:
    """Write what a published table tells of its run, without what it leaves open."""
    better = "higher" if published.higher_is_better else "lower"
    value = "" if published.value is None else f"{published.value:.5g} {published.unit}, {better} is better"
    origin = published.source + (f" at {published.commit}" if published.commit else "")
    trained = {
        "epochs": f"{published.epochs or 0:g}",
        "steps": f"{run.total_steps:,}",
        "examples": f"{run.unique_examples:,}",
        "tokens": compact(run.full_length_tokens),
    }
    told = {
        "result": f"{run.task.metric} {value}" if value else "",
        "trained": ", ".join(f"{text} {name}" for name, text in trained.items() if text != "0"),
        "time": duration(published.seconds) if published.seconds else "",
        "time per step": duration(published.seconds_per_step) if published.seconds_per_step else "",
        "peak memory": storage(published.peak_bytes) if published.peak_bytes else "",
        "machine": f"{published.devices or ''} {published.device}".strip(),
        "table": published.table,
        "source": f"{origin}, {published.licence}",
    }
    return [(name, text) for name, text in told.items() if text]


def _measured(run: Run) -> list[tuple[str, str]]:
    peaks = [point.peak_bytes for point in run.curve if point.peak_bytes is not None]
    return [
        ("trained", _trained(run)),
        *_scores("validation", run.validation or (run.curve[-1].validation if run.curve else None)),
        *_scores("test", run.test),
        *(row for step, score in run.guard_scores for row in _guard(step, score)),
        ("time", _time(run)),
        *([("peak memory", storage(max(peaks)))] if peaks else []),
        ("machine", f"{run.machine.device}, {run.machine.threads} threads, {run.dtype}"),
    ]


def _outcome(run: Run) -> str:
    outcome = run.outcome.value.replace("_", " ")
    if run.error is None:
        return outcome
    return f"{outcome}: {run.error.kind}{f': {run.error.text}' if run.error.text else ''}"


def _trained(run: Run) -> str:
    if not run.total_steps:
        return "not trained"
    last = run.curve[-1] if run.curve else None
    steps, tokens = (last.step, last.tokens_seen) if last else (0, 0)
    return (
        f"{steps:,} of {run.total_steps:,} steps, {compact(tokens)} of {compact(run.full_length_tokens)} "
        f"tokens, from {run.unique_examples:,} examples"
    )


def _scores(split: str, score: Score | None) -> Iterator[tuple[str, str]]:
    if score is None:
        return
    yield f"{split} loss", _value(score.loss, score.loss_low, score.loss_high, score.examples)
    if score.metric is not None:
        name, count = f"{split} {score.metric_name}", score.metric_examples
        yield name, _value(score.metric, score.metric_low, score.metric_high, count)


def _guard(step: int, score: GuardScore) -> Iterator[tuple[str, str]]:
    name = f"guard {score.guard}, step {step:,}"
    ends = interval(score.low, score.high)
    change = f"{decimal(score.loss - score.base, 4)} ({ends}; {score.percent:+.1f}%)"
    losses = f"loss {decimal(score.base, 4)} before, {decimal(score.loss, 4)} after"
    yield name, f"{losses}, change {change} on {score.examples:,} examples"
    if score.accuracy is not None:
        ends = interval(score.accuracy.low, score.accuracy.high)
        before, after = score.accuracy.base, score.accuracy.value
        change = f"{decimal(after - before)} ({ends})"
        yield "", f"accuracy {decimal(before)} before, {decimal(after)} after, change {change}"


def _value(value: float, low: float | None, high: float | None, examples: int) -> str:
    ends = interval(low, high)
    return f"{decimal(value, 4)}{f' ({ends})' if ends else ''} on {examples:,} examples"


def _time(run: Run) -> str:
    training = sum(point.training.wall for point in run.curve)
    evaluation = sum(point.evaluation.wall for point in run.curve)
    if finite(training) is None:
        return "not recorded"
    return f"{duration(training)} of training, {duration(evaluation)} of evaluation"
