"""Buffer: memory that the engine owns, 64-byte aligned, handed to NumPy without a copy.

The first write of fresh memory costs ten times the write itself (the system clears each page), so memory is kept when a Buffer
dies and
given to the next one of its size: in a steady loop no fresh memory is touched. `fresh` and `kept` count the two.
"""

from __future__ import annotations

import mmap
import sys
from typing import Any

import numpy as np

from tinyengine.dtypes import DType

ALIGN = 64
KEEP_FROM = 32 << 10  # bytes; smaller memory comes from malloc, which keeps it too
KEEP_BYTES = 1 << 30  # at most this much is kept for reuse
_HUGE = 2 << 20
Raw = np.ndarray[Any, Any]


class Memory:
    """Regions that no Buffer uses, by size. `fresh`: how many were made; `kept`: bytes waiting here for reuse."""

    def __init__(self) -> None:
        self.free: dict[int, list[Raw]] = {}
        self.fresh = 0
        self.kept = 0

    def take(self, nbytes: int) -> Raw:
        """At least `nbytes` bytes and room to align them."""
        if nbytes < KEEP_FROM:
            return np.empty(nbytes + ALIGN, np.uint8)
        size = _size_class(nbytes)
        regions = self.free.get(size)
        if regions:
            self.kept -= size
            return regions.pop()
        self.fresh += 1
        if size < _HUGE:
            return np.empty(size + ALIGN, np.uint8)
        region = mmap.mmap(-1, size + _HUGE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            region.madvise(mmap.MADV_HUGEPAGE)
        return np.frombuffer(region, np.uint8)

    def give(self, raw: Raw, nbytes: int) -> None:
        """Keep a region that nobody reads any more."""
        size = _size_class(nbytes)
        if nbytes >= KEEP_FROM and self.kept + size <= KEEP_BYTES:
            self.free.setdefault(size, []).append(raw)
            self.kept += size

    def clear(self) -> None:
        """Give everything that is kept back to the system."""
        self.free.clear()
        self.kept = 0


memory = Memory()


def _size_class(nbytes: int) -> int:
    """The next of eight steps between powers of two: sizes that are nearly equal share regions."""
    step = max(4096, 1 << max(0, nbytes.bit_length() - 4))
    return -(-nbytes // step) * step


class Buffer:
    """`size` elements of `dtype`. `array` is a flat NumPy view of the memory; `address` its first byte. The content is
    undefined."""

    __slots__ = ("__weakref__", "_owner", "address", "array", "dtype", "name", "size")
    address: int

    def __init__(self, size: int, dtype: DType, name: str = "") -> None:
        self.size, self.dtype, self.name = size, dtype, name
        nbytes = size * dtype.itemsize
        self._owner = raw = memory.take(nbytes)
        first: int = raw.__array_interface__["data"][0]  # several times quicker than raw.ctypes
        skip = -first % (ALIGN if nbytes < _HUGE else _HUGE)
        self.array: np.ndarray[Any, Any] = raw[skip : skip + nbytes].view(dtype.numpy)
        self.address = first + skip

    @classmethod
    def of(cls, array: np.ndarray[Any, Any], dtype: DType, name: str = "") -> Buffer:
        """A new buffer with the elements of `array`, converted to `dtype`."""
        b = cls(array.size, dtype, name)
        b.array[...] = array.reshape(-1)
        return b

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __del__(self) -> None:
        nbytes = self.size * self.dtype.itemsize
        if nbytes >= KEEP_FROM and sys is not None:
            del self.array
            if sys.getrefcount(self._owner) == 2:  # this Buffer and the question: no NumPy view is left
                memory.give(self._owner, nbytes)

    def __repr__(self) -> str:
        return f"Buffer({self.name or 'unnamed'}, {self.dtype}[{self.size}])"


class Placeholder:
    """Stands for a buffer that a program will be given: it has a size and a dtype, and no content."""

    __slots__ = ("__weakref__", "dtype", "name", "size")
    array = None

    def __init__(self, size: int, dtype: DType, name: str = "") -> None:
        self.size, self.dtype, self.name = size, dtype, name

    def __repr__(self) -> str:
        return f"Placeholder({self.name or 'unnamed'}, {self.dtype}[{self.size}])"
