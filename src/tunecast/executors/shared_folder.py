"""The folder that a session shares with workers on other machines, and the key in it.

What sessions and workers send each other is pickled, and unpickling runs code. Every message therefore
carries a code that only a holder of the key can compute (HMAC-SHA256): whoever can write to the store, but
cannot read the folder, has no message accepted. A code counts for one place in the store, so that no message
passes for another.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import pickle
import secrets
import zlib
from pathlib import Path
from typing import Any

from tunecast.errors import ConfigurationError
from tunecast.paths import expanded
from tunecast.store.connecting import sqlite_file

KEY_FILE = ".tunecast-key"
KEY_BYTES = 32
CODE_BYTES = 32
COMPRESSION = 1
"""Level of zlib: token ids and pickled objects shrink to a fraction even by the fastest."""


def shared_dir_of(store: str, shared_dir: Path | None) -> Path:
    """Return the folder in which a session and its workers meet: the given one, or that of a SQLite store.

    Raises:
        ConfigurationError: No folder is given, and the store is not a file.
    """
    file = sqlite_file(store)
    if shared_dir is None and file is None:
        raise ConfigurationError(
            "--shared-dir is missing: this store is not a file, so it has no folder to use instead.",
            "Name a folder that the session and its workers see under the same path.",
        )
    return expanded(shared_dir or Path(file or "").parent)


class SharedFolder:
    """A folder that a session and all its workers read and write under the same path.

    Raises:
        ConfigurationError: There is no such folder, or it cannot be read and written here.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        if not self.path.is_dir():
            raise ConfigurationError(
                f"--shared-dir {path}: there is no such folder on this machine.",
                "Name a folder that all machines see under the same path.",
            )
        try:
            self._key = _key_in(self.path)
        except OSError as error:
            raise ConfigurationError(
                f"--shared-dir {path} cannot be read and written here: {error.strerror}.",
                "Name a folder that all machines can write, and run the workers as the same user.",
            ) from error

    @property
    def key_id(self) -> str:
        """Identifies the key without telling it: workers with another one see another folder."""
        return hashlib.sha256(b"id" + self._key).hexdigest()[:16]

    def seal(self, place: str, message: object) -> bytes:
        """Return a message as bytes that only :meth:`unseal` of the same place takes."""
        content = zlib.compress(pickle.dumps(message), COMPRESSION)
        return self._code(place, content) + content

    def unseal(self, place: str, sealed: bytes) -> Any:
        """Return the message.

        Raises:
            ConfigurationError: It was not sealed with the key in this folder, for this place.
        """
        code, content = sealed[:CODE_BYTES], sealed[CODE_BYTES:]
        if not hmac.compare_digest(code, self._code(place, content)):
            raise ConfigurationError(
                f"The store holds a message that was not written with the key in {self.path / KEY_FILE}.",
                "Give all workers and the session the same --store and --shared-dir.",
            )
        return pickle.loads(zlib.decompress(content))

    def _code(self, place: str, content: bytes) -> bytes:
        return hmac.digest(self._key, place.encode() + b"\0" + content, "sha256")


def _key_in(folder: Path) -> bytes:
    """Read the key of a folder; the first to come writes it, for its own user alone.

    Raises:
        OSError: It cannot be read or written.
    """
    file = folder / KEY_FILE
    mine = folder / f"{KEY_FILE}.{secrets.token_hex(8)}"
    # Written even if there is a key: it shows that this machine can write here.
    descriptor = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(secrets.token_bytes(KEY_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(mine, file)  # in one step: of two that come at the same time one is first
    finally:
        mine.unlink(missing_ok=True)
    return file.read_bytes()
