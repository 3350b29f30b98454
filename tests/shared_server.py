"""Fork servers that outlive executors, so that those of one test process do not each import the libraries."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from tunecast.executors import local
from tunecast.executors.base import Broken
from tunecast.executors.fork_server import ForkServer
from workplaces import Call, Desk

SET_MEANWHILE = ("PYTEST_CURRENT_TEST", "KMP_DUPLICATE_LIB_OK")
"""Variables that pytest and libraries set while tests run; no worker reads them."""


class Kept(ForkServer):
    """A server that its executors cannot close."""

    def close(self) -> None:
        """Leave the server to the next executor."""

    def end(self) -> None:
        super().close()


@contextmanager
def shared_servers() -> Iterator[None]:
    """Have local executors with equal environments share a server; one that has died is replaced."""
    servers: dict[object, Kept] = {}

    def server(environment: Mapping[str, str]) -> Kept:
        lasting = {name: value for name, value in environment.items() if name not in SET_MEANWHILE}
        key = frozenset(lasting.items()), os.getcwd()
        if key not in servers or not servers[key].is_alive:
            servers[key] = Kept(environment)
        return servers[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "ForkServer", server)
        yield
    for kept in servers.values():
        kept.end()


def in_fork(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a new process that has imported torch, transformers and peft, and done nothing else.

    The function is found by the name of its module, which lies in ``tests`` or in the package.
    """
    with local.LocalExecutor(1, 1) as executor:
        executor.open(Desk(""))
        answer = executor.call(Call(function, arguments, dict(os.environ)))
    if isinstance(answer, Broken):
        raise answer.error()
    return answer
