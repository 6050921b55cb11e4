"""reorder and merge: another order of nested loops, or one loop instead of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from math import prod

from tinyengine import index
from tinyengine.dependence import accesses, carried, carried_beyond_reduction
from tinyengine.loopnest import (
    Accumulate,
    Alloc,
    Buf,
    Expr,
    Kernel,
    Let,
    Loop,
    Stmt,
    Store,
    load,
    load_index,
    load_mask,
    map_expr,
    map_stmt,
    stmt_exprs,
    subexprs,
    var,
    walk,
)  # fmt: skip
from tinyengine.loopnest import index as constant
from tinyengine.stages.primitives.nest import (
    Body,
    ScheduleError,
    closure,
    listing,
    loops,
    rename_buffers,
    rewrite,
    sinkable,
    substitution,
    used_buffers,
    used_names,
    written,
)

REGISTER_ELEMENTS = 512  # an accumulator that grows beyond 32 vectors of 16 is no register array any more, but local memory


def reorder(kernel: Kernel, *names: str, memory: str = "register") -> Kernel:
    """for i: for j: S → for j: for i: S                                    (`reorder(j, i)`)

    A loop that is not alone in the body of the one around it is first split off; an accumulator then becomes an array:
    for i: for j: (register acc = 0; for reduce k: acc += f; out[i, j] = acc)
       → register acc[I, J] = 0; for reduce k: unroll i: unroll j: acc[i, j] += f
         unroll i: unroll j: out[i, j] = acc[i, j]                            (`reorder(k, i, j)`: the register tile)

    With memory=local, or where it is too large, that array is cache-resident memory and nothing is unrolled. Illegal where
    iterations of one of the loops depend on each other in another way than through a reduction."""
    if memory not in ("register", "local"):
        raise ScheduleError(f"reorder: memory={memory} is neither register nor local")
    text = f"reorder({', '.join(names)})"
    if len(names) < 2 or len(set(names)) != len(names):
        raise ScheduleError(f"{text}: name at least two different loops")
    missing = set(names) - {s.name for s in loops(kernel.body)}
    if missing:
        raise ScheduleError(f"{text}: no loop is called {', '.join(sorted(missing))}; {listing(kernel)}")
    if kernel.parallel is not None and kernel.parallel.name in names:
        raise ScheduleError(f"{text}: {kernel.parallel.name} is parallel; reorder before parallel")
    done = 0

    def visit(body: Body) -> Body:
        nonlocal done
        out: list[Stmt] = []
        for s in body:
            if isinstance(s, Loop):
                below = {x.name for x in loops((s,))}
                if s.name in names and set(names) <= below:
                    out += _gather(s, names, text, memory)
                    done += 1
                    continue
                s = replace(s, body=visit(s.body))
            out.append(s)
        return tuple(out)

    body = distinct(visit(kernel.body))
    if not done:
        raise ScheduleError(f"{text}: the loops {', '.join(names)} do not stand inside each other")
    return replace(kernel, body=body)


def _gather(root: Loop, names: Sequence[str], text: str, memory: str) -> list[Stmt]:
    """The statements that replace `root`: the named loops as one perfect nest in the new order, what was split off around it."""
    chain, hoisted = [root], []
    body = root.body
    before: list[Stmt] = []
    while len(chain) < len(names):
        inside = [s for s in body if isinstance(s, Loop) and s.name in names]
        wanted = next((s for s in body if isinstance(s, Loop) and {x.name for x in loops((s,))} & set(names)), None)
        if wanted is None:
            left = ", ".join(sorted(set(names) - {c.name for c in chain}))
            raise ScheduleError(f"{text}: inside {chain[-1].name} there is no loop called {left}")
        if not inside:
            raise ScheduleError(f"{text}: {wanted.name} stands between {chain[-1].name} and the loops inside it; name it too")
        segments = _segments(body, names)
        lets = [s for s in body if isinstance(s, Let)]
        if len(segments) == 1 and not any(isinstance(s, Alloc) for s in body):
            loop = inside[0]
            needed = closure(used_names((loop,)), lets)
            why = sinkable(needed, loop.body)
            if why:
                raise ScheduleError(f"{text} is not legal: {why}")
            chain.append(loop)
            body = (*needed, *loop.body)
            continue
        # more than the loop: split the nest around it into one nest per segment
        for c in chain:
            why = carried_beyond_reduction(replace(chain[0], body=_wrap(chain[1:], body))) if c is chain[0] else carried(c)
            if why:
                raise ScheduleError(f"{text} is not legal: {why}")
        ordered = sorted(chain, key=lambda c: names.index(c.name))
        pieces, allocs, unrolled = _fission(body, ordered, segments, names, text, memory)
        hoisted += allocs
        if unrolled:
            chain, ordered = ([replace(c, kind="unroll") for c in x] for x in (chain, ordered))
        out: list[Stmt] = []
        for piece in pieces:
            first = next((s for s in piece if isinstance(s, Loop) and s.name in names), None)
            nest = _wrap(chain, piece)[0]
            assert isinstance(nest, Loop)
            if first is not None and set(names) <= {x.name for x in loops((nest,))}:
                out += _gather(nest, names, text, memory)
            else:
                out += _wrap(ordered, piece)
        return [*hoisted, *before, *out]
    _legal(chain, body, text)
    registers = _register_variables(body)
    ordered = [replace(c, kind="unroll") if c.name in registers else c for c in sorted(chain, key=lambda c: names.index(c.name))]
    return [*hoisted, *_wrap(ordered, body)]


def _register_variables(body: Body) -> set[str]:
    """The loop variables that address register arrays from outside: these loops must be unrolled."""
    own = {s.buf for s in walk(body) if isinstance(s, Alloc)}
    return {
        x.arg[0] for a in accesses(body) if a.buf.space == "register" and a.buf not in own
        for e in a.at for x in subexprs(e) if x.op == "var"
    }  # fmt: skip


def _wrap(chain: Sequence[Loop], body: Body) -> Body:
    for c in reversed(chain):
        body = (replace(c, body=body),)
    return body


def distinct(body: Body, above: frozenset[str] = frozenset()) -> Body:
    """Memory that is allocated under a name that its block, or one around it, has already gets another name."""
    seen = set(above)
    for i, s in enumerate(body):
        if isinstance(s, Alloc):
            name = s.buf.name
            if name in seen:
                name = next(f"{s.buf.name}_{n}" for n in range(1, 1000) if f"{s.buf.name}_{n}" not in seen)
                return distinct((*body[:i], *rename_buffers(body[i:], {s.buf: replace(s.buf, name=name)})), above)
            seen.add(name)
    return tuple(replace(s, body=distinct(s.body, frozenset(seen))) if isinstance(s, Loop) else s for s in body)


def _legal(chain: list[Loop], body: Body, text: str) -> None:
    nest = _wrap(chain, body)
    for _ in chain:
        loop = nest[0]
        assert isinstance(loop, Loop)
        why = carried_beyond_reduction(loop)
        if why:
            raise ScheduleError(f"{text} is not legal: {why}")
        nest = loop.body


def _segments(body: Body, names: Sequence[str]) -> list[Body]:
    """The body without Lets and Allocs, cut at the loops that are named."""
    rest = [s for s in body if not isinstance(s, (Let, Alloc))]
    out: list[Body] = []
    for own, group in groupby(rest, lambda s: s if isinstance(s, Loop) and s.name in names else None):
        out.append((own,) if own is not None else tuple(group))
    return out


def _fission(
    original: Body, chain: list[Loop], segments: list[Body], names: Sequence[str], text: str, memory: str
) -> tuple[list[Body], list[Stmt], bool]:
    """Every segment with the values that it needs; the memory that several segments share, with an axis for each loop of `chain`;
    and whether that is registers, so that the loops must be unrolled."""
    allocs = [s for s in original if isinstance(s, Alloc)]
    lets = [s for s in original if isinstance(s, Let)]
    position = {id(s): i for i, s in enumerate(original)}
    pieces: list[Body] = []
    for segment in segments:
        needed = closure(used_names(segment), lets)
        for s in needed:
            reads = {x.arg for x in subexprs(s.value) if x.op == "load"}
            between = written(x for x in original[position[id(s)] :] if position[id(x)] < position[id(segment[0])])
            # values stand first in their segment: only what it writes before this one in the original counts
            before = written(x for x in segment if position[id(x)] < position[id(s)]) - {a.buf for a in allocs}
            if reads & (between | before):
                again = ", ".join(b.name for b in reads)
                raise ScheduleError(f"{text} is not legal: {s.name} would read {again} again after it was written")
        pieces.append(tuple(sorted((*needed, *segment), key=lambda s: position[id(s)])))
    shared: dict[Buf, Buf] = {}
    hoisted: list[Stmt] = []
    unrolled = False
    for a in allocs:
        users = [i for i, p in enumerate(pieces) if a.buf in used_buffers(p)]
        moves = any(isinstance(s, Loop) and s.name in names for i in users for s in pieces[i])
        if len(users) == 1 and not moves:
            pieces[users[0]] = (a, *pieces[users[0]])
        elif users:
            shape = tuple(c.trips for c in chain) + a.buf.shape
            buf = Buf(a.buf.name, a.buf.dtype, shape, a.buf.space)
            if buf.size > REGISTER_ELEMENTS or memory == "local":
                buf = replace(buf, space="local")
            unrolled = unrolled or buf.space == "register"
            shared[a.buf] = buf
            hoisted.append(replace(a, buf=buf))
    place = tuple(index.floordiv(index.sub(c.var, constant(c.start)), c.step) for c in chain)
    return [moved(p, shared, place) for p in pieces], hoisted, unrolled


def moved(body: Body, shared: dict[Buf, Buf], place: tuple[Expr, ...]) -> Body:
    """Accesses to memory that has got an axis per loop."""
    if not shared:
        return body
    memo: dict[Expr, Expr] = {}

    def f(e: Expr) -> Expr | None:
        if e.op == "load" and e.arg in shared:
            return load(shared[e.arg], (*place, *load_index(e)), load_mask(e))
        return None

    def visit(s: Stmt) -> Stmt:
        if isinstance(s, Loop):
            return replace(s, body=tuple(map(visit, s.body)))
        s = map_stmt(s, lambda e: map_expr(e, f, memo))
        if isinstance(s, (Store, Accumulate)) and s.buf in shared:
            return replace(s, buf=shared[s.buf], index=(*place, *s.index))
        return s

    return tuple(map(visit, body))


# ---- merge


def merge(kernel: Kernel, *names: str) -> Kernel:
    """for i in 0..8: for j in 0..16: out[i, j] = f(x[i, j])  →  for ij in 0..128: out[ij] = f(x[ij])

    Buffers are seen with the merged axes as one. Illegal where an access is not contiguous over all of the merged loops."""
    text = f"merge({', '.join(names)})"
    if len(names) < 2:
        raise ScheduleError(f"{text}: name at least two loops")
    if not any(s.name == names[0] for s in loops(kernel.body)):
        raise ScheduleError(f"{text}: no loop is called {names[0]!r}; {listing(kernel)}")
    if "".join(names) in {s.name for s in loops(kernel.body)}:
        raise ScheduleError(f"{text}: a loop {''.join(names)} exists already")

    def visit(b: Body) -> Body:
        return tuple(
            _merged(s, names, text) if isinstance(s, Loop) and s.name == names[0]
            else replace(s, body=visit(s.body)) if isinstance(s, Loop)
            else s
            for s in b
        )  # fmt: skip

    out, flat = visit(kernel.body), "".join(names)
    out, params = _apply_views(kernel, out, _views(out))
    for s in walk(out):
        for e in stmt_exprs(s) if not isinstance(s, Loop) else ():
            for x in subexprs(e):
                if x.op in ("floordiv", "mod") and any(y.op == "var" and y.arg[0] == flat for y in subexprs(x)):
                    raise ScheduleError(f"{text} is not legal: {_where(s)} is not contiguous over all of {', '.join(names)}")
    return replace(kernel, body=out, params=params)


def _merged(root: Loop, names: Sequence[str], text: str) -> Loop:
    """One loop for `root` and those in it; of a split one the part stays where it is."""
    chain, body = [root], root.body
    for n in names[1:]:
        inner = [s for s in body if not isinstance(s, Let)]
        if len(inner) != 1 or not isinstance(inner[0], Loop) or inner[0].name != n:
            raise ScheduleError(f"{text}: the body of {chain[-1].name} is not just the loop {n}")
        lets = [s for s in body if isinstance(s, Let)]
        why = sinkable(lets, inner[0].body)
        if why:
            raise ScheduleError(f"{text} is not legal: {why}")
        chain.append(inner[0])
        body = (*lets, *inner[0].body)
    if any(c.step != 1 or c.reduce != root.reduce or c.kind != "serial" for c in chain) or any(c.start for c in chain[1:]):
        raise ScheduleError(f"{text}: the loops must be serial, start at 0, have step 1 and be all or none a reduction")
    if any(c.limit is not None for c in chain[1:]):
        raise ScheduleError(f"{text}: the rows of {chain[-1].name} have a symbolic length: together they are no row")
    row = prod(c.trips for c in chain[1:])
    start, stop = root.start * row, root.stop * row
    flat = var("".join(names), start, stop - 1)
    parts = index.unflatten(flat, (root.stop, *(c.trips for c in chain[1:])))
    body = rewrite(body, substitution({c.var: p for c, p in zip(chain, parts, strict=True)}))
    limit = root.limit if root.limit is None else index.mul(root.limit, row)
    return Loop(flat, start, stop, 1, body, "serial", root.reduce, root.nodes, limit)


def _where(s: Stmt) -> str:
    for e in stmt_exprs(s):
        for x in subexprs(e):
            if x.op == "load":
                return f"{x.arg.name}[{', '.join(map(str, load_index(x)))}]"
    return f"{s.buf.name}" if isinstance(s, (Store, Accumulate)) else type(s).__name__


def _views(body: Body) -> dict[Buf, list[list[int]]]:
    """For each buffer the groups of neighbouring axes that are one contiguous axis in every access."""
    seen: dict[Buf, set[tuple[Expr, ...]]] = {}
    for s in walk(body):
        if isinstance(s, (Store, Accumulate)):
            seen.setdefault(s.buf, set()).add(s.index)
        for e in stmt_exprs(s):
            for x in subexprs(e):
                if x.op == "load":
                    seen.setdefault(x.arg, set()).add(load_index(x))
    out: dict[Buf, list[list[int]]] = {}
    for buf, every in seen.items():
        divided = [at for at in every if any(index.divisions(e) for e in at)]  # others hold none however axes are joined
        if not divided:
            continue
        views = _Views(buf, divided)
        groups: list[tuple[int, ...]] = []
        for axis in range(len(buf.shape)):
            groups.append((axis,))
            while len(groups) > 1 and views.join(groups[-2:]):
                groups[-2:] = [groups[-2] + groups[-1]]
        # axes that only join as a whole (a product of three loops)
        if len(groups) > 1 and views.join(groups):
            groups = [tuple(range(len(buf.shape)))]
        if len(groups) < len(buf.shape):
            out[buf] = [list(g) for g in groups]
    return out


def _flat(buf: Buf, at: tuple[Expr, ...], axes: Sequence[int]) -> Expr:
    return index.flatten([at[a] for a in axes], tuple(buf.shape[a] for a in axes))


class _Views:
    """What one axis in place of several does to the accesses of a buffer."""

    def __init__(self, buf: Buf, all_at: Sequence[tuple[Expr, ...]]) -> None:
        self.buf, self.all_at = buf, all_at
        self._known: dict[tuple[int, ...], list[int]] = {}

    def divisions(self, axes: tuple[int, ...]) -> list[int]:
        """How many divisions each access holds in the one axis for these."""
        found = self._known.get(axes)
        if found is None:
            found = self._known[axes] = [index.divisions(_flat(self.buf, at, axes)) for at in self.all_at]
        return found

    def join(self, groups: Sequence[tuple[int, ...]]) -> bool:
        """Whether one axis for these groups takes divisions away from some accesses and adds none to the others."""
        together = self.divisions(tuple([a for g in groups for a in g]))
        apart = zip(*[self.divisions(g) for g in groups], strict=True)
        change: list[int] = [after - sum(before) for after, before in zip(together, apart, strict=True)]
        return max(change) <= 0 and min(change) < 0


def _apply_views(kernel: Kernel, body: Body, views: dict[Buf, list[list[int]]]) -> tuple[Body, tuple[Buf, ...]]:
    new: dict[Buf, Buf] = {}
    for buf, groups in views.items():
        shape = []
        for g in groups:
            n = 1
            for a in g:
                n *= buf.shape[a]
            shape.append(n)
        new[buf] = replace(buf, shape=tuple(shape))
    memo: dict[Expr, Expr] = {}

    def moved(buf: Buf, at: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return tuple(_flat(buf, at, g) for g in views[buf])

    def f(e: Expr) -> Expr | None:
        return load(new[e.arg], moved(e.arg, load_index(e)), load_mask(e)) if e.op == "load" and e.arg in new else None

    def visit(s: Stmt) -> Stmt:
        if isinstance(s, Loop):
            return replace(s, body=tuple(map(visit, s.body)))
        if isinstance(s, Alloc):
            return replace(s, buf=new.get(s.buf, s.buf))
        s = map_stmt(s, lambda e: map_expr(e, f, memo))
        if isinstance(s, (Store, Accumulate)) and s.buf in new:
            return replace(s, buf=new[s.buf], index=moved(s.buf, s.index))
        return s

    return tuple(map(visit, body)), tuple(new.get(p, p) for p in kernel.params)
