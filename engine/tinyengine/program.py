"""Program: the output of `plan`. Kernels in order, and the memory that each touches; all that a backend needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyengine import units
from tinyengine.dtypes import DType

if TYPE_CHECKING:
    from tinyengine.loopnest import Kernel


@dataclass(frozen=True, slots=True)
class Slot:
    """One piece of memory. role: 'input' (given by the caller, only read), 'state' (given, and written in place),
    'output' (allocated by the caller, written), 'temporary' (in the arena at `offset` bytes, 64-aligned)."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    role: str
    offset: int = 0

    @property
    def size(self) -> int:
        n = 1
        for d in self.shape:
            n *= d
        return n

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Call:
    """`slots[i]` is the memory of `kernel.params[i]`. `like`: the kernel whose estimated work decides on how many threads this
    one runs, in place of its own."""

    kernel: Kernel
    slots: tuple[int, ...]
    like: Kernel | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """`slots`: all memory, those that the caller gives first, in the order in which `Executable.run` takes them; then
    temporaries."""

    name: str
    slots: tuple[Slot, ...]
    calls: tuple[Call, ...]
    arena_bytes: int

    @property
    def given(self) -> int:
        """How many slots the caller gives."""
        return sum(s.role != "temporary" for s in self.slots)

    def text(self) -> str:
        """The call list, then the memory map."""
        out = [f"{self.name}: {units.some(len(self.calls), 'kernel')}, arena {self.arena_bytes} bytes"]
        for i, c in enumerate(self.calls):
            outs = set(c.kernel.outputs)
            args = ", ".join(
                self.slots[s].name + (" (out)" if p.name in outs else "") for p, s in zip(c.kernel.params, c.slots, strict=True)
            )
            out.append(f"  {i:<3} {c.kernel.name}({args})")
        for i, s in enumerate(self.slots):
            place = f"arena +{s.offset}" if s.role == "temporary" else s.role
            out.append(f"  slot {i:<3} {s.name}: {s.dtype}{list(s.shape)} {s.nbytes} bytes, {place}")
        return "\n".join(out)

    __repr__ = text
