"""Kernels of equal form: what is decided about one holds for all, under their own names.

The form of a kernel is the kernel with its own name, its buffers and its values called by their places. A schedule is chosen for
the form; its names come back by substitution, also in those that a schedule made of them (`t5_pack`, `t5_0i`) and in the texts of
decisions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from tinyengine.hooks import Decision
from tinyengine.loopnest import Accumulate, Alloc, Buf, Check, Expr, Kernel, Let, Loop, Prefetch, Stmt, Store, map_expr, walk

_PLACE = re.compile(r"t(\d+)z(_?)")  # sorts behind the names of loops, as the names of most values do


@dataclass(frozen=True, slots=True)
class Form:
    """`kernel` with places for names; `names[i]` stands for place i, `nodes[i]` for node i. `key`: equal exactly for equal
    forms."""

    kernel: Kernel
    names: tuple[str, ...]
    nodes: tuple[int, ...]

    @property
    def key(self) -> tuple[object, ...]:
        # 0.0 and -0.0 are equal, and not the same start of a sum
        return self.kernel, tuple([repr(s.init) for s in walk(self.kernel.body) if isinstance(s, Alloc)])

    def named(self, kernel: Kernel) -> Kernel:
        """What became of the form's kernel, with the names put back."""
        return _renamed(kernel, _Names(self.names).__getitem__, self.nodes.__getitem__)

    def explained(self, decisions: tuple[Decision, ...]) -> tuple[Decision, ...]:
        """Decisions about the form's kernel, with the names put back."""
        put = _Names(self.names).__getitem__
        return tuple(
            [
                replace(
                    d,
                    subject=tuple([put(x) if isinstance(x, str) else x for x in d.subject]),
                    verdict=put(d.verdict),
                    reason=put(d.reason),
                    alternatives={put(k): put(v) for k, v in d.alternatives.items()},
                )
                for d in decisions
            ]
        )


class _Names(dict[str, str]):
    """Text with places -> text with names. Where one name is another with a number (acc, acc_1), what a schedule made of them
    ends the name with a z first: acc_1 made of acc would be taken."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        every = set(names)
        pairs = [(n, n[: m.start()]) for n in names for m in re.finditer("_", n) if n[: m.start()] in every]
        alike = {n for pair in pairs for n in pair}
        self.stems = [f"{n}z" if n in alike else n for n in names]

    def _put(self, m: re.Match[str]) -> str:
        return f"{self.stems[int(m[1])]}_" if m[2] else self.names[int(m[1])]

    def __missing__(self, text: str) -> str:
        out = self[text] = _PLACE.sub(self._put, text) if "z" in text else text
        return out


def form(kernel: Kernel) -> Form:
    """The form of a kernel, and its names."""
    place: dict[str, str] = {kernel.name: "t0z"}
    nodes: set[int] = set()
    for p in kernel.params:
        place.setdefault(p.name, f"t{len(place)}z")
    for s in walk(kernel.body):
        nodes.update(s.nodes)
        if isinstance(s, (Alloc, Let)):
            place.setdefault(s.buf.name if isinstance(s, Alloc) else s.name, f"t{len(place)}z")
    order = sorted(nodes)
    number = {n: i for i, n in enumerate(order)}
    return Form(_renamed(kernel, lambda n: place.get(n, n), number.__getitem__), tuple(place), tuple(order))


def _renamed(kernel: Kernel, name: Callable[[str], str], node: Callable[[int], int]) -> Kernel:
    memo: dict[Expr, Expr] = {}
    bufs: dict[Buf, Buf] = {}

    def buf(b: Buf) -> Buf:
        found = bufs.get(b)
        if found is None:
            found = bufs[b] = replace(b, name=name(b.name))
        return found

    def leaf(e: Expr) -> Expr | None:
        if e.op == "load":
            return Expr("load", e.dtype, e.lanes, e.args, buf(e.arg))
        if e.op == "name":
            return Expr("name", e.dtype, e.lanes, (), name(e.arg))
        if e.op == "var":
            return Expr("var", e.dtype, e.lanes, (), (name(e.arg[0]), *e.arg[1:]))
        return None

    def expr(e: Expr) -> Expr:
        return map_expr(e, leaf, memo)

    def exprs(es: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return tuple([expr(e) for e in es])

    def stmt(s: Stmt) -> Stmt:
        at = tuple([node(n) for n in s.nodes]) if s.nodes else ()
        if isinstance(s, Loop):
            limit, first = (expr(e) if e is not None else None for e in (s.limit, s.first))
            body = tuple([stmt(b) for b in s.body])
            return Loop(expr(s.var), s.start, s.stop, s.step, body, s.kind, s.reduce, at, limit, first)
        if isinstance(s, Let):
            return Let(name(s.name), expr(s.value), at)
        if isinstance(s, Alloc):
            return Alloc(buf(s.buf), s.init, at)
        if isinstance(s, Check):
            return Check(expr(s.condition), s.message, at)
        if isinstance(s, Prefetch):
            return Prefetch(buf(s.buf), exprs(s.index), at)
        mask = expr(s.mask) if s.mask is not None else None
        if isinstance(s, Store):
            return Store(buf(s.buf), exprs(s.index), expr(s.value), mask, s.hint, at)
        assert isinstance(s, Accumulate)
        return Accumulate(buf(s.buf), exprs(s.index), s.op, expr(s.value), mask, at, expr(s.only) if s.only is not None else None)

    return Kernel(
        name(kernel.name), tuple([buf(p) for p in kernel.params]), tuple([stmt(s) for s in kernel.body]),
        tuple([name(o) for o in kernel.outputs]), tuple([name(str(p)) for p in kernel.schedule]),
    )  # fmt: skip
