"""Buffers: alignment, reuse, and that memory which somebody still sees is never given away."""

from __future__ import annotations

import numpy as np
import pytest

from tinyengine import dtypes
from tinyengine.jit import jit
from tinyengine.runtime.buffer import KEEP_FROM, Buffer, memory
from tinyengine.tensor import Tensor


@pytest.mark.parametrize("size", [0, 1, 17, 4096, 100_000, 3_000_000])
def test_aligned_and_of_the_right_size(size: int) -> None:
    b = Buffer(size, dtypes.float32)
    assert b.address % 64 == 0 and b.array.size == size
    b.array[...] = 1.5
    assert b.array.sum() == 1.5 * size


def test_memory_is_reused() -> None:
    memory.clear()
    b = Buffer(KEEP_FROM, dtypes.float32)
    address, fresh = b.address, memory.fresh
    del b
    c = Buffer(KEEP_FROM - 5, dtypes.float32)
    assert c.address == address and memory.fresh == fresh and memory.kept == 0


def test_memory_with_a_view_is_not_reused() -> None:
    b = Buffer(KEEP_FROM, dtypes.float32)
    b.array[...] = 7
    view = b.array[3:9]
    address = b.address
    del b
    c = Buffer(KEEP_FROM, dtypes.float32)
    c.array[...] = 0
    assert c.address != address
    np.testing.assert_array_equal(view, 7)


def test_a_steady_loop_touches_no_fresh_memory() -> None:
    f = jit(lambda x: (x * 2 + 1).relu())
    x = Tensor(np.ones((512, 512), np.float32))
    y = f(x)
    for _ in range(3):
        y = f(x)
    before = memory.fresh
    for _ in range(20):
        y = f(x)
    assert memory.fresh == before
    assert y.numpy()[0, 0] == 3
