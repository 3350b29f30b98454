"""Datasets of the Hugging Face hub and folders written by ``save_to_disk``, read by ``datasets``."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunecast.data.files import Table
from tunecast.errors import DataError

_ID = re.compile(r"(?P<name>[\w.-]+(/[\w.-]+)?)(#(?P<config>[\w.-]+))?(:(?P<split>[\w.+\[\]:%-]+))?")


def looks_like_id(source: str) -> bool:
    """Whether ``source`` could be ``name``, ``owner/name``, ``...#configuration`` or ``...:train[:1000]``."""
    return not source.startswith((".", "/")) and _ID.fullmatch(source) is not None


def is_saved_folder(folder: Path) -> bool:
    """Whether ``datasets`` wrote the folder with ``save_to_disk``."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def read_hub(source: str) -> dict[str, Table]:
    """Download (or take from the cache) a dataset of the hub.

    Args:
        source: ``owner/name``, optionally followed by ``#configuration`` and ``:split`` with slicing, such as
            ``openai/gsm8k#main:train[:1000]``.

    Returns:
        A table per split, or one under ``""`` where the source names a split.

    Raises:
        DataError: The hub cannot be reached, or has no such dataset, configuration or split.
    """
    import datasets

    match = _ID.fullmatch(source)
    if match is None:
        raise DataError(f"{source!r} is neither a file, a folder nor a dataset id.", "An id is owner/name.")
    name, config, split = match["name"], match["config"], match["split"]
    try:
        with _quiet():
            loaded = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # The library raises whatever its readers and its network layer raise.
        reason = str(error).strip().split("\n")[0]
        raise DataError(
            f"There is no file or folder {name!r} here, and no such dataset could be loaded from the "
            f"Hugging Face hub ({type(error).__name__}: {reason}).",
            "Check the spelling and the network; a configuration is named as in owner/name#configuration.",
        ) from None
    return _tables(loaded, source)


def read_saved_folder(folder: Path) -> dict[str, Table]:
    """Read a folder written by ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk``.

    Raises:
        DataError: The folder is damaged.
    """
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # The library raises whatever its readers raise.
        raise DataError(f"{folder} cannot be loaded: {error}", "Save the dataset again.") from None
    return _tables(loaded, str(folder))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the hub's notes on every retry to itself; what went wrong in the end is said once."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _tables(loaded: Any, place: str) -> dict[str, Table]:
    if isinstance(loaded, dict):
        return {name: _table(part, f"{place} ({name})") for name, part in loaded.items()}
    return {"": _table(loaded, place)}


def _table(dataset: Any, place: str) -> Table:
    """The rows of one split, with class labels written out."""
    rows = dataset.to_list()
    for column, feature in dataset.features.items():
        if hasattr(feature, "int2str"):
            for row in rows:
                # Hidden labels of test splits are stored as −1.
                row[column] = (
                    feature.int2str(row[column]) if row[column] is not None and row[column] >= 0 else None
                )
    return Table(place, "row", list(enumerate(rows, start=1)))
