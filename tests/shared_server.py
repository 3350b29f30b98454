"""Fork servers that outlive executors, so that those of one test process do not each import the libraries."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from tunecast.executors import local
from tunecast.executors.fork_server import ForkServer

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
