"""Buffers: alignment, reuse, and that memory which somebody still sees is never given away."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tinyengine import dtypes, nn, optim
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


def test_small_memory_is_reused_too() -> None:
    b = Buffer(10, dtypes.float32)
    address, fresh = b.address, memory.fresh
    del b
    assert Buffer(16, dtypes.int32).address == address and memory.fresh == fresh


def test_large_memory_begins_at_a_huge_page() -> None:
    assert Buffer(3 << 20, dtypes.float32).address % (2 << 20) == 0


def test_large_memory_takes_few_page_faults() -> None:
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not enabled.exists() or "[never]" in enabled.read_text():
        pytest.skip("this system has no huge pages to give")
    memory.clear()
    b = Buffer(8 << 20, dtypes.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b.array[...] = 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 4096  # of 8192 small pages


@pytest.mark.parametrize("size", [10, KEEP_FROM, 3 << 20])
def test_a_forked_child_writes_to_memory_of_its_own(size: int) -> None:
    b = Buffer(size, dtypes.float32)
    b.array[...] = 1
    child = os.fork()
    if child == 0:
        b.array[...] = 2
        os._exit(0 if b.array[-1] == 2 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert (b.array == 1).all()


@pytest.mark.parametrize("size", [10, KEEP_FROM, 3 << 20])
def test_memory_with_a_view_is_not_reused(size: int) -> None:
    b = Buffer(size, dtypes.float32)
    b.array[...] = 7
    view = b.array[3:9]
    address = b.address
    del b
    c = Buffer(size, dtypes.float32)
    c.array[...] = 0
    assert c.address != address
    np.testing.assert_array_equal(view, 7)


@pytest.mark.parametrize("size", [10, KEEP_FROM, 3 << 20])
def test_what_was_lent_keeps_its_content(size: int) -> None:
    b = Buffer(size, dtypes.float32)
    b.array[...] = 7
    lent, address = b.lend((2, 5)), b.address
    assert not lent.flags.writeable and lent.ctypes.data == address
    part = lent[1]
    del lent
    b.unshare()
    assert b.address != address
    np.testing.assert_array_equal(b.array, 7)
    b.array[...] = 8
    np.testing.assert_array_equal(part, 7)


def test_memory_moves_only_while_an_array_shows_it() -> None:
    b = Buffer(10, dtypes.float32)
    address = b.address
    b.lend((10,))
    b.unshare()
    assert b.address == address


def test_a_steady_training_step_faults_no_page_and_takes_no_fresh_memory() -> None:
    layer = nn.Linear(256, 512)
    optimizer = optim.Adam(layer.parameters())

    @jit
    def step(x: Tensor) -> Tensor:
        optimizer.zero_grad()
        y = layer(x)
        y.square().mean().backward()
        optimizer.step()
        return y

    x = Tensor(np.ones((256, 256), np.float32))
    for _ in range(10):
        y = step(x)
    fresh, faults = memory.fresh, []
    for _ in range(50):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        y = step(x)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert memory.fresh == fresh
    assert sum(n == 0 for n in faults) >= 45  # a worker that wakes for the first time touches its stack
    assert sum(faults) < 640  # a tenth of the pages of its results alone
    assert y.numpy().any()


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


def test_an_interrupt_while_memory_is_given_back_is_not_lost() -> None:
    """Python drops what is raised in __del__."""

    def pressed(region: Any) -> None:
        raise KeyboardInterrupt

    b = Buffer(10, dtypes.float32)
    b._shelf = SimpleNamespace(give=pressed)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        del b
        for _ in range(500):
            time.sleep(0.01)
