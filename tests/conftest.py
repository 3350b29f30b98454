"""Fixtures: real tiny models and files, built once a session."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import sessions
import tiny

# Nothing may reach for a hub: every test passes with no network at all.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# The tests run side by side, one thread each; the tiny models gain nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with a slow test come first: left for the end, it would keep one process alone at work."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def libraries_are_spared() -> Iterator[None]:
    """The collector passes over what was there before a test, as in a worker.

    A trial's end looks for garbage: among all that libraries made, longer than a tiny model trains.
    """
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_llama(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_gpt2(tmp_path_factory.mktemp("tiny-gpt2"))


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build_t5(tmp_path_factory.mktemp("tiny-t5"))


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_jsonl(tmp_path_factory.mktemp("toy") / "colours.jsonl", tiny.toy_rows(160))


@pytest.fixture(scope="session")
def finished_session(
    tiny_llama: Path, toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> sessions.Finished:
    """A session of six trials that nobody disturbed, run by the real command line."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    return sessions.finish(folder, tiny_llama, toy_data, run=sessions.run_command)
