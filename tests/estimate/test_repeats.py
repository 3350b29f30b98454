"""Operations that are called again: their results are those of the first call."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tunecast.estimate import repeats

aten = torch.ops.aten


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def layout(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.untyped_storage().nbytes()


WIDE = empty(3, 4)
CALLS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "sum": (aten.add.Tensor, (WIDE, empty(4))),
    "sum of a transposed matrix": (aten.add.Tensor, (empty(4, 3).t(), WIDE)),
    "bfloat16": (aten.add.Tensor, (WIDE.bfloat16(), empty(4).bfloat16())),
    "two types": (aten.add.Tensor, (WIDE.bfloat16(), empty(4))),
    "whole number": (aten.mul.Tensor, (empty(3, dtype=torch.int64), 1)),
    "fraction": (aten.mul.Tensor, (empty(3, dtype=torch.int64), 1.0)),
    "number in a tensor": (aten.mul.Tensor, (WIDE, torch.tensor(2.0))),
    "product": (aten.mm.default, (WIDE, empty(4, 5))),
    "rows that are joined": (aten.cat.default, ([WIDE, empty(2, 4)],)),
    "two results": (aten.native_dropout.default, (WIDE, 0.1, True)),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_repeated_call_makes_the_same_tensor_as_the_operation(name: str) -> None:
    func, args = CALLS[name]
    for _ in range(2):
        made, plain = repeats.call(func, args, {}), func(*args)
        pairs = zip(made, plain, strict=True) if isinstance(plain, tuple) else [(made, plain)]
        assert all(layout(ours) == layout(theirs) for ours, theirs in pairs)


def test_an_operation_is_derived_once() -> None:
    repeats.call(aten.mm.default, (WIDE, empty(4, 6)), {})
    known = len(repeats._layouts)
    repeats.call(aten.mm.default, (empty(3, 4), empty(4, 6)), {})
    assert len(repeats._layouts) == known
    repeats.call(aten.mm.default, (empty(3, 4), empty(4, 7)), {})
    assert len(repeats._layouts) == known + 1


@pytest.mark.parametrize(
    ("func", "more"),
    [(aten.view.default, ([12],)), (aten._unsafe_view.default, ([12],)), (aten.add_.Tensor, (1,))],
)
def test_what_shares_memory_with_its_argument_still_does(func: Any, more: tuple[Any, ...]) -> None:
    for _ in range(2):
        given = empty(3, 4)
        assert repeats.call(func, (given, *more), {}).untyped_storage() is given.untyped_storage()
