"""Reads YAML that users write, with one message for each way it can be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunecast.errors import ConfigurationError


def read_yaml(flag: str, path: Path) -> Any:
    """Read a YAML file.

    Args:
        flag: The option that names it, for messages.
        path: The file.

    Raises:
        ConfigurationError: The file cannot be read, or is not YAML.
    """
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"{flag} {path} cannot be read: {error.strerror}.", "Check the path."
        ) from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{flag} {path} is not a text file.") from None
    except (yaml.YAMLError, ValueError) as error:  # a date such as 2026-13-45 is a ValueError
        mark = getattr(error, "problem_mark", None)
        place = f"{path}, line {mark.line + 1}" if mark else f"{path}"
        raise ConfigurationError(f"{flag} {place}: this is not YAML: {yaml_problem(error)}.") from None


def yaml_problem(error: Exception) -> str:
    """Describe the error in a piece of YAML, in one line."""
    return str(getattr(error, "problem", None) or error).partition("\n")[0]
