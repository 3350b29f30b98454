"""``tunecast synth``: make pairs to train on from documents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from tunecast.budget import duration
from tunecast.cli import options
from tunecast.errors import ConfigurationError
from tunecast.paths import expanded
from tunecast.ranges import MAX_SEED

if TYPE_CHECKING:
    from tunecast.synth import SynthReport


_Writer = Annotated[
    str | None,
    typer.Option(
        "--writer",
        help="Model that writes the pairs: a hub id, a folder, a GGUF file, smollm2, or a server such as "
        "http://localhost:8000/v1 (key: TUNECAST_WRITER_KEY). (default: the pairs that documents state)",
    ),
]
_Prompts = Annotated[
    str,
    typer.Option("--prompts", help="Folder of your own prompts; what it lacks is copied there to change."),
]
_Examples = Annotated[
    str,
    typer.Option("--examples", help="JSON lines with prompt and completion, which steer the style."),
]
_Entailment = Annotated[
    str,
    typer.Option(
        "--entailment",
        help="Classifier for natural language inference: a hub id or a folder. Questions and summaries that "
        "it does not find entailed by their passage are dropped.",
    ),
]
_RoundTrip = Annotated[
    bool,
    typer.Option(
        "--round-trip/--no-round-trip",
        help="Keep a question only if the writer answers it alike with the passage, and not without.",
    ),
]
_Audit = Annotated[
    int,
    typer.Option("--audit", min=0, help="Pairs on a page where you mark good and bad. (default: none)"),
]


def command(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="DOCUMENT|FOLDER...",
            help="PDF, DOCX, PPTX, XLSX, EPUB, HTML, Markdown, LaTeX, text or source code.",
        ),
    ],
    output: Annotated[str, typer.Option("--output", help="File of the pairs, ending in .jsonl.")],
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="Maximum number of pairs to keep.")] = 500,
    writer: _Writer = None,
    writer_model: Annotated[
        str, typer.Option("--writer-model", help="Model to ask the server for. (default: its first)")
    ] = "",
    kinds: Annotated[
        str, typer.Option("--kinds", help="Some of qa, summary, extraction and classification.")
    ] = "qa",
    labels: Annotated[
        str | None, typer.Option("--labels", help="Labels of a classification, such as good,bad.")
    ] = None,
    prompts: _Prompts = "",
    examples: _Examples = "",
    entailment: _Entailment = "",
    round_trip: _RoundTrip = True,
    budget: Annotated[
        str | None, typer.Option("--budget", help="Time for writing: 90s, 30m or 2h. (default: no limit)")
    ] = None,
    audit: _Audit = 0,
    at_once: Annotated[
        int, typer.Option("--at-once", min=1, max=256, help="Requests to a server at the same time.")
    ] = 4,
    per_minute: Annotated[
        int,
        typer.Option("--per-minute", min=0, help="Maximum requests per minute to a server; 0 for no limit."),
    ] = 0,
    timeout: Annotated[
        str, typer.Option("--timeout", help="Time to wait for one answer of a server.")
    ] = "120s",
    device: options.Device = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Model to be finetuned; pairs that do not fit it are dropped."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help="Seed of choice and splits.")] = 0,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with, or replace, an earlier output; nothing is asked twice."),
    ] = False,
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
        _refuse_without_writer({"prompts": prompts, "examples": examples, "labels": labels, "budget": budget})
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


def _refuse_without_writer(given: Mapping[str, str | None]) -> None:
    """Refuse options that say how a writer is asked if there is none."""
    flags = [f"--{name}" for name, value in given.items() if value]
    if flags:
        raise ConfigurationError(f"{flags[0]} needs a writer.", "Name one with --writer.")


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
    typer.echo(f"Train on them: tunecast tune --model {model} --data {output}")
