"""Shows progress where a caller of the Python API gave no way to do it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tunecast.progress import Progress, Silent
from tunecast.report.live import QuietConsole, RichProgress


@contextmanager
def progress_or_default(progress: Progress | None) -> Iterator[Progress]:
    """Yield the caller's progress reporter; without one, show reports if somebody is there to see them.

    That is in a terminal or a notebook; a script whose stderr goes to a file or a pipe stays silent.
    """
    if progress is not None:
        yield progress
        return
    console = QuietConsole(file=sys.stderr, highlight=False)
    if console.is_jupyter:
        from tunecast.report.notebook import NotebookProgress

        with NotebookProgress() as in_cell:
            yield in_cell
    elif console.is_terminal:
        with RichProgress(console=console) as shown:
            yield shown
    else:
        yield Silent()
