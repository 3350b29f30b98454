"""Settings that run code from outside of Tunecast; a session's folder must not decide them alone.

A folder may come from somebody else. The user who resumes it must allow such code again on the command line.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from tunecast.errors import ConfigurationError


def code_flags(configuration: Mapping[str, Any]) -> dict[str, str]:
    """Return the flags that let code run, by the name of their setting.

    Args:
        configuration: Settings by name, whole or in part; values of wrong types are left for other checks.
    """
    flags = {}
    if configuration.get("trust_remote_code"):
        flags["trust_remote_code"] = "--trust-remote-code"
    objective = configuration.get("objective")
    if isinstance(objective, str) and ":" in objective:
        flags["objective"] = f"--objective {shlex.quote(objective)}"
    return flags


def check_consent(configuration: Mapping[str, Any], given: Mapping[str, Any], folder: object) -> None:
    """Refuse to resume a session whose folder asks for code that the command line does not ask for.

    Args:
        configuration: Settings in the session's folder.
        given: Settings on the command line.
        folder: The session's folder, for the message.

    Raises:
        ConfigurationError: A flag is missing.
    """
    if missing := [flag for name, flag in code_flags(configuration).items() if name not in given]:
        flags = " ".join(missing)
        raise ConfigurationError(
            f"--resume: the session in {folder} asks to run code from outside of Tunecast ({flags}).",
            f"If you trust that code, repeat {'the flag' if len(missing) == 1 else 'the flags'}: {flags}",
        )
