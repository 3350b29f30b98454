"""Options that commands share, and the settings they become.

An option that is not given is None, so that a default stands in one place: the settings.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunecast.errors import ConfigurationError

if TYPE_CHECKING:
    from tunecast.session.settings import SessionSettings

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
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


def keep_numpy_single_threaded() -> None:
    """Give numpy's products one thread, before it is imported: the matrices of predictions are small, and on
    a busy machine several threads wait for each other for seconds."""
    if "numpy" not in sys.modules:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def fixed_values(texts: Sequence[str]) -> dict[str, Any]:
    """What ``--fix lora_r=16``, given any number of times, fixes: values by name.

    Raises:
        ConfigurationError: One is not NAME=VALUE, or its value is none.
    """
    return dict(map(_fixed, texts))


def pair(flag: str, text: str, example: str, form: str = "NAME=VALUE") -> tuple[str, str]:
    """Both sides of what an option such as ``--fix lora_r=16`` was given.

    Args:
        flag: The option.
        text: What it was given.
        example: What it may be given, for the message.
        form: The same in capitals.

    Raises:
        ConfigurationError: There is no ``=`` in it, or nothing on one side.
    """
    name, _, value = text.partition("=")
    if not name or not value:
        raise ConfigurationError(f"{flag} {text!r} is not {form}.", f"Write it as {flag} {example}.")
    return name, value


def names(flag: str, text: str | None, example: str) -> tuple[str, ...]:
    """The names in a list such as ``lora,ia3``.

    Args:
        flag: The option.
        text: What it was given; None where it was not.
        example: What it may be given, for the message.

    Raises:
        ConfigurationError: It was given, and names none.
    """
    found = tuple(filter(None, (part.strip() for part in (text or "").split(","))))
    if text is not None and not found:
        raise ConfigurationError(f"{flag} {text!r} names none.", f"Write it as {flag} {example}.")
    return found


def _fixed(text: str) -> tuple[str, Any]:
    """``lora_r=16`` as a name and a value of the type that it reads as."""
    import yaml

    from tunecast.yaml_file import yaml_problem

    name, value = pair("--fix", text, "lora_r=16")
    try:
        read = found if (found := number(value)) is not None else yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigurationError(
            f"--fix {text!r}: this is not a value: {yaml_problem(error)}.", "Write it as --fix lora_r=16."
        ) from None
    return name, one_value(f"--fix {text}", read)


def one_value(where: str, value: Any) -> Any:
    """What YAML read for a hyperparameter, with numbers such as 1e-3, which it takes for strings, as numbers.

    Raises:
        ConfigurationError: It is a list or anything else that no hyperparameter takes.
    """
    found = number(value) if isinstance(value, str) else None
    if not isinstance(value, str | int | float):
        raise ConfigurationError(
            f"{where}: a hyperparameter has one text, number or truth value, not a {type(value).__name__}.",
            "Write it as --fix lora_r=16.",
        )
    return value if found is None else found


def number(text: str) -> int | float | None:
    """The number that a text reads as to Python, which, unlike YAML, takes 1e-3 for one.

    Args:
        text: What was given.

    Returns:
        An int where it reads as one, else a float; None where it reads as neither.
    """
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None
