"""What a cache must move while a kernel runs, by its capacity: found by asking at which loop the data of one iteration still
fits."""

from __future__ import annotations

from dataclasses import dataclass

from tinyengine.footprint import LANE, Access, box, steps
from tinyengine.loopnest import Buf, Kernel, Loop, Stmt, walk
from tinyengine.positions import Box, Count, distinct

LINE = 64  # bytes of a cache line
FAR = 2048  # bytes apart from which a prefetcher, which stays within its page, is of no help
WAYS, WAYS_APART = 12, 64.0  # lines that one set holds; how many lines lie between two of the same set, about


@dataclass(frozen=True, slots=True)
class Moved:
    """What a cache level must fetch or write back. `nbytes`: in whole lines; `scattered`: lines among them that no neighbour
    follows, so that no prefetcher helps; `room`: bytes of cache that it needs at once, conflicts of lines in the same sets
    included."""

    nbytes: float = 0.0
    scattered: float = 0.0
    room: float = 0.0

    def plus(self, other: Moved, times: float = 1.0) -> Moved:
        return Moved(self.nbytes + times * other.nbytes, self.scattered + times * other.scattered, self.room + other.room)


class Traffic:
    """What a cache must move while the kernel runs, by its capacity."""

    def __init__(self, kernel: Kernel, found: list[Access]) -> None:
        self.kernel = kernel
        self.by_stmt: dict[int, list[Access]] = {}
        self.known: dict[tuple[int, int], Moved] = {}
        for a in found:
            self.by_stmt.setdefault(id(a.stmt), []).append(a)

    def at(self, capacity: float) -> Moved:
        return self._block(self.kernel.body, 0, capacity)

    def _block(self, body: tuple[Stmt, ...], depth: int, capacity: float) -> Moved:
        whole = self._touched(body, depth)
        if whole.room <= capacity:
            return whole
        total = lines([a for s in body if not isinstance(s, Loop) for a in self.by_stmt.get(id(s), ())], depth)
        for s in body:
            if not isinstance(s, Loop):
                continue
            if self._touched(s.body, depth + 1).room <= capacity:  # what one iteration needs stays for the next one
                total = total.plus(self._touched((s,), depth))
            else:  # every iteration fetches it again
                total = total.plus(self._block(s.body, depth + 1, capacity), s.trips)
        return total

    def _touched(self, body: tuple[Stmt, ...], depth: int) -> Moved:
        key = (id(body[0]) if len(body) == 1 else id(body), depth)
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = lines([a for s in walk(body) for a in self.by_stmt.get(id(s), ())], depth)
        return found


def lines(found: list[Access], inside: int) -> Moved:
    """The distinct cache lines of these accesses, with the loops outside of number `inside` standing still."""
    by_buf: dict[Buf, list[tuple[Access, Box | Count]]] = {}
    for a in found:
        by_buf.setdefault(a.buf, []).append((a, box(a, inside)))
    total = Moved()
    for buf, each in by_buf.items():
        boxes = [b for _, b in each]
        used = distinct(buf, boxes).n * buf.dtype.itemsize
        layouts = [_layout(buf, b) if isinstance(b, Box) else (_run(a, inside), 0) for a, b in each if b.n]
        run, stride = max(layouts, default=(buf.dtype.itemsize, 0))
        apart = stride if run < stride < LINE else -(-run // LINE) * LINE  # bytes that each run takes up
        nbytes = used if run >= 4 * LINE else used / run * apart
        picked = run < 4 * LINE and any(isinstance(b, Count) and a.dynamic for a, b in each)
        scattered = nbytes / LINE if used > run and (picked or (run <= LINE <= apart and stride >= FAR)) else 0.0
        # lines at a stride of 2^k bytes fall into few of the sets
        crowding = min(WAYS_APART, max(1.0, (stride & -stride) / max(run, LINE))) if nbytes / max(run, LINE) > 2 * WAYS else 1.0
        total = total.plus(Moved(nbytes, scattered, nbytes * crowding))
    return total


def _layout(buf: Buf, b: Box) -> tuple[int, int]:
    """(bytes of the innermost run of neighbouring elements, stride in bytes between such runs or 0)."""
    run = buf.dtype.itemsize
    parts = sorted(zip(b.axes, b.sets, strict=True), key=lambda x: x[0], reverse=True)
    for k, (part, s) in enumerate(parts):
        extent = 1
        for x in part:
            extent *= buf.shape[x]
        if len(s) == extent:
            run *= extent
            continue
        if isinstance(s, range) and s.step > 1 and len(s) > 1:
            return run, run * s.step
        outer = next((axes[-1] for axes, t in parts[k + 1 :] if len(t) > 1), None)
        return run * len(s), 0 if outer is None else buf.strides[outer] * buf.dtype.itemsize
    return run, 0


def _run(a: Access, inside: int) -> int:
    """Bytes of a run of neighbouring elements where data say at which it begins: along the lanes and the loops from number
    `inside` on that go on where the lanes, or other such loops, end."""
    strides: dict[str, int] = {}
    for e, stride in zip(a.index, a.buf.strides, strict=True):
        for v, c in (steps(e) or {}).items():
            strides[v] = strides.get(v, 0) + c * stride
    pitches = [(abs(strides.get(s.name, 0)) * s.step, s.trips) for s in a.loops[inside:]]
    run = 1
    for pitch, trips in sorted([(abs(strides.get(LANE, 0)), a.lanes), *pitches]):
        if pitch == run:
            run *= trips
    return run * a.buf.dtype.itemsize
