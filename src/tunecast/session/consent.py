"""Settings that run code or reach a store elsewhere; a session's folder must not decide them alone.

A folder may come from somebody else. Who goes on with its settings must give such flags on the command line.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunecast.data.lm_eval_tasks import is_definition
from tunecast.errors import ConfigurationError
from tunecast.session.flags import flags_of
from tunecast.session.folder import read_session
from tunecast.session.guards import split_columns

CODE = "run code from outside of Tunecast"
ELSEWHERE = {"store": "open a store outside of its folder", "ray_address": "train on a Ray cluster"}
"""What other settings ask for, as messages say it."""


def needs_consent(configuration: Mapping[str, Any]) -> list[str]:
    """Return the names of settings that run code, or open a store or a cluster elsewhere.

    Args:
        configuration: Settings by name, whole or in part; values of wrong types are left for other checks.
    """
    objective, store = configuration.get("objective"), configuration.get("store")
    guards = configuration.get("guard")
    guards = guards if isinstance(guards, list | tuple) else ()
    found = {
        "trust_remote_code": bool(configuration.get("trust_remote_code")),
        "objective": isinstance(objective, str) and ":" in objective,
        "store": isinstance(store, str) and store != "",
        "ray_address": bool(configuration.get("ray_address")),
        "guard": any(is_definition(split_columns(one)[0]) for one in guards if isinstance(one, str)),
    }
    return [name for name, is_needed in found.items() if is_needed]


def check_consent(configuration: Mapping[str, Any], given: Mapping[str, Any], folder: object) -> None:
    """Refuse settings of a session's folder that the command line has to repeat and does not.

    Args:
        configuration: Settings in the session's folder.
        given: Settings on the command line.
        folder: The session's folder, for the message.

    Raises:
        ConfigurationError: A flag is missing.
    """
    if missing := [name for name in needs_consent(configuration) if name not in given]:
        flags = shlex.join(flags_of(configuration, missing))
        what = " and ".join(dict.fromkeys(ELSEWHERE.get(name, CODE) for name in missing))
        raise ConfigurationError(
            f"The session in {folder} asks to {what} ({flags}).",
            f"If you trust that, repeat {'the flag' if len(missing) == 1 else 'the flags'}: {flags}",
        )


def settings_of(folder: Path, given: Mapping[str, Any], names: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read the settings of the session in a folder; the command line has to repeat those that need consent.

    Args:
        given: Settings on the command line.
        names: The settings that are wanted; empty for all.

    Raises:
        OSError: There is no session.
        OutputError: Its file is damaged.
        ConfigurationError: A flag is missing.
    """
    found: dict[str, Any] = read_session(folder)["configuration"]
    wanted = {name: value for name, value in found.items() if not names or name in names}
    check_consent(wanted, given, folder)
    return wanted
