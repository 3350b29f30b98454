"""Reads which steps an offline run of Weights & Biases holds.

A ``.wandb`` file is a header of 7 bytes and then LevelDB's log format: blocks of 32 KiB of fragments, each
with a checksum, a length and a type. Every whole record is a protocol buffer.
See https://github.com/google/leveldb/blob/main/doc/log_format.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wandb.proto.wandb_internal_pb2 import Record

HEADER_BYTES = 7
BLOCK_BYTES = 32 * 1024
FRAGMENT = struct.Struct("<IHB")
WHOLE, LAST = 1, 4


def history_steps(file: Path) -> Iterator[int]:
    """Yield the step of every point in a file; a record that was cut off by a kill ends it."""
    for record in records(file):
        if record.HasField("history"):
            yield record.history.step.num


def records(file: Path) -> Iterator[Record]:
    """Yield the records of a file."""
    from wandb.proto.wandb_internal_pb2 import Record  # an extra, which most installations lack

    content = file.read_bytes()
    at, parts = HEADER_BYTES, b""
    while at + FRAGMENT.size <= len(content):
        left = BLOCK_BYTES - at % BLOCK_BYTES
        if left < FRAGMENT.size:  # too small for a fragment, so it is filled with zeros
            at += left
            continue
        _, length, kind = FRAGMENT.unpack_from(content, at)
        at += FRAGMENT.size
        if at + length > len(content):
            return
        parts += content[at : at + length]
        at += length
        if kind in (WHOLE, LAST):
            yield Record.FromString(parts)
            parts = b""
