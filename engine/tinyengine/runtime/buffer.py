"""Buffer: memory that the engine owns, 64-byte aligned, handed to NumPy without a copy.

The first write of fresh memory costs ten times the write itself (the system clears each page), so memory is kept when a Buffer
dies and given to the next one of its size: in a steady loop no fresh memory is touched. `fresh` and `kept` count the two. Large
memory asks for huge pages.

What NumPy was given keeps its content (`lend`): while somebody holds such an array its region is not reused, and a program that
is about to overwrite the Buffer in place moves it to other memory first (`unshare`).
"""

from __future__ import annotations

import _thread
import functools
import mmap
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyengine.dtypes import DType, int64
from tinyengine.origin import user_line

ALIGN = 64
KEEP_FROM = 32 << 10  # bytes; of smaller sizes less is kept
KEEP_BYTES = 1 << 30  # at most this much is kept for reuse
KEEP_SMALL = 1 << 20  # and of each size below KEEP_FROM at most this much
_HUGE = 2 << 20
# the default is memory shared with forked children, which has no huge pages either
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
Raw = np.ndarray[Any, Any]


class Region:
    """At least `nbytes` bytes from `address` on, inside `raw`. `views`: what drivers made of this memory, kept as long as it."""

    __slots__ = ("address", "raw", "skip", "views")

    def __init__(self, nbytes: int) -> None:
        self.views: dict[Any, Any] = {}
        if nbytes < _HUGE:
            self.raw, align = np.empty(nbytes + ALIGN, np.uint8), ALIGN
        else:
            pages, align = mmap.mmap(-1, nbytes + _HUGE, **_PRIVATE), _HUGE
            if hasattr(mmap, "MADV_HUGEPAGE"):
                pages.madvise(mmap.MADV_HUGEPAGE)
            self.raw = np.frombuffer(pages, np.uint8)
        first: int = self.raw.__array_interface__["data"][0]  # several times quicker than raw.ctypes
        self.skip = -first % align
        self.address = first + self.skip


_NOTHING: Any = Region(0)  # of a Buffer that got no memory; never given to another
_holders = sys.getrefcount
_UNSEEN = 2  # holders of a Region's memory that no array shows: the Region, and who asks


class Shelf:
    """Regions of one size that no Buffer uses."""

    __slots__ = ("free", "large", "memory", "size")

    def __init__(self, size: int, memory: Memory) -> None:
        self.size, self.memory, self.large = size, memory, size >= KEEP_FROM
        self.free: list[Region] = []

    def take(self) -> Region:
        if not self.free:
            self.memory.fresh += 1
            return Region(self.size)
        if self.large:
            self.memory.kept -= self.size
        return self.free.pop()

    def give(self, region: Region) -> None:
        """Keep a region that nobody reads any more, unless enough is kept."""
        if self.large:
            if self.memory.kept + self.size > KEEP_BYTES:
                return
            self.memory.kept += self.size
        elif len(self.free) * self.size >= KEEP_SMALL:
            return
        self.free.append(region)


class Memory:
    """The shelves by size. `fresh`: how many regions were made; `kept`: bytes from KEEP_FROM on that wait for reuse."""

    def __init__(self) -> None:
        self.shelves: dict[int, Shelf] = {}
        self.fresh = self.kept = 0

    def shelf(self, nbytes: int) -> Shelf:
        """Where regions for `nbytes` bytes are kept. Sizes that are nearly equal share one: there are eight between powers of
        two."""
        step = max(ALIGN, 1 << max(0, nbytes.bit_length() - 4))
        size = -(-nbytes // step) * step or ALIGN
        found = self.shelves.get(size)
        if found is None:
            found = self.shelves[size] = Shelf(size, self)
        return found

    def clear(self) -> None:
        """Give everything that is kept back to the system."""
        for s in self.shelves.values():
            s.free.clear()
        self.kept = 0


memory = Memory()


class Buffer:
    """`size` elements of `dtype`. `array` is a flat NumPy view of the memory; `address` its first byte. The content is
    undefined. `shelf`: that of its size, where the caller has it. MemoryError where the system has not as much."""

    __slots__ = ("__weakref__", "_array", "_lent", "_region", "_shelf", "address", "dtype", "name", "size")

    def __init__(self, size: int, dtype: DType, name: str = "", shelf: Shelf | None = None) -> None:
        self.size, self.dtype, self.name = size, dtype, name
        self._shelf = shelf = shelf or memory.shelf(size * dtype.itemsize)
        try:
            self._region = region = shelf.take()
        except (MemoryError, OSError):
            self._region = _NOTHING
            raise _too_large(self) from None
        self.address: int = region.address
        self._array: Raw | None = None
        self._lent = False

    @classmethod
    def of(cls, array: Raw, dtype: DType, name: str = "") -> Buffer:
        """A new buffer with the elements of `array`, converted to `dtype`."""
        b = cls(array.size, dtype, name)
        b.array[...] = dtype.encode(array).reshape(-1)
        return b

    def copy(self) -> Buffer:
        """A new buffer of the same name and content."""
        b = Buffer(self.size, self.dtype, self.name)
        b.array[...] = self.array
        return b

    @property
    def values(self) -> np.ndarray[Any, Any]:
        """The content as numbers, flat: `array` itself, but for floats that NumPy has not (float32)."""
        return self.dtype.decode(self.array)

    @property
    def array(self) -> Raw:
        """All elements, to read and to write."""
        if self._array is None:
            skip = self._region.skip
            self._array = self._region.raw[skip : skip + self.nbytes].view(self.dtype.numpy)
        return self._array

    @property
    def views(self) -> dict[Any, Any]:
        """What drivers made of the memory that this Buffer has now; the next Buffer that gets it finds them."""
        return self._region.views

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def lend(self, shape: tuple[int, ...]) -> Raw:
        """The first elements as a read-only array of `shape`, without a copy. Its content never changes."""
        self._lent = True
        size = 1
        for d in shape:
            size *= d
        lent = self.array[:size].reshape(shape)
        lent.flags.writeable = False
        return lent

    def unshare(self) -> None:
        """Called before this memory is overwritten: arrays that were lent keep the old one and its content."""
        if not self._lent:
            return
        old = self.array
        if _holders(self._region.raw) <= _UNSEEN + 1:  # this Buffer's own array is the only one
            self._lent = False
            return
        try:
            region = self._shelf.take()
        except (MemoryError, OSError):
            raise _too_large(self) from None
        address = region.address
        array = region.raw[region.skip : region.skip + self.nbytes].view(self.dtype.numpy)
        array[...] = old
        # an interrupt comes before these, or after them
        self._region, self._array, self.address, self._lent = region, array, address, False

    def __del__(self, holders: Callable[[Any], int] = _holders) -> None:
        try:
            self._array = None
            region = self._region
            if holders(region.raw) == _UNSEEN:  # no array shows it any more
                self._shelf.give(region)
        except KeyboardInterrupt:  # from here Python lets nothing through: it comes again, a moment later
            threading.Timer(0.05, _thread.interrupt_main).start()

    def __repr__(self) -> str:
        return f"Buffer({self.name or 'unnamed'}, {self.dtype}[{self.size}])"


def _too_large(b: Buffer) -> MemoryError:
    return MemoryError(f"there is no memory for {b.nbytes:,} bytes, {b.dtype}[{b.size}]\n  at {user_line()}")


def _known(kept: list[Any]) -> int:
    """Holders of what only stands in a list, as a loop over it sees them: Python versions count differently."""
    for b in kept:
        return _holders(b)
    return 0


_OURS = _known([object()])


class Result:
    """Memory for one result of a program, run after run. Small Buffers that nobody holds any more are given again as they are:
    making and ending one costs as much as a small kernel."""

    __slots__ = ("dtype", "kept", "shelf", "size")

    def __init__(self, size: int, dtype: DType) -> None:
        self.size, self.dtype, self.shelf = size, dtype, memory.shelf(size * dtype.itemsize)
        self.kept: list[Buffer] = []

    def take(self) -> Buffer:
        """A Buffer that nobody else holds; its content is undefined."""
        for b in self.kept:
            if _holders(b) == _OURS:
                if not b._lent:
                    b.name = ""
                    return b
                self.kept = [k for k in self.kept if k is not b]  # an array may still show it
                break
        b = Buffer(self.size, self.dtype, "", self.shelf)
        if not self.shelf.large and len(self.kept) < 2:  # one is held while the next is made: y = f(x)
            self.kept.append(b)
        return b


class SizeBuffer(Buffer):
    """The value of a variable (`symbol`, a size.Symbol), where a program reads it."""

    __slots__ = ("symbol",)
    symbol: Any


@functools.lru_cache(maxsize=10_000)
def size_memory(symbol: Any, value: int | None) -> Any:
    """Memory that holds the value of a variable; without a value, a Placeholder."""
    if value is None:
        return SizePlaceholder(symbol)
    b = SizeBuffer(1, int64, symbol.name)
    b.symbol = symbol
    b.array[0] = value
    return b


class Placeholder:
    """Stands for a buffer that a program will be given: it has a size and a dtype, and no content."""

    __slots__ = ("__weakref__", "dtype", "name", "size")
    array = None

    def __init__(self, size: int, dtype: DType, name: str = "") -> None:
        self.size, self.dtype, self.name = size, dtype, name

    def __repr__(self) -> str:
        return f"Placeholder({self.name or 'unnamed'}, {self.dtype}[{self.size}])"


class SizePlaceholder(Placeholder):
    """Stands for the value of a variable that has none yet."""

    __slots__ = ("symbol",)

    def __init__(self, symbol: Any) -> None:
        super().__init__(1, int64, symbol.name)
        self.symbol = symbol
