"""Vector loads whose lanes lie apart, as contiguous loads and shuffles instead of one load per lane.

Lanes a small step apart (x[2 * i], channels of a pixel): the elements between first and last lane are loaded as they lie, and
each level of shuffles keeps every second of them. Lanes a long step apart (a column), where an unrolled loop wants neighbouring
columns: a block of rows is loaded and transposed. What is loaded and shuffled is remembered, so that the columns of one block
share it. Lanes that share elements with their neighbours (x[i // 2]): a load of fewer elements and a shuffle. Nothing outside of
what the lanes, or the columns of the unrolled loop, need is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tinyengine.backends import llvm_ops as ops
from tinyengine.backends.strided import WIDEST, block, interleaved, prefix
from tinyengine.loopnest import Buf, Expr, load_mask
from tinyengine.stages.arithmetic import affine as af

if TYPE_CHECKING:
    from tinyengine.backends.llvm_ir import Writer


def spread(line: ops.Line, ty: str, x: str, start: int, step: int, lanes: int, rest: str) -> str:
    """Elements start, start + 1, ... of a line in which the lanes of `x` lie `step` apart, as many as lanes; `rest` elsewhere."""
    picks = [(start + k) // step if (start + k) % step == 0 else lanes for k in range(lanes)]
    text = ", ".join(f"i32 {p}" for p in picks)
    return line(f"shufflevector {ty} {x}, {ty} {rest}, <{lanes} x i32> <{text}>")


class Block(NamedTuple):
    """`lanes` rows of `n` columns, as blocks of n x n beside each other; so many rows and columns of them are there."""

    lanes: int
    n: int
    rows: int
    columns: int


class Strided:
    """The strided loads of one function being written by `w`. `pointer(buf, offset, depth)` gives an address."""

    def __init__(self, w: Writer, pointer: Callable[[Buf, af.Affine, int], str]) -> None:
        self.w, self.pointer = w, pointer

    def load(self, e: Expr, a: af.Affine, depth: int, reads: frozenset[str], m: str | None) -> str | None:
        """The lanes as they lie in memory, or None where a load per lane is as good."""
        buf, lanes = e.arg, e.lanes
        if m is None and 1 < a.lane <= af.WOVEN and lanes & (lanes - 1) == 0:
            start, count = block(self.w.columns, buf, a, a.lane)
            if count == a.lane:
                self.w.moves.note("load", buf.name, "lines shared", a.lane, lanes)
                return self._every(buf, a._replace(constant=start), lanes, a.lane, a.constant - start, 0, depth, reads)
        on = lanes if m is None else prefix(load_mask(e))
        near = 1 < a.lane <= af.NEAR
        if on and not near and lanes <= af.BLOCK and lanes & (lanes - 1) == 0:
            start, count = block(self.w.columns, buf, a, lanes, None if m is None else on)
            beside = m is None and count in (lanes // 2, lanes // 4)  # blocks that many rows high, side by side
            if count > 1 and (beside or lanes * buf.dtype.itemsize <= WIDEST):
                self.w.moves.note("load", buf.name, "block turned", a.lane, lanes)
                size = Block(lanes, count if beside else lanes, on, count)
                return self._column(buf, a._replace(constant=start), size, a.constant - start, depth, reads)
        if not near:
            return None
        self.w.moves.note("load", buf.name, "lines and shuffles", a.lane, lanes)
        if on is None and m is not None:
            return self._masked(buf, a, lanes, depth, m)
        return self._apart(buf, a, lanes, depth, on or 0)

    def _line(self, buf: Buf, a: af.Affine, constant: int, lanes: int, depth: int) -> str:
        """`lanes` neighbours."""
        at = a._replace(constant=constant, lane=1)
        ty, align = ops.vector(ops.memory_type(buf.dtype), lanes), self.w.alignment(at, buf.dtype.itemsize)
        return self.w.at(depth)(f"load {ty}, ptr {self.pointer(buf, at, depth)}, align {align}")

    def _shuffle(self, buf: Buf, lanes: int, x: str, y: str, picks: Sequence[int], depth: int) -> str:
        ty = ops.vector(ops.memory_type(buf.dtype), lanes)
        text = ", ".join(f"i32 {p}" if p >= 0 else "i32 poison" for p in picks)
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
        """Elements rest, rest + step, ... of the line that begins at `a`; the lanes number `piece` of them."""
        key = ("every", buf.name, a.terms, a.constant, lanes, step, rest, piece)
        if step == 1:
            return self._known(key, lambda: self._line(buf, a, a.constant + piece * lanes, lanes, depth), depth, reads)
        p = next(k for k in range(2, step + 1) if step % k == 0)  # the smallest prime in it
        below = step // p

        def make() -> str:
            parts = [self._every(buf, a, lanes, below, rest % below, p * piece + k, depth, reads) for k in range(p)]
            places = [p * k + rest // below for k in range(lanes)]  # in all parts behind each other
            out = parts[0]
            for i in range(1, p):
                seen = i * lanes  # places before this are in `out`
                picks = [(x if i == 1 else k) if x < seen else x - seen + lanes for k, x in enumerate(places)]
                out = self._shuffle(buf, lanes, out, parts[i], [x if x < 2 * lanes else -1 for x in picks], depth)
            return out

        return self._known(key, make, depth, reads)

    def _column(self, buf: Buf, a: af.Affine, size: Block, column: int, depth: int, reads: frozenset[str]) -> str:
        """Column `column` of the block that begins at `a`: rounds of interleaving rows i and i + n/2. Rows that are not there are
        zeros."""
        lanes, n, rows, count = size

        def row(r: int, i: int) -> str:
            if r == 0 and i >= rows:
                return "zeroinitializer"
            key = ("block", buf.name, a.terms, a.constant, a.lane, size, r, i)
            if r == 0:
                starts = [a.constant + k * a.lane for k in range(i, lanes, n)]
                return self._known(key, lambda: self._beside(buf, a, starts, n, count, depth), depth, reads)

            def make() -> str:
                x, y = row(r - 1, i // 2), row(r - 1, i // 2 + n // 2)
                if x == y == "zeroinitializer":
                    return x
                return self._shuffle(buf, lanes, x, y, interleaved(n, i, lanes), depth)

            return self._known(key, make, depth, reads)

        return row(n.bit_length() - 1, column)

    def _beside(self, buf: Buf, a: af.Affine, starts: Sequence[int], n: int, count: int, depth: int) -> str:
        """The first `count` of n neighbours from each of these constants on, in one vector."""
        pieces = [self._start(buf, a, start, n, count, depth) for start in starts]
        while len(pieces) > 1:
            pieces = [
                self._shuffle(buf, n, x, y, range(2 * n), depth) for x, y in zip(pieces[::2], pieces[1::2], strict=True)
            ]  # fmt: skip
            n *= 2
        return pieces[0]

    def repeated(self, buf: Buf, s: af.Shared, lanes: int, on: int, depth: int) -> str:
        """Lanes that share elements with their neighbours, the first `on` of them, and zeros: exactly the elements that they
        need, in at most two loads."""
        n = (s.rest + on - 1) // s.each + 1 if on else 0
        most = min(lanes, 1 << (n.bit_length() - 1)) if on else 0
        out, reach, width = "zeroinitializer", 0, max(2, most)
        for start in dict.fromkeys((0, n - most)) if on else ():
            x = self._line(buf, s.first, s.first.constant + start, most, depth)
            if most == 1:
                t = ops.memory_type(buf.dtype)
                x = self.w.at(depth)(f"insertelement {ops.vector(t, width)} zeroinitializer, {t} {x}, i64 0")
            # only what the load before did not have
            wanted = [(s.rest + k) // s.each for k in range(lanes)]
            own = [p - start if k < on and p >= reach else width for k, p in enumerate(wanted)]
            wide = self._shuffle(buf, width, x, "zeroinitializer", own, depth)
            kept = [k if p == width else lanes + k for k, p in enumerate(own)]
            out, reach = wide if not reach else self._shuffle(buf, lanes, out, wide, kept, depth), start + most
        return out

    def _start(self, buf: Buf, a: af.Affine, constant: int, n: int, count: int, depth: int) -> str:
        """The first `count` of n neighbours; the others are not read."""
        if count == n:
            return self._line(buf, a, constant, n, depth)
        if 2 * count <= n:  # never a mask that is off in a whole register: LLVM was seen to forget it
            x = self._start(buf, a, constant, n // 2, count, depth)
            return self._shuffle(buf, n // 2, x, "poison", [k if k < n // 2 else -1 for k in range(n)], depth)
        at, line, t = a._replace(constant=constant, lane=1), self.w.at(depth), ops.memory_type(buf.dtype)
        ty, bits = ops.vector(t, n), ", ".join([f"i1 {str(k < count).lower()}" for k in range(n)])
        name = f"@llvm.masked.load.{ops.suffix(t, n)}.p0"
        self.w.declare(f"declare {ty} {name}(ptr, i32, <{n} x i1>, {ty})")
        pointer = self.pointer(buf, at, depth)
        return line(f"call {ty} {name}(ptr {pointer}, i32 {buf.dtype.itemsize}, <{n} x i1> <{bits}>, {ty} poison)")

    def _apart(self, buf: Buf, a: af.Affine, lanes: int, depth: int, on: int) -> str:
        """The first `on` lanes, `a.lane` elements apart, and zeros: exactly the elements from the first of them to the last. (A
        mask that is known is not left to LLVM: of one that is off in a whole register it was seen to make a load without.)"""
        step, out, reach, t = a.lane, "zeroinitializer", 0, ops.memory_type(buf.dtype)
        line, span = self.w.at(depth), step * (on - 1) + 1
        if span < lanes:
            for k in range(on):
                at = a._replace(constant=a.constant + step * k, lane=0)
                x = line(f"load {t}, ptr {self.pointer(buf, at, depth)}, align {buf.dtype.itemsize}")
                out = line(f"insertelement {ops.vector(t, lanes)} {out}, {t} {x}, i64 {k}")
            return out
        for start in [*range(0, span - lanes, lanes), span - lanes]:
            x = self._line(buf, a, a.constant + start, lanes, depth)
            if not reach:
                off, rest = (lanes, "zeroinitializer") if on < lanes else (lanes - 1, "poison")
                picks = [min(step * k, lanes - 1) if k < on else off for k in range(lanes)]
                out = self._shuffle(buf, lanes, x, rest, picks, depth)
            else:
                there = [k >= on or step * k < reach for k in range(lanes)]
                picks = [k if there[k] else lanes + min(step * k - start, lanes - 1) for k in range(lanes)]
                out = self._shuffle(buf, lanes, out, x, picks, depth)
            reach = start + lanes
        return out

    def _masked(self, buf: Buf, a: af.Affine, lanes: int, depth: int, m: str) -> str:
        """Lanes `a.lane` elements apart, of which only those are read that are on."""
        step, out = a.lane, ""
        for start in range(0, step * lanes, lanes):
            x = self._some(buf, a, start, lanes, depth, m)
            if not out:
                out = self._shuffle(buf, lanes, x, "poison", [min(step * k, lanes - 1) for k in range(lanes)], depth)
                continue
            picks = [k if step * k < start else lanes + min(step * k - start, lanes - 1) for k in range(lanes)]
            out = self._shuffle(buf, lanes, out, x, picks, depth)
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
