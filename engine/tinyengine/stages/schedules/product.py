"""Contractions as the schedule stage sees them: a nest whose innermost loops sum products, and what its operands depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tinyengine.dependence import Access, accesses
from tinyengine.index import terms
from tinyengine.loopnest import Accumulate, Alloc, Let, Loop, Store, load_mask, stmt_exprs, subexprs, walk
from tinyengine.stages.schedules.cost import stride


@dataclass(frozen=True)
class Contraction:
    """`space`: the loops of the result from the outside in; `reduce`: those of the sum; `reads`, `stores`: accesses inside;
    `masked`: buffers that are read under a mask; `accumulators`: the sums; `after`: statements per result."""

    space: tuple[Loop, ...]
    reduce: tuple[Loop, ...]
    reads: tuple[Access, ...]
    stores: tuple[Access, ...]
    masked: frozenset[str]
    accumulators: tuple[str, ...]
    after: int

    def window(self, a: Access, s: Loop) -> bool:
        """Whether `s` shares an axis of the buffer with a reduce loop: a sliding window."""
        names = {r.name for r in self.reduce}
        for e in a.at:
            here = variables(e)
            if s.name in here and here & names:
                return True
        return False

    def footprint(self, a: Access, trips: Mapping[str, int]) -> int:
        """Bytes of the box that `a` touches while these loops run; the others stand still."""
        size = a.buf.dtype.itemsize
        for e in a.at:
            reach = 1
            for atom, c in terms(e)[0]:
                if atom.op == "var" and atom.arg[0] in trips:
                    reach += abs(c) * (trips[atom.arg[0]] - 1)
            size *= reach
        return size


def depends(a: Access, s: Loop) -> bool:
    return stride(a.buf, a.at, s.name) != 0


def variables(e: object) -> set[str]:
    """Names of the loop variables in an index."""
    return {x.arg[0] for x in subexprs(e) if x.op == "var"}  # type: ignore[arg-type]


def axis_of(a: Access, v: Loop) -> int | None:
    """The one axis of the buffer along which `v` moves by one element, or None."""
    found = None
    for axis, e in enumerate(a.at):
        for atom, c in terms(e)[0]:
            if v.name in variables(atom):
                if found is not None or atom.op != "var" or c != 1:
                    return None
                found = axis
    return found


def last(a: Access, axis: int) -> tuple[int, ...]:
    """The axes of the buffer in order, with `axis` moved to the end."""
    return (*(x for x in range(len(a.buf.shape)) if x != axis), axis)


def chain(s: Loop) -> list[Loop]:
    """The loops from `s` inward that stand alone (values beside them) in the one around them, while they are no reductions."""
    out = [s]
    while True:
        rest = [b for b in out[-1].body if not isinstance(b, Let)]
        if len(rest) != 1 or not isinstance(rest[0], Loop) or rest[0].reduce:
            return out
        out.append(rest[0])


def find(around: list[Loop]) -> Contraction | None:
    """The contraction that this nest is, or None."""
    inner = [b for b in around[-1].body if isinstance(b, Loop)]
    if len(inner) != 1 or not inner[0].reduce or any(s.reduce for s in around):
        return None
    sums = tuple(b.buf.name for b in around[-1].body if isinstance(b, Alloc) and b.buf.space == "register")
    reduce = [inner[0]]
    while True:
        below = [b for b in reduce[-1].body if isinstance(b, Loop)]
        if not below:
            break
        if len(below) != 1 or not below[0].reduce or any(not isinstance(b, (Loop, Let)) for b in reduce[-1].body):
            return None
        reduce.append(below[0])
    body = reduce[-1].body
    if not sums or not any(isinstance(b, Accumulate) for b in body) or any(not isinstance(b, (Let, Accumulate)) for b in body):
        return None
    reads = tuple(a for a in accesses((reduce[0],)) if a.op == "read" and a.buf.space != "register")
    stores = tuple(a for a in accesses(tuple(b for b in around[-1].body if isinstance(b, Store))) if a.op == "write")
    masked = frozenset(
        x.arg.name for s in walk((reduce[0],)) if not isinstance(s, Loop) for e in stmt_exprs(s) for x in subexprs(e)
        if x.op == "load" and load_mask(x) is not None
    )  # fmt: skip
    if not reads or not stores:
        return None
    return Contraction(tuple(around), tuple(reduce), reads, stores, masked, sums, len(around[-1].body))
