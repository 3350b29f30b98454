"""Headers of GGUF files that announce more than the file holds."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tunecast.errors import ModelError
from tunecast.models.gguf_header import check_header


def text(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def field(kind: int, value: bytes) -> bytes:
    return text(b"key") + struct.pack("<I", kind) + value


def tensor(*dimensions: int) -> bytes:
    shape = struct.pack("<I", len(dimensions)) + b"".join(struct.pack("<Q", size) for size in dimensions)
    return text(b"weight") + shape + struct.pack("<IQ", 0, 0)


def array(kind: int, count: int) -> bytes:
    return struct.pack("<IQ", kind, count)


NUMBER = field(4, struct.pack("<I", 7))


def header(
    *, magic: bytes = b"GGUF", version: int = 3, tensors: int = 1, fields: int = 1, body: bytes = NUMBER
) -> bytes:
    return magic + struct.pack("<IQQ", version, tensors, fields) + body


def test_a_sound_header(tmp_path: Path) -> None:
    words = field(9, array(8, 2) + text(b"a") + text(b"b"))
    numbers = field(9, array(5, 3) + struct.pack("<3i", 1, 2, 3))
    nested = field(9, array(9, 2) + (array(0, 1) + b"x") * 2)
    body = NUMBER + field(8, text(b"llama")) + words + numbers + nested + tensor(4, 8) + tensor(2)
    (tmp_path / "a.gguf").write_bytes(header(tensors=2, fields=5, body=body) + b"\0" * 200)
    check_header(tmp_path / "a.gguf")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it begins with b''"),
        (header(magic=b"GGML"), "it begins with b'GGML'"),
        (b"GGUF\x03", "it ends too early"),
        (header(version=10**9), "it is of version 1000000000; known are 2 and 3"),
        (header(tensors=2**62), "it declares 4,611,686,018,427,387,904 tensors"),
        (header(fields=2**62), "it declares 1 tensors and 4,611,686,018,427,387,904 fields"),
        (header(tensors=0), "it declares 0 tensors"),
        (header(body=struct.pack("<Q", 2**60)), "it declares a part of 1,152,921,504,606,846,976 bytes"),
        (header(body=field(99, b"")), "it declares a value of type 99"),
        (header(body=field(9, array(0, 2**50))), "it declares a part of 1,125,899,906,842,624 bytes"),
        (header(body=field(9, array(8, 2**50))), "it declares an array of 1,125,899,906,842,624 values"),
        (header(body=field(9, array(9, 1) * 100)), "it declares arrays in arrays"),
        (header(body=NUMBER), "it ends too early"),
        (header(body=NUMBER + tensor(2**40, 2**40)), r"a tensor has 1\.21e\+24 weights"),
        (
            header(body=NUMBER + text(b"w") + struct.pack("<I", 2**31)),
            "a tensor has 2,147,483,648 dimensions",
        ),
    ],
)
def test_what_is_wrong_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=rf"a\.gguf is not a GGUF file that can be read: {message}"):
        check_header(tmp_path / "a.gguf")


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read: Is a directory"):
        check_header(tmp_path)
