"""``tunecast classify``: the label of every text, chosen by a model."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from tunecast.atomic import check_writable, write_page
from tunecast.cli import options
from tunecast.errors import ConfigurationError, OutputError
from tunecast.json_lines import json_lines
from tunecast.models.load import MODEL_FORMATS
from tunecast.paths import expanded

ADDED = ("predicted_label", "probability")
"""Columns that the output file has after those of the data."""
SUFFIXES = (".csv", ".jsonl")


def command(
    model: str = typer.Option(
        ..., "--model", help=f"A session's folder, an adapter's, or a base model: {MODEL_FORMATS}."
    ),
    data: str = typer.Option(
        None, "--data", help="File with one text per row; it needs no labels. (default: --prompt)"
    ),
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", help="A text. Repeatable. (default: lines of stdin)")
    ] = None,
    prompt_column: options.PromptColumn = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="A label to choose from. Repeatable. (default: those of the training)"),
    ] = None,
    adapter: str = typer.Option("", "--adapter", help="Folder of an adapter for the model."),
    pattern: options.Pattern = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    trust_remote_code: options.TrustRemoteCode = None,
    output: str = typer.Option(
        "",
        "--output",
        help="File for all rows with their labels, ending in .csv or .jsonl. (default: stdout)",
    ),
    as_json: options.AsJson = False,
) -> None:
    """Choose the likeliest label of every text: one line with label, probability and text."""
    if data is not None and prompt:
        raise ConfigurationError("--data and --prompt were both given.", "Give one of them.")
    file = _checked_output(output)
    rows, prompts = _read(data, prompt, prompt_column)
    from tunecast.api import classify

    chosen = classify(
        model,
        prompts,
        labels=label or (),
        adapter=adapter,
        pattern=pattern or "",
        device=device or "auto",
        dtype=dtype or "auto",
        trust_remote_code=bool(trust_remote_code),
    )
    if file is not None:
        added = [dict(zip(ADDED, (one.label, round(one.probability, 4)), strict=True)) for one in chosen]
        labelled = [{**row, **more} for row, more in zip(rows, added, strict=True)]
        write_page(file, _as_text(labelled, file.suffix), "--output")
        typer.echo(f"{len(chosen)} labels: {file}", err=True)
    elif as_json:
        typer.echo(json.dumps([asdict(one) for one in chosen], indent=2, ensure_ascii=False))
    else:
        for one in chosen:
            typer.echo(f"{one.label}\t{one.probability:.2f}\t{' '.join(one.prompt.split())}")


def _checked_output(output: str) -> Path | None:
    if not output:
        return None
    file = expanded(output)
    if file.suffix not in SUFFIXES:
        raise OutputError(
            f"--output {output} does not end in .csv or .jsonl.", "Name it labelled.csv, for example."
        )
    check_writable(file, "--output")
    return file


def _read(
    data: str | None, prompt: Sequence[str] | None, prompt_column: str | None
) -> tuple[Sequence[Mapping[str, Any]], Sequence[str]]:
    """Return the rows as they are given, and their texts."""
    if data is None:
        prompts = prompt or [line.rstrip("\n") for line in sys.stdin if line.strip()]
        return [{"prompt": text} for text in prompts], prompts
    from tunecast.data import read_prompts
    from tunecast.data.files import read_file

    tables = list(read_file(expanded(data)).values())
    if len(tables) > 1:
        raise ConfigurationError(f"--data {data} has several splits.", "Give a file with one list of rows.")
    rows = [row for _, row in tables[0].rows]
    if taken := [name for name in ADDED if name in rows[0]]:
        raise ConfigurationError(
            f"--data {data} already has a column {taken[0]!r}, which the output would have.", "Rename it."
        )
    return rows, read_prompts(tables[0], prompt_column)


def _as_text(rows: Sequence[Mapping[str, Any]], suffix: str) -> str:
    if suffix != ".csv":
        return json_lines(rows).decode()
    text = io.StringIO()
    writer = csv.DictWriter(
        text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
