"""The files of a hand-over, written into one folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from tunecast.atomic import written_whole
from tunecast.errors import OutputError
from tunecast.exporters import axolotl, llamafactory, trl
from tunecast.exporters.job import Work

TRAINERS: Mapping[str, tuple[Callable[[Work], Mapping[str, str]], str]] = {
    "trl": (trl.files, "prompt-completion"),
    "axolotl": (axolotl.files, "messages"),
    "llamafactory": (llamafactory.files, "messages"),
}
"""What makes a trainer's files, and the style of the rows that it reads."""


def export(work: Work, to: str, folder: Path) -> list[Path]:
    """Write configuration and data for another trainer.

    Args:
        work: What is handed over.
        to: Name of the trainer, one of :data:`TRAINERS`.
        folder: Where to; made where it is missing.

    Returns:
        The files, the one to start first.

    Raises:
        ConfigurationError: The trainer does not know the method.
        OutputError: The folder cannot be written.
    """
    make, style = TRAINERS[to]
    texts = dict(make(work))
    for split in ("train", "validation"):
        rows = work.rows(getattr(work.dataset, split), style)
        texts[f"{split}.jsonl"] = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:  # where one cannot be written, all of an earlier export stay
            for name, text in texts.items():
                file = folder / name
                file.parent.mkdir(exist_ok=True)
                stack.enter_context(written_whole(file)).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"--output-dir {folder} cannot be written: {error.strerror}.", "Choose another folder."
        ) from error
    return [folder / name for name in texts]
