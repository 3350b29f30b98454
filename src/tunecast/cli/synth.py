"""``tunecast synth``: make pairs to train on from documents."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from tunecast.budget import duration
from tunecast.cli import options, synth_options
from tunecast.paths import expanded

if TYPE_CHECKING:
    from tunecast.synth import SynthReport


def command(
    sources: synth_options.Sources,
    output: synth_options.Output,
    pairs: synth_options.Pairs = 500,
    writer: synth_options.Writer = None,
    writer_model: synth_options.WriterModel = "",
    kinds: synth_options.Kinds = "qa",
    labels: synth_options.Labels = None,
    prompts: synth_options.Prompts = "",
    examples: synth_options.Examples = "",
    entailment: synth_options.Entailment = "",
    round_trip: synth_options.RoundTrip = True,
    budget: synth_options.Budget = None,
    audit: synth_options.Audit = 0,
    at_once: synth_options.AtOnce = 4,
    per_minute: synth_options.PerMinute = 0,
    timeout: synth_options.Timeout = "120s",
    device: options.Device = None,
    model: synth_options.Model = None,
    seed: synth_options.Seed = 0,
    resume: synth_options.Resume = False,
    as_json: options.AsJson = False,
) -> None:
    """Make checked pairs from documents: those that they state, or those that a model writes."""
    from tunecast.report.default_progress import progress_or_default
    from tunecast.synth import SynthFiles, SynthSettings, WriterSettings, synthesize

    writing: WriterSettings | None = None
    if writer is not None:
        waits = duration("--timeout", timeout)
        writing = WriterSettings(writer, writer_model, at_once, per_minute, waits)
    else:
        for_writer = {"--prompts": prompts, "--examples": examples, "--labels": labels, "--budget": budget}
        options.refuse(for_writer, "needs a writer", "Name one with --writer.")
    settings = SynthSettings(
        tuple(sources),
        output,
        pairs,
        kinds=options.names("--kinds", kinds, "qa,summary"),
        writer=writing,
        prompts=prompts,
        examples=examples,
        labels=options.names("--labels", labels, "good,bad"),
        entailment=entailment,
        round_trip=round_trip,
        audit=audit,
        budget=duration("--budget", budget) if budget else None,
        model=model or "",
        device=device or "auto",
        seed=seed,
        resume=resume,
    )
    try:
        with progress_or_default(None) as progress:
            report = synthesize(settings, progress)
    except KeyboardInterrupt:
        typer.echo("Interrupted. What a writer answered is kept; go on with --resume.", err=True)
        raise
    if as_json:
        typer.echo(json.dumps({**asdict(report), "output": output}, ensure_ascii=False))
    else:
        _print(report, output, model or "smollm2")
        if audit:
            typer.echo(f"Mark a sample in a browser: {SynthFiles(expanded(output)).audit}")


def _print(report: SynthReport, output: str, model: str) -> None:
    splits = ", ".join(f"{count:,} {split}" for split, count in report.kept.items())
    typer.echo(f"{sum(report.kept.values()):,} pairs kept of {report.made:,}: {splits}")
    for label, counts in (("made by", report.made_by), ("dropped", report.dropped)):
        if counts:
            typer.echo(f"{label}: {', '.join(f'{name} {count:,}' for name, count in counts.items())}")
    if report.requests or report.requests_before:
        typer.echo(f"requests: {report.requests:,} answered, {report.requests_before:,} known from before")
    if report.left:
        typer.echo(f"more than --pairs: {report.left:,}")
    typer.echo(f"no {report.split_by} is in two splits")
    for name, reason in report.unread.items():
        typer.echo(f"not read: {name}: {reason}")
    for note in report.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"Train on them: tunecast tune --model {shlex.quote(model)} --data {shlex.quote(output)}")
