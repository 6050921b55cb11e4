"""The default schedule of kernels with products inside rows (attention and its like): a block of rows at a time.

The loop of rows is tiled, and the block taken apart (`fission`): each product gets a loop of its own, with the register tile
that it has as a kernel, and what stands between works row by row. The rows of a block are local memory, which the cache holds
from one part to the next. Operands that all blocks read are copied once, before them, where they do not lie along the vectors.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tinyengine.dependence import Access, accesses
from tinyengine.loopnest import Alloc, Check, Loop, Store
from tinyengine.stages.fusion.blocks import LEAST_ROWS, block_rows
from tinyengine.stages.primitives.nest import fresh_buffer, loops
from tinyengine.stages.schedules import contraction
from tinyengine.stages.schedules.cost import body_cycles, plan, stride
from tinyengine.stages.schedules.lanes import PARALLEL_CYCLES, few, short, stream, together, vectorize
from tinyengine.stages.schedules.product import Contraction, axis_of, chain, depends, find, last, variables
from tinyengine.stages.schedules.tile import copy_loops

if TYPE_CHECKING:
    from tinyengine.stages.schedule import Chooser


def products(rows: Loop) -> list[str]:
    """The loops directly inside `rows` of which each iteration is a sum of products with something that all rows share: a sum of
    what one row alone reads, or has in memory of its own, gains nothing from a block of them."""
    found = [(s.name, find([rows, s])) for s in rows.body if isinstance(s, Loop) and not s.reduce]
    return [name for name, k in found if k is not None and any(shared(a, rows) for a in k.reads)]


def shared(a: Access, rows: Loop) -> bool:
    """Whether all iterations of `rows` read the same there: memory inside the loop is of one iteration."""
    return a.buf.space == "global" and not depends(a, rows)


def run(c: Chooser, around: list[Loop]) -> bool:
    """Schedule the nest; False when it has not this form or a step was not legal."""
    rows = around[-1]
    inside = products(rows)
    if not inside or rows.trips < LEAST_ROWS or sum(isinstance(s, Loop) for s in rows.body) < 2:
        return False
    start, count = c.kernel, len(c.decisions)
    if _Block(c, joined(c, around), inside).run():
        stream(c)
        return True
    contraction.undo(c, start, count)
    return False


def joined(c: Chooser, around: list[Loop]) -> list[Loop]:
    """The loops around a block with neighbours as one, where every access is contiguous over them."""
    names, i = [s.name for s in around], 0
    while i + 1 < len(names):
        text = f"merge({names[i]}, {names[i + 1]})"
        if c.try_all(text) is None:
            i += 1
            continue
        c.do(text, "merge", "every access is contiguous over these loops: rows of all iterations fill the blocks")
        names[i : i + 2] = [names[i] + names[i + 1]]
    return chain(next(s for s in c.top() if s.name == names[0]))


class _Block:
    def __init__(self, c: Chooser, around: list[Loop], inside: list[str]) -> None:
        self.c, self.around, self.inside = c, around, inside
        self.outer = [s.name for s in around[:-1]]
        self.rows = around[-1].name
        self.trips = around[-1].trips
        self.work = around[0].trips * body_cycles(around[0].body, None, c.lanes) / c.lanes
        self.bytes = sum(s.buf.nbytes for s in around[-1].body if isinstance(s, Alloc) and s.buf.space == "local")
        self.threaded = ""
        self.shared: list[str] = []  # loops around the blocks
        self.numbers: dict[str, float] = {}

    def run(self) -> bool:
        return self._threads() and self._blocks() and self._parts() and self._parallel()

    def _threads(self) -> bool:
        """Which loop the threads share: one around the rows, or pieces of the rows."""
        threads = self.c.machine.threads
        if self.work < PARALLEL_CYCLES or threads < 2:
            return True
        good = [s for s in self.around[:-1] if s.trips >= 4 * threads or s.trips % threads == 0]
        if good:
            self.threaded = good[0].name
            order = [self.threaded, *(n for n in self.outer if n != self.threaded)]
            if order != self.outer:
                names = ", ".join([*order, self.rows])
                if not self.c.do(f"reorder({names})", "reorder", "iterations for every thread outside"):
                    return False
            self.outer = order
            return self._shares()
        size = -(-self.trips // threads)
        if size < LEAST_ROWS:
            return True
        if not self.c.do(f"tile({self.rows}, {size})", "tile", "a piece of the rows per thread", {"threads": threads}):
            return False
        self.threaded, self.trips = self.rows + "o", size
        if self.outer and not self.c.do(
            f"reorder({', '.join([self.threaded, *self.outer, self.rows + 'i'])})", "reorder", "pieces for every thread outside"
        ):
            return False
        self.outer, self.rows = [self.threaded, *self.outer], self.rows + "i"
        return True

    def _shares(self) -> bool:
        """Several iterations of the threads' loop per ticket, where an operand of a product does not depend on it."""
        threads, trips = self.c.machine.threads, next(s for s in self.around if s.name == self.threaded).trips
        size = max(1, trips // (threads * 2))
        inner = [k for s in self.around[-1].body if isinstance(s, Loop) and (k := find([self.around[-1], s])) is not None]
        reads = [a for k in inner for a in k.reads if a.buf.space == "global"]
        if size == 1 or all(any(self.threaded in variables(e) for e in a.at) for a in reads):
            return True
        if not self.c.do(f"tile({self.threaded}, {size})", "tile", "one copy of an operand serves several iterations"):
            return False
        self.outer[0:1] = [self.threaded + "o", self.threaded + "i"]
        self.threaded += "o"
        return True

    def _blocks(self) -> bool:
        """Tile the rows, and take a block apart."""
        size = block_rows(self.c.machine, self.trips, self.bytes)
        self.numbers = {"rows": size, "bytes": size * self.bytes, "l2_bytes": self.c.machine.l2_bytes}
        if size < self.trips:
            if not self.c.do(f"tile({self.rows}, {size})", "tile", "a block of rows, which the cache holds", self.numbers):
                return False
            self.outer, self.rows = [*self.outer, self.rows + "o"], self.rows + "i"
            self.shared = self.outer[:-1]
        else:
            self.shared = self.outer
        why = "each product of the block has a loop of its own, and so a register tile"
        return self.c.do(f"fission({', '.join([self.rows, *self.inside])})", "fission", why, self.numbers)

    def _parts(self) -> bool:
        """Schedule each loop that the block was taken apart into."""
        c = self.c
        names = [s.name for s in self._block() if s.name == self.rows or s.name.startswith(self.rows + "_")]
        machine, c.machine, c.within = c.machine, replace(c.machine, threads=1), True
        try:
            for name in names:
                self._part(name)
        finally:
            c.machine, c.within = machine, False
        return True

    def _block(self) -> list[Loop]:
        """The loops that stand beside each other in a block."""
        body = self.c.kernel.body
        for name in self.outer:
            body = next(s for s in body if isinstance(s, Loop) and s.name == name).body
        return [s for s in body if isinstance(s, Loop)]

    def _part(self, name: str) -> None:
        loop = next(s for s in self._block() if s.name == name)
        around = chain(loop)
        k = find(around)
        if k is not None:
            self._copies(k)
            if contraction.run(self.c, self._again(around)):
                return
        self._rows(self._again(around)[0])

    def _again(self, around: list[Loop]) -> list[Loop]:
        """The same loops in the kernel as it is now."""
        out = [next(s for s in self._block() if s.name == around[0].name)]
        for old in around[1:]:
            out.append(next(s for s in out[-1].body if isinstance(s, Loop) and s.name == old.name))
        return out

    def _copies(self, k: Contraction) -> None:
        """Copy, before the blocks, an operand that does not lie along the vectors."""
        o = contraction.best(self.c, k)
        if o is None or not self.shared:
            return
        for a in k.reads:
            axis = axis_of(a, o.v)
            if a.buf.space != "global" or not depends(a, o.v) or stride(a.buf, a.at, o.v.name) == 1 or axis is None:
                continue
            axes, why = last(a, axis), "contiguous along the vectors, copied once for all blocks"
            others = any(b.buf == a.buf and not depends(b, o.v) for b in accesses(self.c.kernel.body))
            text = f"pack({a.buf.name}, at={self._place(a)}, axes={axes}{f', of={o.v.name}' if others else ''})"
            copy = fresh_buffer(self.c.kernel, f"{a.buf.name}_pack")
            if self.c.do(text, "pack", why):
                copy_loops(self.c, a.buf.name if copy == f"{a.buf.name}_pack" else copy, axes, True)

    def _place(self, a: Access) -> str:
        """The outermost loop around the blocks in which one copy serves all that is inside."""
        inner = [n for n in self.shared if any(n in variables(e) for e in a.at)]
        return inner[-1] if inner else self.shared[0]

    def _rows(self, s: Loop) -> None:
        """Vectors along the rows of a part that is no product."""
        for name in plan(s, self.c.lanes).loops:
            loop = next(x for x in loops(self.c.kernel.body) if x.name == name)
            if not vectorize(self.c, name):
                continue
            plain = together(self.c, loop)[0] == self.c.lanes
            if plain and loop.reduce and not loops(loop.body) and loop.trips >= 8 * self.c.lanes and pure(loop):
                self.c.do(f"accumulate({name}, 4)", "accumulate", "one chain of additions would wait for each result")
        short(self.c, [x.name for x in loops((s,))])

    def _parallel(self) -> bool:
        if not self.threaded:
            few(self.c, self.around[0].name, self.work)
            return True
        numbers = {"cycles": self.work, "threads": self.c.machine.threads}
        return self.c.do(f"parallel({self.threaded})", "parallel", "rows are independent", numbers)


def pure(s: Loop) -> bool:
    """Whether the loop only accumulates."""
    return not any(isinstance(x, (Loop, Store, Check)) for x in s.body)
