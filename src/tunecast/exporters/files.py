"""Writes the files of an export into one folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from tunecast.atomic import written_whole
from tunecast.errors import OutputError
from tunecast.exporters import axolotl, llamafactory, trl
from tunecast.exporters.job import ExportJob

TRAINERS: Mapping[str, tuple[Callable[[ExportJob], Mapping[str, str]], str]] = {
    "trl": (trl.files, "prompt-completion"),
    "axolotl": (axolotl.files, "messages"),
    "llamafactory": (llamafactory.files, "messages"),
}
"""For each trainer, the function that makes its files, and the style of the rows it reads."""


def export(job: ExportJob, to: str, folder: Path) -> list[Path]:
    """Write configuration and data for another trainer; the first file is the one to start with.

    Raises:
        ConfigurationError: The trainer does not support the method.
        OutputError: The folder cannot be written.
    """
    make, style = TRAINERS[to]
    texts = dict(make(job))
    for split in ("train", "validation"):
        rows = job.rows(getattr(job.dataset, split), style)
        texts[f"{split}.jsonl"] = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:  # if one file fails, an earlier export stays complete
            for name, text in texts.items():
                file = folder / name
                file.parent.mkdir(exist_ok=True)
                stack.enter_context(written_whole(file)).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"--output-dir {folder} cannot be written: {error.strerror}.", "Choose another folder."
        ) from error
    return [folder / name for name in texts]
