"""Remembers findings of transformers about a model's folder.

Importing transformers with torch takes seconds. A later process that only needs a model's facts or its
tokenizer is spared most of them.
"""

from __future__ import annotations

import contextlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tunecast import records
from tunecast.cache import cache_folder, read_cached, write_cached
from tunecast.records import stable_hash

SETTINGS = ("config.json", "tokenizer_config.json")
"""Files whose content decides the findings of transformers; of all others only the sizes count."""
CODE = (*sorted(Path(__file__).parent.glob("*.py")), Path(records.__file__))
"""Modules that turn findings into facts; a change of them makes earlier findings void."""


def recall(folder: Path, topic: str) -> Any:
    """Return the finding that :func:`remember` kept for a folder with the same files, else None."""
    try:
        return read_cached(_file(folder, topic))
    except (OSError, ValueError):
        return None


def remember(folder: Path, topic: str, finding: Any) -> None:
    """Keep a finding, any JSON value but null, for later processes, if the cache can be written."""
    with contextlib.suppress(OSError, ValueError):
        write_cached(_file(folder, topic), finding)


def _file(folder: Path, topic: str) -> Path:
    """Return the file of a finding.

    Raises:
        OSError: The folder's content cannot be read, or code that comes with the model decides.
    """
    texts = [(folder / name).read_text(encoding="utf-8") for name in SETTINGS if (folder / name).is_file()]
    if any('"auto_map"' in text for text in texts):
        raise OSError("code that comes with the model decides")
    sizes = sorted((file.name, file.stat().st_size) for file in folder.iterdir())
    code = [file.read_text(encoding="utf-8") for file in CODE]
    key = stable_hash([texts, sizes, code, version("transformers")])
    return cache_folder() / "models" / f"{key}-{topic}.json"
