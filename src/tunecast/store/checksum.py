"""A checksum of a table's content, independent of the bytes that a version of a library writes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def content_checksum(table: pa.Table) -> str:
    """Compute SHA-256 over names, types, nulls and values of all columns, as 64 hexadecimal digits.

    Columns hold strings (also dictionary-encoded), numbers, booleans, and lists of structs of these.
    """
    digest = hashlib.sha256()
    for name in sorted(table.column_names):
        _add(digest, name, table.column(name).combine_chunks())
    return digest.hexdigest()


def _add(digest: Any, name: str, array: Any) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    digest.update(f"{name}:{len(array)}:".encode())
    digest.update(array.is_null().to_numpy(zero_copy_only=False).tobytes())
    if pa.types.is_list(array.type):
        _add(digest, f"{name}.length", pc.list_value_length(array))
        _add(digest, name, pc.list_flatten(array))
    elif pa.types.is_struct(array.type):
        for field in array.type:
            _add(digest, f"{name}.{field.name}", pc.struct_field(array, field.name))
    elif pa.types.is_string(array.type):
        for text in array.to_pylist():
            encoded = b"" if text is None else text.encode()
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
    else:
        empty = pa.scalar(0).cast(array.type)
        digest.update(str(array.type).encode())
        digest.update(pc.fill_null(array, empty).to_numpy(zero_copy_only=False).tobytes())
