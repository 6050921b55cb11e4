"""What a program really does, counted while the reference interpreter runs it: the measured side of the certificate.

The certificate says before the run how many FLOPs a kernel does and how many bytes it moves; here every statement is counted when
it runs, and every address is marked when it is touched. Nothing is taken over from `cost` but what one op is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyengine import cost
from tinyengine.backends.reference import Interpreter, Touched
from tinyengine.dtypes import uint8
from tinyengine.runtime.buffer import Buffer
from tinyengine.stages.primitives.clip import clipped
from tinyengine.stages.specs.plan import ALIGN
from tinyengine.trial import memory

if TYPE_CHECKING:
    from tinyengine.pipeline import Lowered

Array = np.ndarray[Any, Any]
LIMIT = 300_000_000  # accesses that the interpreter may be asked to make: about a minute


@dataclass(frozen=True, slots=True)
class KernelCount:
    """One launch. `flops`: statements as often as they ran, at the op table's FLOPs; `bytes_read`, `bytes_written`: distinct
    bytes of global memory that were touched; `bytes_issued`: of all accesses."""

    name: str
    flops: int
    bytes_read: int
    bytes_written: int
    bytes_issued: int


@dataclass(frozen=True, slots=True)
class Counts:
    """One run. `kernels`: one per call, in order; `given_bytes`: memory that was handed over; `arena_bytes`: up to the highest
    address of the arena that was touched, rounded up as memory is placed (see `plan_spec.ALIGN`)."""

    kernels: tuple[KernelCount, ...]
    given_bytes: int
    arena_bytes: int

    @property
    def peak_bytes(self) -> int:
        return self.given_bytes + self.arena_bytes


class _Marks:
    """Takes the accesses of one kernel in the place of a trace, so that they need not all be kept."""

    def __init__(self, sizes: dict[str, int], itemsize: dict[str, int]) -> None:
        self.itemsize, self.issued = itemsize, 0
        self.seen = {write: {name: np.zeros(n, bool) for name, n in sizes.items()} for write in (False, True)}

    def append(self, t: Touched) -> None:
        self.seen[t.write][t.buffer][t.elements] = True
        self.issued += t.elements.size * self.itemsize[t.buffer]

    def nbytes(self, write: bool) -> int:
        return sum(int(m.sum()) * self.itemsize[name] for name, m in self.seen[write].items())

    def highest(self, name: str) -> int:
        """Bytes up to the last element of a buffer that was touched."""
        at = np.flatnonzero(self.seen[False][name] | self.seen[True][name])
        return (int(at[-1]) + 1) * self.itemsize[name] if at.size else 0


def count(lowered: Lowered) -> Counts:
    """Run the program once, kernel by kernel as it was before scheduling (without the terms that a mask makes 0), on copies of
    its memory.

    Raises ValueError where that would take minutes: the interpreter is slow (see `LIMIT`)."""
    plan = lowered.plan
    issued = sum(a.elements for k in lowered.certificate.kernels for a in k.addresses)
    if issued > LIMIT:
        raise ValueError(
            f"count: the program makes {issued:,} accesses and the interpreter counts about {LIMIT:,} in a minute; "
            "lower the same step with a smaller batch"
        )
    given = memory(lowered)
    arena = Buffer(plan.arena_bytes, uint8)
    arrays = [b.array for b in given]
    arrays += [arena.array[s.offset : s.offset + s.nbytes].view(s.dtype.numpy) for s in plan.slots[plan.given :]]
    before = {n.kernel.name: n.kernel for n in lowered.nests}
    kernels, top = [], 0
    for call in plan.calls:
        kernel = clipped(before.get(call.kernel.name, call.kernel))
        marks = _Marks({p.name: p.size for p in kernel.params}, {p.name: p.dtype.itemsize for p in kernel.params})
        ran: dict[int, int] = {}
        views = [arrays[s][: p.size] for p, s in zip(kernel.params, call.slots, strict=True)]
        Interpreter(kernel, marks, ran=ran).run(views)
        for p, s in zip(kernel.params, call.slots, strict=True):
            if s >= plan.given and (reach := marks.highest(p.name)):
                top = max(top, plan.slots[s].offset + reach)
        flops = cost.flops(kernel, ran=ran)
        kernels.append(KernelCount(kernel.name, flops, marks.nbytes(False), marks.nbytes(True), marks.issued))
    return Counts(tuple(kernels), sum(b.nbytes for b in given), -(-top // ALIGN) * ALIGN)


__all__ = ["Counts", "KernelCount", "count"]
