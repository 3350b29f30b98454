"""A client: reads its own data, and answers the server with numbers only."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tunecast.data import read_split
from tunecast.errors import UserError
from tunecast.federated.registry import federated_method
from tunecast.federated.rounds import Hello, Reply
from tunecast.federated.settings import FederatedSettings
from tunecast.federated.site import Arrays, Site, load_site
from tunecast.paths import expanded
from tunecast.training.failures import DivergedError

if TYPE_CHECKING:
    from tunecast.data import EncodedExample

LOG = logging.getLogger("tunecast.federated")
_loaded = lru_cache(maxsize=1)(load_site)
"""Simulated clients in one process share a base model, which every one of them leaves as it was."""


@dataclass(frozen=True)
class Client:
    """One client of a federation.

    Errors may quote rows. They stay in this client's own log, and the server learns only their kind.

    Args:
        data: Its file or folder.
        model: Where it keeps the base model, if elsewhere than the settings say.
        loaded: Its base model if that is in memory already.
    """

    settings: FederatedSettings
    name: str
    data: str
    model: str = ""
    loaded: Site | None = None

    @cached_property
    def site(self) -> Site:
        """The base model on this client's machine."""
        return self.loaded or _loaded(self.settings, self.model)

    @cached_property
    def examples(self) -> list[EncodedExample]:
        """Its examples; empty if there are none to train on."""
        path = expanded(self.data)
        if path.is_dir() and not any(path.iterdir()):
            return []
        if path.is_file() and not path.stat().st_size:
            return []
        return self.site.encode(read_split(self.data, "train"))

    def hello(self) -> Hello:
        """Tell the server what it must know to compare the sides."""
        try:
            site, examples = self.site, len(self.examples)
        except Exception as error:  # its text may quote rows, which stay on this client
            return Hello(self.name, problem=self._kept_here("reading model and data", error))
        return Hello(
            self.name, site.weights_hash, site.vocabulary_hash, site.draws_hash, examples, site.device_kind
        )

    def train(self, number: int, received: Arrays) -> Reply:
        """Train for a round."""
        method = federated_method(self.settings)
        try:
            arrays = method.train(self.site, received, self.examples, number, self.name)
        except DivergedError:
            return Reply(
                self.name, number, problem="its training diverged: a loss or gradient was not finite"
            )
        except Exception as error:  # its text may quote rows, which stay on this client
            return Reply(self.name, number, problem=self._kept_here("training", error))
        return Reply(self.name, number, len(self.examples), arrays)

    def _kept_here(self, doing: str, error: Exception) -> str:
        if isinstance(error, UserError):
            LOG.error("Client %s, %s: %s", self.name, doing, error)
        else:
            LOG.exception("Client %s, %s", self.name, doing)
        return f"{doing} failed ({type(error).__name__}; its own log says more)"


class InProcess:
    """Clients in this process, one after another, for studies and tests; nothing is serialised."""

    def __init__(self, clients: list[Client]) -> None:
        self.clients = {client.name: client for client in clients}

    def meet(self) -> list[Hello]:
        """Return the hellos of all."""
        return [client.hello() for client in self.clients.values()]

    def train(self, number: int, sent: Mapping[str, Arrays]) -> list[Reply]:
        """Train each."""
        return [self.clients[name].train(number, arrays) for name, arrays in sent.items()]


def client_names(folders: list[str]) -> list[str]:
    """Return the clients' names: those of their folders, or of their files without the ending."""
    return [
        Path(folder).resolve().stem if Path(folder).is_file() else Path(folder).resolve().name
        for folder in folders
    ]
