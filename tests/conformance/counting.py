"""Counts a program while it is interpreted: FLOPs, and the distinct elements of global memory that each kernel reads and writes.

Independent of `tinyengine.cost`: nothing is derived from the shape of a loop; what is counted has happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from tinyengine import dtypes
from tinyengine.backends.reference import Array, Interpreter
from tinyengine.loopnest import Accumulate, Buf, Check, Expr, Kernel, Let, Stmt
from tinyengine.ops import OPS
from tinyengine.pipeline import Lowered


@dataclass
class Counted:
    """One kernel. Bytes: distinct elements × itemsize; `issued`: all accesses."""

    name: str
    flops: int
    bytes_read: int
    bytes_written: int
    bytes_issued: int


class Counter(Interpreter):
    """An interpreter that counts the arithmetic that it does on data: not that in indices, masks and their guards, nor on loop
    variables."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel, trace=[])
        self.flops = 0
        self.addressing = 0  # depth of index and mask evaluations
        self.data_names: set[str] = set()

    def block(self, body: tuple[Stmt, ...], axes: tuple[int, ...]) -> None:
        for s in body:
            if isinstance(s, Let) and not self.positional(s.value):
                self.data_names.add(s.name)
        super().block(body, axes)

    def positional(self, e: Expr) -> bool:
        """int64 or bool, computed from loop variables and constants only."""
        if e.dtype not in (dtypes.int64, dtypes.bool_) or e.op == "load" or (e.op == "name" and e.arg in self.data_names):
            return False
        return all(self.positional(a) for a in e.args)

    def _eval(self, e: Expr) -> Array:
        out = super()._eval(e)
        if not self.addressing and not isinstance(self.stmt, Check) and e.args and e.op != "load" and not self.positional(e):
            runs = prod(self.axes)
            if e.op == "lanes_reduce":
                self.flops += runs * (e.args[0].lanes - 1)
            elif e.op in OPS and not (e.op == "where" and self.positional(e.args[0])):
                self.flops += runs * e.lanes * OPS[e.op].flops
        return out

    def load(self, e: Expr) -> Array:
        self.addressing += 1
        try:
            return super().load(e)
        finally:
            self.addressing -= 1

    def flat(self, buf: Buf, at: tuple[Expr, ...], mask: Array | None) -> Array:
        self.addressing += 1
        try:
            return super().flat(buf, at, mask)
        finally:
            self.addressing -= 1

    def accumulate(self, s: Accumulate) -> None:
        self.flops += prod(self.axes) * s.value.lanes
        super().accumulate(s)


def count(c: Lowered, inputs: Mapping[str, Array], scheduled: bool = True) -> list[Counted]:
    """Interpret the plan on copies of the memory that it was lowered with, and count. `inputs`: values for the arguments of a
    jitted function, by name. Not `scheduled`: the same kernels as `loops` made them."""
    p = c.plan
    before = {} if scheduled else {n.kernel.name: n.kernel for n in c.nests}
    given = [np.array(inputs.get(b.name, b.array)) for b in c.buffers]
    given += [np.zeros(s.size, s.dtype.numpy) for s in p.slots[len(given) : p.given]]
    arena = np.zeros(p.arena_bytes, np.uint8)
    slots = [a.reshape(-1) for a in given]
    slots += [arena[s.offset : s.offset + s.nbytes].view(s.dtype.numpy) for s in p.slots[p.given :]]
    out = []
    for call in p.calls:
        kernel = before.get(call.kernel.name, call.kernel)
        counter = Counter(kernel)
        counter.run([slots[s] for s in call.slots])
        assert counter.trace is not None
        itemsize = {b.name: b.dtype.itemsize for b in kernel.params}
        distinct: dict[tuple[bool, str], list[Array]] = {}
        for t in counter.trace:
            distinct.setdefault((t.write, t.buffer), []).append(np.unique(t.elements))
            if isinstance(t.stmt, Accumulate) and t.write:
                distinct.setdefault((False, t.buffer), []).append(np.unique(t.elements))
        nbytes = {False: 0, True: 0}
        for (write, name), parts in distinct.items():
            nbytes[write] += np.unique(np.concatenate(parts)).size * itemsize[name]
        issued = sum(
            t.elements.size * itemsize[t.buffer] * (2 if t.write and isinstance(t.stmt, Accumulate) else 1) for t in counter.trace
        )
        out.append(Counted(kernel.name, counter.flops, nbytes[False], nbytes[True], issued))
    return out
