"""The exception tree: what a user can fix, said in one message.

Every :class:`UserError` states what was wrong, where (file, row, column, flag) and what to do next. The
command line prints it without a traceback and exits with code 2.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class UserError(Exception):
    """A mistake that the user can fix.

    Args:
        what: What was wrong and where, as one sentence.
        hint: What to do next, as one sentence; may be empty when ``what`` already says it.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(f"{what}\n{hint}" if hint else what)
        self.what = what
        self.hint = hint


class DataError(UserError):
    """The dataset is missing, malformed, or holds nothing to train on."""


class ModelError(UserError):
    """The base model is unknown, incomplete, or unusable for what was asked."""


class ConfigurationError(UserError):
    """A flag, a configuration file or a pipeline is wrong."""


class BudgetError(UserError):
    """The budget cannot be read, or is too small."""


class OutputError(UserError):
    """The output folder is in use, not writable, or its disk is full."""


class StoreError(UserError):
    """The store is unreachable, newer than this program, or holds something else."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, the name of its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question for a hint, such as ``Did you mean lora? ``; empty where no known word is like it."""
    near = get_close_matches(word, known, n=1)
    return f"Did you mean {near[0]}? " if near else ""


@contextmanager
def mistakes_told() -> Iterator[None]:
    """Print a user's mistake on stderr, without a traceback, and exit.

    Raises:
        SystemExit: With code 2, in the place of a :class:`UserError`.
    """
    import typer

    try:
        yield
    except UserError as error:
        typer.secho(f"tunecast: {error.what}", err=True, fg="red")
        if error.hint:
            typer.echo(error.hint, err=True)
        sys.exit(2)
