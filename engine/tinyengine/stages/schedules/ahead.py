"""Memory that the next tile, or the next image, touches comes while this one is computed with: hints in the loop of the sum.

A tile of a convolution reads and writes a few short pieces of many rows, and an image is first read when its turn comes: the
machine's own prefetching sees neither. One hint or two per iteration of the sum's outermost loop; more at once would stand before
the loads of the sum itself. The same where a loop goes from one short piece of memory to another far away, as from a channel of
one image to that of the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyengine.dependence import accesses
from tinyengine.loopnest import Loop, Stmt, subexprs
from tinyengine.stages.primitives.nest import ScheduleError, loops
from tinyengine.stages.primitives.prefetch import LINE, piece, region
from tinyengine.stages.schedules.cost import operations, stride
from tinyengine.stages.schedules.product import Contraction

if TYPE_CHECKING:
    from tinyengine.stages.schedule import Chooser

LEAST = 24.0  # cycles of one iteration of the sum's loop that hide a hint
PIECE = 4096  # bytes of a piece of memory from which on the machine by itself fetches most of it in time
AT_ONCE = 8  # hints


def run(c: Chooser, k: Contraction, sum_loop: str, images: tuple[str, ...]) -> None:
    """Hints in `sum_loop` for what the next tile touches, the loop around it, and for the operands of the next iteration of
    `images`, of which the innermost counts that moves an operand. Only for memory that the second cache does not hold."""
    around = _around(c, sum_loop)
    if not around or _cycles(around[-1]) < LEAST:
        return
    s, path = around[-1], around[:-1]
    operands = {a.buf.name for a in k.reads}
    large = {p.name: p for p in c.kernel.params if p.nbytes > c.machine.l2_bytes}
    inside = {a.buf.name for a in accesses(s.body)}
    for name, p in large.items():
        found = None
        if name not in operands and path and name not in inside and _touched(path[-1], name):
            found = path[-1].name, "what follows the sum of the next tile comes while this one is summed up"
        elif name in operands:
            moving = [x.name for x in path if x.name in images and _moves(x, name)]
            found = (moving[-1], "the next image comes while this one is computed with") if moving else None
        if found is not None:
            text = f"prefetch({name}, {found[0]}, at={sum_loop})"
            c.do_all([(text, "prefetch", found[1])], {"bytes": p.nbytes, "l2_bytes": c.machine.l2_bytes})


def rows(c: Chooser, around: Loop, vectors: tuple[str, ...]) -> None:
    """Hints for the next iteration of each loop in `around` that goes from one short piece of memory to another, in a loop
    inside it that is none of `vectors`."""
    for s in loops((around,)):
        at = next((b for b in s.body if isinstance(b, Loop) and b.name not in vectors and b.trips > 1 and loops(b.body)), None)
        if at is None:
            continue
        for name, p in ((p.name, p) for p in c.kernel.params if p.nbytes > c.machine.l2_bytes):
            lines = _lines(s, name)
            text = f"prefetch({name}, {s.name}, at={at.name})"
            if 0 < lines <= AT_ONCE * at.trips:
                numbers = {"bytes": p.nbytes, "l2_bytes": c.machine.l2_bytes, "lines": lines}
                why = "the next piece lies elsewhere: it comes while this one is computed with"
                c.do_all([(text, "prefetch", why)], numbers)


def _lines(s: Loop, name: str) -> int:
    """Lines of the one short piece of the buffer that an iteration of `s` touches, where the next one does not go on behind it;
    else 0."""
    try:
        buf, sides = region(s, name, "")
    except ScheduleError:
        return 0
    axes, elements = piece(buf, sides)
    nbytes = elements * buf.dtype.itemsize
    steps = [stride(buf, a.at, s.name) for a in accesses(s.body) if a.buf == buf]
    apart = all(x is not None and abs(x) > elements for x in steps)
    return -(-nbytes // LINE) if apart and nbytes <= PIECE and all(n == 1 for _, n in sides[:axes]) else 0


def _around(c: Chooser, name: str) -> list[Loop]:
    """The loops around the first loop of this name, and that loop."""

    def find(body: tuple[Stmt, ...], path: list[Loop]) -> list[Loop]:
        for s in body:
            if isinstance(s, Loop):
                if s.name == name:
                    return [*path, s]
                if found := find(s.body, [*path, s]):
                    return found
        return []

    return find(c.kernel.body, [])


def _cycles(s: Loop) -> float:
    """Of the arithmetic of one iteration."""
    return sum(x.trips * _cycles(x) if isinstance(x, Loop) else operations(x) + 0.5 for x in s.body)


def _touched(s: Loop, name: str) -> bool:
    return any(a.buf.name == name for a in accesses(s.body))


def _moves(s: Loop, name: str) -> bool:
    """Whether the place where the operand is read depends on the loop."""
    at = [e for a in accesses(s.body) if a.buf.name == name for e in a.at]
    return any(x == s.var for e in at for x in subexprs(e))
