"""vectorize and accumulate: the iterations of a loop side by side, in the lanes of vectors or in several accumulators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tinyengine import index
from tinyengine.dependence import accesses, carried_beyond_reduction, conflicts
from tinyengine.dtypes import DType, bool_
from tinyengine.index import bounds, terms
from tinyengine.loopnest import (
    INDEX,
    Accumulate,
    Alloc,
    Buf,
    Check,
    Expr,
    Kernel,
    Let,
    Loop,
    Prefetch,
    Stmt,
    apply,
    const,
    lanes_reduce,
    load,
    load_index,
    load_mask,
    name,
    ramp,
    splat,
    stmt_exprs,
    subexprs,
    var,
    walk,
)  # fmt: skip
from tinyengine.stages.primitives.nest import (
    Body,
    Path,
    ScheduleError,
    at,
    build,
    fresh_buffer,
    lanes_of,
    read_buffers,
    rename_buffers,
    used_buffers,
)  # fmt: skip
from tinyengine.stages.primitives.prefetch import hints
from tinyengine.stages.primitives.reorder import reorder


def identity(op: str, dtype: DType) -> float | int | bool:
    """What combines with anything to that: of a sum 0, of a product 1, of a maximum the smallest value."""
    out: float | int | bool = {"add": 0, "mul": 1, "maximum": dtype.min}[op]
    return out


def vectorize(kernel: Kernel, loop: str, lanes: int) -> Kernel:
    """for j in 0..50: out[j] = f(x[j])
       → for j in 0..48 step 16: out[j : j + 16] = f(x[j : j + 16])
         for j in 48..50 step 16: out[48 : 64] = f(x[48 : 64] if 48 : 64 < 50 else 0)  if 48 : 64 < 50

    A reduce loop gets an accumulator per lane, joined by lanes_reduce after the loop. A tail of 2, 4, 8... iterations is a
    narrower vector, another one is masked. Illegal where iterations depend on each other but not as a reduction."""
    if lanes < 2 or lanes & (lanes - 1):
        raise ScheduleError(f"vectorize({loop}, {lanes}): the number of lanes must be 2, 4, 8, ...")
    private: dict[Buf, _Private] = {}
    grown: dict[Buf, Buf] = {}

    def change(s: Loop, path: Path) -> list[Loop]:
        if any(b.op == "ramp" or b.lanes > 1 for t in walk(s.body) for e in stmt_exprs(t) for b in subexprs(e)):
            raise ScheduleError(f"vectorize({loop}, {lanes}): {loop} already contains vectors")
        if s.step != 1:
            raise ScheduleError(f"vectorize({loop}, {lanes}): {loop} has step {s.step}; vectorize the loop inside it")
        if s.trips == 1 and not any(a.buf.space == "register" for a in accesses(s.body)):  # what a split leaves over
            return [s]
        mine = _privatise(kernel, s, f"vectorize({loop}, {lanes})", private, (), (lanes,))
        main = s.start + s.trips // lanes * lanes
        out: list[Loop] = []
        if main > s.start:
            out.append(_widen(s, path, s.start, main, lanes, lanes, mine, grown))
        if main < s.stop:
            rest = s.stop - main
            width = lanes
            while width >= 2 * rest and width > 2 and not _in_registers(s, mine):
                width //= 2
            out.append(_widen(s, path, main, s.stop, width, lanes, mine, grown))
        return out

    kernel = at(kernel, loop, change)
    body = _join_private(kernel.body, private) if private else kernel.body
    return replace(kernel, body=rename_buffers(body, grown))


def accumulate(kernel: Kernel, loop: str, count: int, memory: str = "register") -> Kernel:
    """for reduce k in 0..64: acc += f(k)
       → register acc_0[4] = 0; for reduce ko in 0..64 step 4: unroll ka in 0..4: acc_0[ka] += f(ko + ka)
         unroll ka in 0..4: acc += acc_0[ka]

    Independent chains of additions hide the latency of one. With memory=local each is a whole loop, which may be parallel, and
    they are joined by a tree, in as many steps as `count` has bits:
       → local acc_0[4] = 0; for reduce ka in 0..4: (register acc_1 = 0; for reduce ko: acc_1 += f(ko + ka); acc_0[ka] += acc_1)
         for kat in 0..2: acc_0[kat] += acc_0[kat + 2]; for kat in 0..1: acc_0[kat] += acc_0[kat + 1]; acc += acc_0[0]

    Illegal where the loop is not a reduction."""
    from tinyengine.stages.primitives.apply import tile

    if count < 2:
        raise ScheduleError(f"accumulate({loop}, {count}): the number of accumulators must be at least 2")
    if memory not in ("register", "local"):
        raise ScheduleError(f"accumulate: memory={memory} is neither register nor local")
    private: dict[Buf, _Private] = {}
    text = f"accumulate({loop}, {count})"
    kernel = tile(kernel, loop, count, inner="a")
    part = loop + "a"
    if memory == "local":
        return _by_items(reorder(kernel, part, loop + "o"), loop, count, text)

    def change(s: Loop, path: Path) -> list[Stmt]:
        mine = _privatise(kernel, s, text, private, (count,), ())
        if s.trips == 1:
            return [s]
        if not mine:
            raise ScheduleError(f"{text}: {loop} accumulates into nothing outside it")
        return [replace(s, kind="unroll", body=_redirect(s.body, mine, (s.var,)))]

    kernel = at(kernel, part, change)
    return replace(kernel, body=_join_private(kernel.body, private))


def _by_items(kernel: Kernel, loop: str, count: int, text: str) -> Kernel:
    """Each iteration of loop `a` sums up in registers of its own and adds the result to its element of local memory."""
    private: dict[Buf, _Private] = {}

    def change(s: Loop, path: Path) -> list[Stmt]:
        mine = _privatise(kernel, s, text, private, (count,), ())
        if s.trips == 1:
            return [s]
        if not mine:
            raise ScheduleError(f"{text}: {loop} accumulates into nothing outside it")
        own: dict[Buf, _Private] = {}
        for b, p in mine.items():
            if p.own.space != "local":
                p.own = replace(p.own, space="local")
            own[b] = replace(p, own=replace(b, name=f"{p.own.name}_own"))
        body = _redirect(s.body, own, ())
        ends = [
            _each(p, _width(p, p.own, body), lambda at_, p=p: (mine[p.buf].own, (s.var, *at_), load(p.own, at_)), s.nodes)  # type: ignore[misc]
            for p in own.values()
        ]
        starts = [Alloc(p.own, p.init, s.nodes) for p in own.values()]
        return [replace(s, body=(*starts, *body, *ends))]

    kernel = at(kernel, loop + "a", change)
    return replace(kernel, body=_join_private(kernel.body, private, lambda p, users, nodes: _tree(p, loop + "at", users, nodes)))


def _tree(p: _Private, loop: str, users: Body, nodes: tuple[int, ...]) -> Body:
    """The statements that join the private copies: each step adds the second half of them to the first."""
    out: list[Stmt] = []
    left, width = p.own.shape[0], _width(p, p.own, users)
    while left > 1:
        half = (left + 1) // 2
        v = var(loop, 0, left - half - 1)
        far = index.add(v, index_const(half))
        step = _each(p, width, lambda at_, v=v, far=far: (p.own, (v, *at_), load(p.own, (far, *at_))), nodes)  # type: ignore[misc]
        out.append(Loop(v, 0, left - half, 1, (step,), "serial", False, nodes))
        left = half
    first = index_const(0)
    out.append(_each(p, width, lambda at_: (p.buf, at_, load(p.own, (first, *at_))), nodes))
    return tuple(out)


def _each(
    p: _Private, step: int, f: Callable[[tuple[Expr, ...]], tuple[Buf, tuple[Expr, ...], Expr]], nodes: tuple[int, ...]
) -> Stmt:
    """One accumulation for every element of the accumulator, `step` at a time; f: place -> (buffer, where, value)."""
    places: list[Expr] = []
    around: list[Loop] = []
    for axis, n in enumerate(p.buf.shape):
        width = step if axis == len(p.buf.shape) - 1 else 1
        if width == n:
            v = index_const(0)
        else:
            v = var(f"{p.own.name}_{axis}", 0, n - width)
            around.append(Loop(v, 0, n, width, (), "unroll" if p.buf.space == "register" else "serial", False, nodes))
        places.append(ramp(v, width) if width > 1 else v)
    buf, where, value = f(tuple(places))
    out: Stmt = Accumulate(buf, where, p.op, value, None, nodes)
    for s in reversed(around):
        out = replace(s, body=(out,))
    return out


def _width(p: _Private, buf: Buf, body: Body) -> int:
    """Lanes by which the last axis of `buf` is used in `body`, where the accumulator is a multiple of them; else 1."""
    widths = {a.at[-1].lanes for a in accesses(body) if a.buf == buf} if p.buf.shape else set()
    width = widths.pop() if len(widths) == 1 else 1
    return width if p.buf.shape and p.buf.shape[-1] % width == 0 else 1


# ---- private accumulators


@dataclass
class _Private:
    """Accumulator `buf` and its private copies `own`: (count,) + shape + (lanes,); `op` joins them, `part` counts them."""

    buf: Buf
    own: Buf
    init: float | int | bool
    op: str
    part: Expr | None
    lanes: int


def _privatise(
    kernel: Kernel, s: Loop, text: str, known: dict[Buf, _Private], count: tuple[int, ...], lanes: tuple[int, ...]
) -> dict[Buf, _Private]:
    """Private accumulators for all that different iterations of `s` accumulate into; none when they are independent."""
    why = carried_beyond_reduction(s)
    if why:
        raise ScheduleError(f"{text} is not legal: {why}")
    mine: dict[Buf, _Private] = {}
    for a, _ in conflicts(s):
        if a.buf.space == "global":
            clash = f"iterations of {s.name} may add to the same element of {a.buf.name}, which is not private"
            raise ScheduleError(f"{text} is not legal: {clash}")
        if a.buf not in known:
            init = next((x.init for x in walk(kernel.body) if isinstance(x, Alloc) and x.buf == a.buf), None)
            neutral = identity(a.op, a.buf.dtype)
            start = init if init is not None and init == neutral else neutral  # keeps the sign of a zero
            own = Buf(fresh_buffer(kernel, f"{a.buf.name}_{len(known)}"), a.buf.dtype, count + a.buf.shape + lanes, a.buf.space)
            part = var(s.name, 0, count[0] - 1) if count else None
            known[a.buf] = _Private(a.buf, own, start, a.op, part, lanes[0] if lanes else 0)
        mine[a.buf] = known[a.buf]
    return mine


def _join(p: _Private, users: Body, nodes: tuple[int, ...]) -> Body:
    """The statement that adds the private copies to the accumulator: each element once, by vectors where they use vectors."""
    kind = "unroll" if p.buf.space == "register" else "serial"
    group = _grouping(p, users)
    loops_: list[Loop] = []
    at_: list[Expr] = []
    for axis, n in enumerate(p.buf.shape):
        step = group if axis == len(p.buf.shape) - 1 else 1
        v = var(f"{p.own.name}_{axis}", 0, n - step)
        loops_.append(Loop(v, 0, n, step, (), kind, False, nodes))
        at_.append(ramp(v, step) if step > 1 else v)
    if p.part is None:
        value = lanes_reduce(p.op, load(p.own, (*at_, ramp(index_const(0), p.lanes))))
    else:
        value = load(p.own, (p.part, *at_))
        loops_.append(Loop(p.part, 0, p.own.shape[0], 1, (), "unroll", False, nodes))
    out: Stmt = Accumulate(p.buf, tuple(at_), p.op, value, None, nodes)
    for loop in reversed(loops_):
        out = replace(loop, body=(out,))
    return (out,)


def _grouping(p: _Private, users: Body) -> int:
    """Lanes by which the last axis of the accumulator is used, where its extent is a multiple of them; else 1."""
    return 1 if p.lanes else _width(p, p.own, users)


def index_const(value: int) -> Expr:
    return const(value, INDEX)


def _redirect(body: Body, mine: dict[Buf, _Private], first: tuple[Expr, ...]) -> Body:
    """Accumulations into private copies, at `first`."""
    out: list[Stmt] = []
    for s in body:
        if isinstance(s, Loop):
            s = replace(s, body=_redirect(s.body, mine, first))
        elif isinstance(s, Accumulate) and s.buf in mine:
            s = replace(s, buf=mine[s.buf].own, index=(*first, *s.index))
        out.append(s)
    return tuple(out)


def _join_private(
    body: Body, private: dict[Buf, _Private], join: Callable[[_Private, Body, tuple[int, ...]], Body] = _join
) -> Body:
    """Allocate private accumulators before, and join them after, the statements that use them, beside the accumulator."""
    out = [replace(s, body=_join_private(s.body, private, join)) if isinstance(s, Loop) else s for s in body]
    for s in body:
        if not (isinstance(s, Alloc) and s.buf in private):
            continue
        p = private[s.buf]
        users = [i for i, x in enumerate(out) if p.own in used_buffers((x,))]
        first, last = users[0], users[-1]
        for x in out[first : last + 1]:
            for y in walk((x,)):
                if any(p.buf in read_buffers(e) for e in stmt_exprs(y)):
                    raise ScheduleError(f"{p.buf.name} is read between two loops that accumulate into it")
        out[last + 1 : last + 1] = join(p, tuple(out[first : last + 1]), s.nodes)
        out.insert(first, Alloc(p.own, p.init, s.nodes))
    return tuple(out)


# ---- widening


def _in_registers(s: Loop, mine: dict[Buf, _Private]) -> bool:
    """Whether `s` works on registers that live outside it: these keep one width."""
    own = {x.buf for x in walk(s.body) if isinstance(x, Alloc)}
    return bool(mine) or any(b.space == "register" and b not in own for b in used_buffers(s.body))


def _widen(
    s: Loop, path: Path, start: int, stop: int, lanes: int, full: int, mine: dict[Buf, _Private], grown: dict[Buf, Buf]
) -> Loop:
    """`s` from start to stop in vectors; a single masked one where stop - start < lanes."""
    tail = stop - start < lanes
    trips = 1 if stop - start <= lanes else (stop - start) // lanes
    v = var(s.name, start, start + (trips - 1) * lanes)
    base = v if trips > 1 else index_const(start)
    mask = apply("lt", (ramp(base, lanes), splat(index_const(stop), lanes))) if tail else None
    w = Widener(s.var, base, lanes, mask, mine, grown, f"_{lanes}" if lanes < full else "", min(lanes, stop - start))
    w.grid = {p.name: (p.start, p.step) for p in path} | {s.name: (start, lanes)}
    body = w.body(s.body)
    return replace(s, var=v, start=start, stop=stop, step=lanes, body=body, first=None)


@dataclass
class Widener:
    v: Expr
    base: Expr
    lanes: int
    mask: Expr | None
    mine: dict[Buf, _Private]
    grown: dict[Buf, Buf]
    suffix: str  # of accumulators: one name has one width
    valid: int  # lanes that stand for iterations
    names: set[str] = field(default_factory=set)
    expanded: dict[Buf, Buf] = field(default_factory=dict)
    grid: dict[str, tuple[int, int]] = field(default_factory=dict)
    memo: dict[Expr, Expr] = field(default_factory=dict)

    def body(self, body: Body) -> Body:
        out: list[Stmt] = []
        for s in body:
            out += hints(s.buf, tuple(map(self.expr, s.index)), s.nodes) if isinstance(s, Prefetch) else [self.stmt(s)]
        return tuple(out)

    def stmt(self, s: Stmt) -> Stmt:
        n = self.lanes
        if isinstance(s, Loop):
            self.grid[s.name] = (s.start, s.step)
            return replace(s, body=self.body(s.body))
        if isinstance(s, Alloc):
            self.expanded[s.buf] = Buf(s.buf.name + self.suffix, s.buf.dtype, (*s.buf.shape, n), s.buf.space)
            return replace(s, buf=self.expanded[s.buf])
        if isinstance(s, Let):
            value = self.expr(s.value)
            if (value.lanes > 1) != (s.name in self.names):  # neighbours may define one name differently
                self.names ^= {s.name}
                self.memo.clear()
            return replace(s, value=value)
        if isinstance(s, Check):
            condition = self.expr(s.condition)
            if condition.lanes > 1 and self.mask is not None:
                condition = apply("where", (self.mask, condition, const(True, bool_)))
            return replace(s, condition=condition)
        assert not isinstance(s, Prefetch)
        value, buf = self.expr(s.value), s.buf
        at_ = tuple([self.expr(e) for e in s.index])
        mask = self.expr(s.mask) if s.mask is not None else None
        lane = ramp(index_const(0), n)
        private = isinstance(s, Accumulate) and buf in self.mine
        if private:
            buf, at_ = self.mine[buf].own, (*at_, lane)
        elif buf in self.expanded:
            buf, at_ = self.expanded[buf], (*at_, lane)
        elif all(e.lanes == 1 for e in at_):
            raise ScheduleError(f"{self.v.arg[0]} does not address {buf.name}, which is written in it")
        if self.mask is not None and (private or (s.buf not in self.expanded and not self.spares(s.buf, at_))):
            mask = self.mask if mask is None else build(apply("and", (self.mask, mask)), (self.mask, lanes_of(mask, n)))
        mask = None if mask is None else lanes_of(mask, n)
        s = replace(s, buf=buf, index=at_, value=lanes_of(value, n), mask=mask)
        return replace(s, only=self.expr(s.only)) if isinstance(s, Accumulate) and s.only is not None else s

    def grows(self, buf: Buf, at_: tuple[Expr, ...]) -> bool:
        """Registers are read without a mask: the array grows to whole vectors instead."""
        if buf.space != "register":
            return False
        shape = tuple(max(d, bounds(e)[1] + 1) for d, e in zip(buf.shape, at_, strict=True))
        old = self.grown.get(buf, buf)
        shape = tuple(map(max, shape, old.shape))
        if shape != buf.shape:
            self.grown[buf] = Buf(buf.name, buf.dtype, shape, buf.space)
        return True

    def spares(self, buf: Buf, at_: tuple[Expr, ...]) -> bool:
        """Whether a write to registers needs no mask either: the lanes too many lie behind the last element."""
        return self.grows(buf, at_) and all(
            e.lanes == 1 or (e.op == "ramp" and e.arg == 1 and e.args[0].op == "const" and e.args[0].arg + self.valid >= d)
            for d, e in zip(buf.shape, at_, strict=True)
        )

    def expr(self, e: Expr) -> Expr:
        found = self.memo.get(e)
        if found is None:
            found = self.memo[e] = self.rebuilt(e)
        return found

    def rebuilt(self, e: Expr) -> Expr:
        op, n = e.op, self.lanes
        if e is self.v:
            return ramp(self.base, n)
        if op == "name":
            return name(e.arg, e.dtype, n) if e.arg in self.names else e
        if op == "load":
            return self.load(e)
        if not e.args:
            return e
        args = tuple([self.expr(a) for a in e.args])
        if all(a.lanes == 1 for a in args):
            return e if args == e.args else build(e, args)
        if e.dtype is INDEX and e.lanes == 1 and op in ("add", "sub", "mul", "neg", "floordiv", "mod"):
            return self.position(e, args)
        args = tuple([lanes_of(a, n) for a in args])
        return build(Expr(op, e.dtype, n, args, e.arg), args)

    def position(self, e: Expr, args: tuple[Expr, ...]) -> Expr:
        """Index arithmetic over lanes: a ramp or one scalar for all lanes where that can be shown."""
        ts, constant = terms(e)
        if len(ts) == 1 and ts[0] == (e, 1):
            x = args[0]
            if e.op in ("floordiv", "mod") and x.op == "ramp" and x.arg > 0 and e.args[1].op == "const":
                c = e.args[1].arg
                g, r = index.residue(x.args[0], c, self.grid)
                if g - r > x.arg * (x.lanes - 1):  # no lane has another quotient than the first
                    low = index_const(r) if g == c else index.mod(x.args[0], c)
                    return index.floordiv(x.args[0], c) if e.op == "floordiv" else ramp(low, x.lanes, x.arg)
            args = tuple([lanes_of(a, self.lanes) for a in args])
            return Expr(e.op, INDEX, self.lanes, args, e.arg)
        return index.over_lanes([(self.expr(atom), c) for atom, c in ts], constant)

    def load(self, e: Expr) -> Expr:
        buf: Buf = e.arg
        at_ = tuple([self.expr(i) for i in load_index(e)])
        guard = load_mask(e)
        mask = self.expr(guard) if guard is not None else None
        if buf in self.expanded:
            buf, at_ = self.expanded[buf], (*at_, ramp(index_const(0), self.lanes))
        vector = any(i.lanes > 1 for i in at_)
        if not vector and (mask is None or mask.lanes == 1):
            if at_ == load_index(e) and mask is guard:
                return e
            return build(load(e.arg, load_index(e), guard), at_ if mask is None else (*at_, mask))
        if not vector:
            at_ = tuple([splat(i, self.lanes) for i in at_])
        if self.mask is not None and e.arg not in self.expanded and not self.grows(buf, at_):
            mask = self.mask if mask is None else apply("and", (self.mask, mask))
        if mask is not None and mask.op == "const":
            return load(buf, at_) if mask.arg else const(0, e.dtype, self.lanes)
        return load(buf, at_, mask)  # one bit for all lanes stays one
