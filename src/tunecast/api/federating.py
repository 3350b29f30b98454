"""Finetunes on data that stays with its owners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunecast.errors import ConfigurationError, DataError, OutputError, UserError
from tunecast.federated.settings import HELD_OUT, FederatedSettings
from tunecast.paths import expanded
from tunecast.progress import Progress, Silent
from tunecast.ranges import check_range
from tunecast.untrusted import read_object


def federate(
    settings: FederatedSettings,
    clients: Sequence[str] = (),
    *,
    simulate: bool = False,
    at_once: int = 1,
    superlink: str = "",
    root_certificates: str = "",
    insecure: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Finetune a model with clients whose data stays with them, over Flower.

    Args:
        settings: The federation's settings.
        clients: The data of each client: files, or folders whose names are the clients'. Empty with
            ``superlink``, whose SuperNodes know their own data.
        simulate: Whether to use Flower's simulation engine instead of processes that talk over the network.
        at_once: Simulated clients that train at the same time.
        superlink: Address of a running SuperLink; empty to start one here with a SuperNode for each client.
        root_certificates: Certificate file by which the SuperLink is known; empty for those of the system.
        insecure: Whether to speak to it without TLS.
        resume: Continue with the first round that the output folder lacks.
        progress: Receives a line for each round.

    Returns:
        What ``federation.json`` in the output folder holds; the best round is in its folder ``best``.

    Raises:
        UserError: The clients do not fit together, or Flower cannot run.
    """
    from tunecast.federated import launch
    from tunecast.federated.deliver import PROBLEM_FILE, RECORD_FILE
    from tunecast.federated.rounds import LAST_FILE, RoundsFolder

    folder = expanded(settings.output_dir).resolve()
    settings = replace(
        settings,
        output_dir=str(folder),
        model=_absolute(settings.model),
        validation=str(expanded(settings.validation).resolve()),
        clients=settings.clients if superlink else max(1, len(clients)),
    )
    check_range("at_once", at_once)
    named = _named(clients, bool(superlink))
    _check_validation(settings.validation)
    launch.check_flower(simulate=simulate)
    if (folder / LAST_FILE).exists() and not resume:
        raise OutputError(
            f"--output-dir {folder} holds a federation.", "Go on with --resume, or name another folder."
        )
    RoundsFolder(folder, settings).load()
    for file in (RECORD_FILE, PROBLEM_FILE):
        (folder / file).unlink(missing_ok=True)
    progress = progress or Silent()
    if superlink:
        certificates = expanded(root_certificates) if root_certificates else None
        launch.run_there(settings, superlink, certificates, insecure, progress)
    elif simulate:
        launch.simulate(settings, named, at_once, progress)
    else:
        launch.run_here(settings, named, progress)
    return _result(folder)


def _absolute(model: str) -> str:
    """Return a local model's absolute path, which every process finds; other names as they are."""
    path = expanded(model)
    return str(path.resolve()) if path.exists() else model


def _named(clients: Sequence[str], elsewhere: bool) -> list[tuple[str, str]]:
    """Return name and absolute path of each client."""
    from tunecast.federated.client import client_names

    if elsewhere:
        if clients:
            raise ConfigurationError(
                "--clients and --superlink were both given; SuperNodes know their own data.", "Leave out one."
            )
        return []
    if not clients:
        raise ConfigurationError(
            "There are no clients.", "Name their folders: --clients hospital-a hospital-b"
        )
    for client in clients:
        if not expanded(client).exists():
            raise DataError(f"--clients {client}: there is no such file or folder.", "Check the path.")
    paths = [str(expanded(client).resolve()) for client in clients]
    names = client_names(paths)
    for name in names:
        if names.count(name) > 1:
            same = [path for path, other in zip(paths, names, strict=True) if other == name]
            raise ConfigurationError(
                f"{len(same)} clients have the name {name}: {', '.join(same)}.", "Rename their folders."
            )
    return list(zip(names, paths, strict=True))


def _check_validation(validation: str) -> None:
    from tunecast.data import read_split

    read_split(validation, *HELD_OUT)


def _result(folder: Path) -> dict[str, Any]:
    from tunecast.federated.deliver import PROBLEM_FILE, RECORD_FILE

    problem, record = folder / PROBLEM_FILE, folder / RECORD_FILE
    if problem.is_file():
        told = read_object(problem, str(problem))
        raise UserError(str(told["what"]), str(told["hint"]))
    if not record.is_file():
        raise UserError(
            "The federation's server ended before its last round.",
            f"{folder}/flower has its logs; go on with --resume. A server on another machine wrote there.",
        )
    return read_object(record, str(record))
