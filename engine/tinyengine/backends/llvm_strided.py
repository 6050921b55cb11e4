"""Vector loads whose lanes lie apart, as contiguous loads and shuffles instead of one load per lane.

Lanes a small step apart (x[2 * i], channels of a pixel): the elements between first and last lane are loaded as they lie, and
each level of shuffles keeps every second of them. Lanes a long step apart (a column), where an unrolled loop wants neighbouring
columns: a block of rows is loaded and transposed. What is loaded and shuffled is remembered, so that the columns of one block
share it. Nothing outside of what the lanes, or the columns of the unrolled loop, need is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tinyengine.backends import llvm_ops as ops
from tinyengine.loopnest import Buf, Expr, Loop, load_index, load_mask, stmt_exprs, subexprs, walk
from tinyengine.stages.arithmetic import affine as af

if TYPE_CHECKING:
    from tinyengine.backends.llvm_ir import Writer

NEAR = 8  # elements between lanes up to which contiguous loads and shuffles are cheaper than a load per lane
BLOCK = 16  # rows at most of a block that is turned in registers
Key = tuple[str, tuple[tuple[Expr, int], ...], int]  # buffer, terms of the offset, step between lanes
Run = tuple[int, int]  # constants first, first + 1, ... first + count - 1 that an unrolled loop adds to it


def strided(s: Loop) -> tuple[Expr, ...]:
    """The loads inside an unrolled loop whose lanes lie apart and which it moves on by one element."""
    if s.step != 1 or s.trips < 2:
        return ()
    found = []
    for x in walk(s.body):
        for root in () if isinstance(x, Loop) else stmt_exprs(x):
            for e in subexprs(root):
                if e.op == "load" and e.lanes > 1 and load_mask(e) is None:
                    a = af.flat(load_index(e), e.arg.strides)
                    if a is not None and a.lane > 1 and dict(a.terms).get(s.var) == 1:
                        found.append(e)
    return tuple(found)


def columns(s: Loop, loads: tuple[Expr, ...], first: Callable[[Expr], Expr]) -> dict[Key, Run]:
    """What the iterations of the unrolled loop `s` read side by side. `first`: an expression in its first iteration."""
    found: dict[Key, Run] = {}
    for e in loads:
        a = af.flat(tuple(map(first, load_index(e))), e.arg.strides)
        if a is not None:
            found[e.arg.name, a.terms, a.lane] = (a.constant, s.trips)
    return found


def spread(line: ops.Line, ty: str, x: str, start: int, step: int, lanes: int, rest: str) -> str:
    """Elements start, start + 1, ... of a line in which the lanes of `x` lie `step` apart, as many as lanes; `rest` elsewhere."""
    picks = [(start + k) // step if (start + k) % step == 0 else lanes for k in range(lanes)]
    text = ", ".join(f"i32 {p}" for p in picks)
    return line(f"shufflevector {ty} {x}, {ty} {rest}, <{lanes} x i32> <{text}>")


class Strided:
    """The strided loads of one function being written by `w`. `pointer(buf, offset, depth)` gives an address."""

    def __init__(self, w: Writer, pointer: Callable[[Buf, af.Affine, int], str]) -> None:
        self.w, self.pointer = w, pointer

    def load(self, e: Expr, a: af.Affine, depth: int, reads: frozenset[str], m: str | None) -> str | None:
        """The lanes as they lie in memory, or None where a load per lane is as good."""
        buf, lanes = e.arg, e.lanes
        first, count = self.w.columns.get((buf.name, a.terms, a.lane), (a.constant, 1))
        if not first <= a.constant < first + count:
            first, count = a.constant, 1
        if m is None and a.lane & (a.lane - 1) == 0 and count >= a.lane and a.lane <= lanes:
            start = first + (a.constant - first) // a.lane * a.lane
            if start + a.lane <= first + count:
                return self._every(buf, a._replace(constant=start), lanes, a.lane, a.constant - start, 0, depth, reads)
        if m is None and lanes <= BLOCK and count >= lanes:
            start = first + (a.constant - first) // lanes * lanes
            if start + lanes <= first + count:
                return self._column(buf, a._replace(constant=start), lanes, a.constant - start, depth, reads)
        return self._apart(buf, a, lanes, depth, m) if a.lane <= NEAR else None

    def _line(self, buf: Buf, a: af.Affine, constant: int, lanes: int, depth: int) -> str:
        """`lanes` neighbours."""
        at = a._replace(constant=constant, lane=1)
        ty, align = ops.vector(ops.memory_type(buf.dtype), lanes), self.w.alignment(at, buf.dtype.itemsize)
        return self.w.at(depth)(f"load {ty}, ptr {self.pointer(buf, at, depth)}, align {align}")

    def _shuffle(self, buf: Buf, lanes: int, x: str, y: str, picks: Sequence[int], depth: int) -> str:
        ty = ops.vector(ops.memory_type(buf.dtype), lanes)
        text = ", ".join(f"i32 {p}" for p in picks)
        return self.w.at(depth)(f"shufflevector {ty} {x}, {ty} {y}, <{len(picks)} x i32> <{text}>")

    def _known(self, key: object, make: Callable[[], str], depth: int, reads: frozenset[str]) -> str:
        found = self.w.values.get(key)
        if found is None:
            self.w.remember(key, make(), depth, reads)
            found = self.w.values[key]
        return found[0]

    def _every(
        self, buf: Buf, a: af.Affine, lanes: int, step: int, rest: int, piece: int, depth: int, reads: frozenset[str]
    ) -> str:
        """Elements rest, rest + step, ... of the line that begins at `a`; the lanes number `piece` of them. `step`: 1, 2, 4..."""
        key = ("every", buf.name, a.terms, a.constant, lanes, step, rest, piece)
        if step == 1:
            return self._known(key, lambda: self._line(buf, a, a.constant + piece * lanes, lanes, depth), depth, reads)
        half = step // 2

        def make() -> str:
            x, y = (self._every(buf, a, lanes, half, rest % half, 2 * piece + k, depth, reads) for k in (0, 1))
            return self._shuffle(buf, lanes, x, y, [2 * k + rest // half for k in range(lanes)], depth)

        return self._known(key, make, depth, reads)

    def _column(self, buf: Buf, a: af.Affine, n: int, column: int, depth: int, reads: frozenset[str]) -> str:
        """Column `column` of the n x n block that begins at `a`: rounds of interleaving rows i and i + n/2."""

        def row(r: int, i: int) -> str:
            key = ("block", buf.name, a.terms, a.constant, a.lane, n, r, i)
            if r == 0:
                return self._known(key, lambda: self._line(buf, a, a.constant + i * a.lane, n, depth), depth, reads)

            def make() -> str:
                start = i % 2 * (n // 2)
                picks = [p for k in range(n // 2) for p in (start + k, n + start + k)]
                return self._shuffle(buf, n, row(r - 1, i // 2), row(r - 1, i // 2 + n // 2), picks, depth)

            return self._known(key, make, depth, reads)

        return row(n.bit_length() - 1, column)

    def _apart(self, buf: Buf, a: af.Affine, lanes: int, depth: int, m: str | None) -> str:
        """Lanes `a.lane` elements apart: exactly the elements from the first to the last lane, or those that the mask leaves."""
        step, out, reach = a.lane, "", lanes
        for piece in range(step):
            start = piece * lanes if m is not None else min(piece * lanes, step * (lanes - 1) + 1 - lanes)
            if m is None:
                x = self._line(buf, a, a.constant + start, lanes, depth)
            else:
                x = self._some(buf, a, start, lanes, depth, m)
            if not out:
                out = self._shuffle(buf, lanes, x, "poison", [min(step * k, lanes - 1) for k in range(lanes)], depth)
                continue
            picks = [k if step * k < reach else lanes + min(step * k - start, lanes - 1) for k in range(lanes)]
            out = self._shuffle(buf, lanes, out, x, picks, depth)
            reach = start + lanes
        return out

    def _some(self, buf: Buf, a: af.Affine, start: int, lanes: int, depth: int, m: str) -> str:
        """Elements start, start + 1, ... of which only those are read that a lane of the mask stands for."""
        line, t = self.w.at(depth), ops.memory_type(buf.dtype)
        ty, bits = ops.vector(t, lanes), f"<{lanes} x i1>"
        own = spread(line, bits, m, start, a.lane, lanes, "zeroinitializer")
        name = f"@llvm.masked.load.{ops.suffix(t, lanes)}.p0"
        self.w.declare(f"declare {ty} {name}(ptr, i32, {bits}, {ty})")
        at = a._replace(constant=a.constant + start, lane=1)
        align = buf.dtype.itemsize
        return line(f"call {ty} {name}(ptr {self.pointer(buf, at, depth)}, i32 {align}, {bits} {own}, {ty} zeroinitializer)")
