"""A trial's checkpoints: safetensors on disk, fsynced under a new name before anybody relies on them.

A checkpoint is two files: the weights that are trained, and what only a continuation needs (optimiser state
and position). The best point keeps just the first, and the last of a trial has no other.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunecast.atomic import written_whole
from tunecast.records import Hyperparameters

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Position:
    """Where a trial stands, beside its tensors.

    Args:
        step: Optimiser steps done.
        micro_batch_size: Examples per forward pass that memory allows.
        label_tokens_seen: Labels trained on.
        weights_hash: Hash of the weights file of the same step.
        scalars: Numbers in the optimiser's state that are no tensors, by key.
    """

    step: int
    micro_batch_size: int
    label_tokens_seen: int
    weights_hash: str
    scalars: Mapping[str, float | None]


class CheckpointFolder:
    """The folder ``trials/<id>/`` of one trial."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(
        self, weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor] | None, position: Position
    ) -> str:
        """Write a checkpoint durably and return the hash of its weights.

        Args:
            weights: Trained tensors by name.
            optimizer: Optimiser state by key; None where the trial does not go on from here.
            position: Where the trial stands; its ``weights_hash`` is filled in here.

        Raises:
            OSError: The disk is full or not writable; nothing is left under the final names.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        weights_path, state_path = self._weights(position.step), self._state(position.step)
        _stage(weights_path, weights, {})
        try:
            weights_hash = _file_hash(_staged(weights_path))
            if optimizer is not None:
                about = asdict(replace(position, weights_hash=weights_hash))
                _stage(state_path, optimizer, {"position": json.dumps(about)})
        except BaseException:  # an interrupt too must leave nothing half-written
            _staged(weights_path).unlink(missing_ok=True)
            raise
        # The weights come first: a state without its weights would not be found, but would take up the disk.
        for path in (weights_path,) if optimizer is None else (weights_path, state_path):
            _staged(path).replace(path)
        sync(self.folder)
        return weights_hash

    def write_choice(self, chosen: Hyperparameters) -> None:
        """Keep what a method decided on the data: another machine's rounding might decide otherwise.

        Raises:
            OSError: The disk is full or not writable.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with written_whole(self._choice, durable=True) as unfinished:
            unfinished.write_text(json.dumps(dict(chosen)), encoding="utf-8")

    def read_choice(self) -> Hyperparameters | None:
        """What :meth:`write_choice` kept; None where there is nothing, or nothing that can be read."""
        try:
            chosen: Hyperparameters = json.loads(self._choice.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return chosen

    def latest(self, at_most: int) -> int:
        """The last step not after ``at_most`` that can be continued from; 0 where there is none."""
        steps = [int(file.stem.removeprefix("state-")) for file in self.folder.glob("state-*.safetensors")]
        usable = [step for step in steps if step <= at_most and self._weights(step).is_file()]
        return max(usable, default=0)

    def has_weights(self, step: int, weights_hash: str = "") -> bool:
        """Whether the weights of ``step`` are kept, and are what was written as far as can be told.

        Args:
            step: Which ones.
            weights_hash: What :meth:`write` returned for them; empty where nobody knows.

        Raises:
            OSError: They cannot be read, which does not mean that they are damaged.
        """
        if not self._weights(step).is_file():
            return False
        if weights_hash:
            return _file_hash(self._weights(step)) == weights_hash
        return self.is_whole(step) if self._state(step).is_file() else _opens(self._weights(step))

    def is_whole(self, step: int, weights_hash: str = "") -> bool:
        """Whether the state of ``step`` can be read and its weights are those that were written with it.

        Args:
            step: Which one.
            weights_hash: What :meth:`write` returned for it, so that another trial's is told apart; empty
                where nobody knows.

        Raises:
            OSError: They cannot be read, which does not mean that they are damaged.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._state(step), framework="pt") as file:  # which checks its extent
                position = _position(file)
            known = {position.weights_hash, weights_hash or position.weights_hash}
            return known == {_file_hash(self._weights(step))}
        except (FileNotFoundError, SafetensorError, ValueError, TypeError, KeyError):
            return False

    def discard(self, step: int) -> None:
        """Remove a checkpoint; there need not be one."""
        for path in (self._state(step), self._weights(step)):
            path.unlink(missing_ok=True)

    def read_weights(self, step: int) -> dict[str, Tensor]:
        """The trained tensors of ``step``.

        Raises:
            FileNotFoundError: They were not kept.
        """
        from safetensors.torch import load_file

        return load_file(self._weights(step))

    def read_state(self, step: int) -> tuple[dict[str, Tensor], Position]:
        """Optimiser state and position of ``step``.

        Raises:
            FileNotFoundError: They were not kept.
        """
        from safetensors import safe_open

        with safe_open(self._state(step), framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
            return tensors, _position(file)

    def keep_only(self, *, continue_from: Iterable[int], weights_of: Iterable[int]) -> None:
        """Remove what is neither needed to continue nor the best so far.

        Args:
            continue_from: Steps whose whole checkpoint stays.
            weights_of: Steps whose weights stay.
        """
        whole = set(continue_from)
        weights = whole | set(weights_of)
        for leftover in self.folder.glob(".tmp*"):  # of a process killed while safetensors wrote
            leftover.unlink(missing_ok=True)
        for file in self.folder.glob("*.safetensors*"):
            kind, _, rest = file.name.partition("-")
            step = rest.split(".")[0]
            wanted = whole if kind == "state" else weights
            if file.suffix != ".safetensors" or int(step) not in wanted:
                file.unlink(missing_ok=True)

    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.folder.glob("*.safetensors"))

    @property
    def _choice(self) -> Path:
        return self.folder / "choice.json"

    def _weights(self, step: int) -> Path:
        return self.folder / f"weights-{step}.safetensors"

    def _state(self, step: int) -> Path:
        return self.folder / f"state-{step}.safetensors"


def _position(file: Any) -> Position:
    """The position in an open state file."""
    return Position(**json.loads(file.metadata()["position"]))


def _opens(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt"):
            return True
    except SafetensorError:
        return False


def _file_hash(path: Path) -> str:
    """The content's SHA-256, shortened."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def _staged(path: Path) -> Path:
    """The temporary name under which a file is written."""
    return path.with_suffix(".safetensors.part")


def _stage(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write under the temporary name and fsync.

    Raises:
        OSError: The disk is full or not writable; nothing is left.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    temporary = _staged(path)
    try:
        save_file({key: tensor.detach().contiguous() for key, tensor in tensors.items()}, temporary, metadata)
        sync(temporary)
    except SafetensorError as error:
        temporary.unlink(missing_ok=True)
        raise _as_os_error(error, path) from error
    except BaseException:  # an interrupt too must leave nothing half-written
        temporary.unlink(missing_ok=True)
        raise


def _as_os_error(error: Exception, path: Path) -> OSError:
    """What safetensors wraps in an exception of its own, as the system's error that it is."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    if found is None:
        return OSError(f"{path}: {error}")
    number = int(found[1])
    return OSError(number, os.strerror(number), str(path))


def sync(place: Path) -> None:
    """Make a file's content, or the names in a folder, durable."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
