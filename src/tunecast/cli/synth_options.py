"""The options that ``tunecast synth`` alone has, with their help texts."""

from __future__ import annotations

from typing import Annotated

import typer

from tunecast.ranges import MAX_SEED

Writer = Annotated[
    str | None,
    typer.Option(
        "--writer",
        help="Model that writes the pairs: a hub id, a folder, a GGUF file, smollm2, or a server such as "
        "http://localhost:8000/v1 (key: TUNECAST_WRITER_KEY). (default: the pairs that documents state)",
    ),
]
Prompts = Annotated[
    str,
    typer.Option("--prompts", help="Folder of your own prompts; what it lacks is copied there to change."),
]
Examples = Annotated[
    str,
    typer.Option("--examples", help="JSON lines with prompt and completion, which steer the style."),
]
Entailment = Annotated[
    str,
    typer.Option(
        "--entailment",
        help="Classifier for natural language inference: a hub id or a folder. Questions and summaries that "
        "it does not find entailed by their passage are dropped.",
    ),
]
RoundTrip = Annotated[
    bool,
    typer.Option(
        "--round-trip/--no-round-trip",
        help="Keep a question only if the writer answers it alike with the passage, and not without.",
    ),
]
Audit = Annotated[
    int,
    typer.Option("--audit", min=0, help="Pairs on a page where you mark good and bad. (default: none)"),
]


Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="DOCUMENT|FOLDER...",
        help="PDF, DOCX, PPTX, XLSX, EPUB, HTML, Markdown, LaTeX, text or source code.",
    ),
]
Output = Annotated[str, typer.Option("--output", help="File of the pairs, ending in .jsonl.")]
Pairs = Annotated[int, typer.Option("--pairs", min=1, help="Maximum number of pairs to keep.")]
WriterModel = Annotated[
    str, typer.Option("--writer-model", help="Model to ask the server for. (default: its first)")
]
Kinds = Annotated[str, typer.Option("--kinds", help="Some of qa, summary, extraction and classification.")]
Labels = Annotated[str | None, typer.Option("--labels", help="Labels of a classification, such as good,bad.")]
Budget = Annotated[
    str | None, typer.Option("--budget", help="Time for writing: 90s, 30m or 2h. (default: no limit)")
]
AtOnce = Annotated[
    int, typer.Option("--at-once", min=1, max=256, help="Requests to a server at the same time.")
]
PerMinute = Annotated[
    int,
    typer.Option("--per-minute", min=0, help="Maximum requests per minute to a server; 0 for no limit."),
]
Timeout = Annotated[str, typer.Option("--timeout", help="Time to wait for one answer of a server.")]
Model = Annotated[
    str | None,
    typer.Option("--model", help="Model to be finetuned; pairs that do not fit it are dropped."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help="Seed of choice and splits.")]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on with, or replace, an earlier output; nothing is asked twice."),
]
