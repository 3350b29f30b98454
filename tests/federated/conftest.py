"""A tiny base model with three clients' data, and what runs a federation of them in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tiny
from tunecast.data import read_split
from tunecast.federated.client import Client, InProcess
from tunecast.federated.registry import federated_method
from tunecast.federated.rounds import Exchange, History, RoundsFolder, run_rounds
from tunecast.federated.settings import FederatedSettings
from tunecast.federated.site import Site, load_site

CLIENTS = ("north", "south", "west")


@dataclass(frozen=True)
class Workshop:
    """A site, its validation file and its clients' folders."""

    folder: Path
    model: Path
    validation: Path
    site: Site

    def settings(self, output: Path, **values: Any) -> FederatedSettings:
        usual: dict[str, Any] = {"rounds": 2, "learning_rate": 1e-2, "clients": len(CLIENTS)}
        return FederatedSettings(str(self.model), str(self.validation), str(output), **usual | values)

    def client(self, settings: FederatedSettings, name: str) -> Client:
        return Client(settings, name, str(self.folder / name), loaded=self.site)

    def clients(self, settings: FederatedSettings) -> InProcess:
        return InProcess([self.client(settings, name) for name in CLIENTS])

    def run(self, settings: FederatedSettings, exchange: Exchange | None = None) -> History:
        validation = self.site.encode(read_split(settings.validation))
        folder = RoundsFolder(Path(settings.output_dir), settings)
        exchange = exchange or self.clients(settings)
        return run_rounds(settings, federated_method(settings), self.site, validation, exchange, folder)


def write_rows(file: Path, count: int, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = tiny.toy_rows(count, seed=seed)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="session")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    folder = tmp_path_factory.mktemp("federation")
    model = tiny.build_llama(folder / "model")
    for number, name in enumerate(CLIENTS):
        write_rows(folder / name / "data.jsonl", 12 + 4 * number, seed=number)
    write_rows(folder / "validation.jsonl", 10, seed=9)
    settings = FederatedSettings(str(model), str(folder / "validation.jsonl"), str(folder / "out"))
    return Workshop(folder, model, folder / "validation.jsonl", load_site(settings))


@pytest.fixture
def settings(federation: Workshop, tmp_path: Path) -> Callable[..., FederatedSettings]:
    return lambda **values: federation.settings(tmp_path / "out", **values)
