"""The coefficients of the formulas, fitted to dry runs and kept as data beside this file.

They say how many bytes, or kernels, each part of a layer accounts for. Over all layers and tokens: ``width``
is the hidden width; ``rms_norms``, ``layer_norms`` and ``dropped`` that width per norm and per layer with
dropout; ``gated``, ``plain`` and ``written`` the inner width of a feed-forward block that has a gate, has
none, or writes its activation out; ``heads`` the width of queries, keys and values; ``head_norms`` that of
queries and keys where they are normalised; ``capped`` and ``scores`` attention scores that are capped or
dropped; ``inputs``, ``outputs`` and ``rank`` the widths of low-rank pairs. Once: ``ends`` is tokens x width,
``logits`` label tokens x vocabulary, ``copies`` the weights of linear layers, ``table`` those of the
embedding. Kernels are counted by layer, norm, matrix and pair.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

FILE = "coefficients.json"
Table = Mapping[tuple[str, str], Mapping[str, float]]
"""By type of compute (``high`` for float32, ``low`` for 16 bits, ``low on cpu``) and way of training."""


class Coefficients(NamedTuple):
    """The fitted tables.

    Args:
        held: Bytes held before the backward pass.
        kernels: Kernels that the forward and the backward pass start.
        moved: Bytes that element-wise kernels of the forward and the backward pass read and write.
        scoring_kernels: Kernels that scoring starts.
        scoring_moved: Bytes that element-wise kernels of scoring read and write.
        power: Exponent of the norm that joins the seconds of traffic with those of kernel starts.
    """

    held: Table
    kernels: Table
    moved: Table
    scoring_kernels: Table
    scoring_moved: Table
    power: float


@cache
def fitted() -> Coefficients:
    """Read the coefficients."""
    found = json.loads(files("tunecast.estimate").joinpath(FILE).read_text(encoding="utf-8"))
    tables = {name: _by_key(table) for name, table in found["tables"].items()}
    return Coefficients(**tables, power=found["power"])


def _by_key(table: Mapping[str, Mapping[str, float]]) -> Table:
    return {(key.split(", ")[0], key.split(", ")[1]): factors for key, factors in table.items()}
