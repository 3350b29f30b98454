"""Options that commands share, and the settings they become.

An option that is not given is None, so that a default stands in one place: the settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunecast.errors import ConfigurationError

if TYPE_CHECKING:
    from tunecast.session.settings import SessionSettings

__all__ = [
    "CompletionColumn",
    "Deterministic",
    "Device",
    "Dtype",
    "MaxLength",
    "PromptColumn",
    "Store",
    "TrustRemoteCode",
    "UniqueExamples",
    "settings_from",
]

MaxLength = Annotated[
    int | None,
    typer.Option("--max-length", help="Longest sequence in tokens. (default: from the data)"),
]
UniqueExamples = Annotated[
    int | None, typer.Option("--unique-examples", help="Training examples to use. (default: all)")
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N. (default: auto)")]
Dtype = Annotated[str | None, typer.Option("--dtype", help="auto, bfloat16 or float32. (default: auto)")]
Store = Annotated[str | None, typer.Option("--store", help="URL of the store. (default: OUT/runs.sqlite)")]
PromptColumn = Annotated[
    str | None, typer.Option("--prompt-column", help="Column of the prompts. (default: detected)")
]
CompletionColumn = Annotated[
    str | None, typer.Option("--completion-column", help="Column of the completions.")
]
Deterministic = Annotated[
    bool | None, typer.Option("--deterministic", help="Bit-equal results on a GPU too.")
]
TrustRemoteCode = Annotated[
    bool | None, typer.Option("--trust-remote-code", help="Run code that comes with models.")
]


def settings_from(values: Mapping[str, Any]) -> SessionSettings:
    """The settings of a session; what is None or missing keeps its default.

    Args:
        values: Values by the names of the settings.

    Raises:
        ConfigurationError: A value is not one of its setting.
    """
    from pydantic import TypeAdapter, ValidationError

    from tunecast.session.settings import SessionSettings

    given = {name: value for name, value in values.items() if value is not None}
    try:
        return TypeAdapter(SessionSettings).validate_python(given)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise ConfigurationError(f"The configuration is wrong: {'; '.join(wrong)}.") from None
