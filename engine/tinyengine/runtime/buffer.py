"""Buffer: memory that the engine owns, 64-byte aligned, handed to NumPy without a copy."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

from tinyengine.dtypes import DType

ALIGN = 64
_HUGE = 2 << 20


class Buffer:
    """`size` elements of `dtype`. `array` is a flat NumPy view of the memory; `address` its first byte."""

    __slots__ = ("__weakref__", "_owner", "address", "array", "dtype", "name", "size")

    def __init__(self, size: int, dtype: DType, name: str = "") -> None:
        self.size, self.dtype, self.name = size, dtype, name
        nbytes = max(size * dtype.itemsize, 1)
        if nbytes >= _HUGE:
            # huge pages: first writes of fresh 4 KiB pages cost ten times the copy itself
            region = mmap.mmap(-1, nbytes + _HUGE)
            if hasattr(mmap, "MADV_HUGEPAGE"):
                region.madvise(mmap.MADV_HUGEPAGE)
            raw: np.ndarray[Any, Any] = np.frombuffer(region, np.uint8)
            align = _HUGE
        else:
            raw = np.empty(nbytes + ALIGN, np.uint8)
            align = ALIGN
        skip = -raw.ctypes.data % align
        self._owner = raw
        self.array: np.ndarray[Any, Any] = raw[skip : skip + size * dtype.itemsize].view(dtype.numpy)
        self.address: int = raw.ctypes.data + skip

    @classmethod
    def of(cls, array: np.ndarray[Any, Any], dtype: DType, name: str = "") -> Buffer:
        """A new buffer with the elements of `array`, converted to `dtype`."""
        b = cls(array.size, dtype, name)
        b.array[...] = array.reshape(-1)
        return b

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

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
