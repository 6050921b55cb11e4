"""Kernels without a part of their work, for measuring what bounds them (see `ablation`). Loops, their order, vectors and threads
stay; nothing is touched that the kernel does not touch itself.

What a variant has no other use for is added up, as the integers its bits are, in a few registers. These are compared with a
number at the end, and something would be stored if they were equal: that way no compiler may leave anything out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from tinyengine import index as positions
from tinyengine.dtypes import DType, bool_, by_name, float32, uint32
from tinyengine.footprint import accesses, box, positional
from tinyengine.loopnest import (
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
    Store,
    apply,
    const,
    index,
    lanes_reduce,
    load,
    map_stmt,
    ramp,
    stmt_exprs,
    subexprs,
    walk,
)
from tinyengine.stages.emit import split
from tinyengine.stages.primitives.nest import Body, fresh_buffer, substitution, tidy, used_buffers

CHAINS, CHAIN_LANES = 4, 64  # sums of each kind of value, and their lanes together: enough that none waits for the one before it
NEVER = 0x5BD1E995  # what no sum is, but for one in four thousand million
WINDOWS = (64, 32, 16, 8, 4, 2)  # iterations of a loop in the window


def loads_only(kernel: Kernel) -> Kernel:
    """The kernel with all its loads and stores, of zeros. Of the arithmetic, what addresses, masks and checks depend on."""
    return _Loads(kernel).run()


def arithmetic_only(kernel: Kernel, window_bytes: int) -> Kernel:
    """The kernel with all its arithmetic and no stores. Its loads lie in a small window of each input: the position in each loop
    is taken modulo a power of two, such that the windows take at most `window_bytes` together, if two iterations of each loop do.
    Memory of the kernel's own (packed panels, kept rows) is written and read as before: it was made to lie in cache."""
    for window in WINDOWS:
        made = _Arithmetic(kernel, window).run()
        reads = {(a.buf, a.index, a.mask): a for a in accesses(made) if not a.write and a.buf.space == "global"}
        if sum(box(a).n * a.buf.dtype.itemsize for a in reads.values()) <= window_bytes:
            break
    return made


def empty(kernel: Kernel) -> Kernel:
    """The launch of the kernel: its parallel loop, around nothing."""
    body = tuple(replace(s, body=()) for s in kernel.body if isinstance(s, Loop) and s.kind == "parallel")
    return replace(kernel, name=f"{kernel.name}_empty", body=body)


@dataclass(frozen=True)
class _Needed:
    """What addresses, masks and checks depend on: values and memory that must be computed as they are."""

    names: frozenset[str]
    bufs: frozenset[Buf]

    def makes(self, s: Let | Store | Accumulate) -> bool:
        return s.name in self.names if isinstance(s, Let) else s.buf in self.bufs

    @classmethod
    def of(cls, kernel: Kernel) -> _Needed:
        body = list(walk(kernel.body))
        work: list[Expr] = []
        for s in body:
            for e in stmt_exprs(s):
                work += [a for x in subexprs(e) if x.op == "load" for a in x.args]
            if isinstance(s, (Store, Accumulate)):
                work += [*s.index, *([s.mask] if s.mask is not None and s.buf.space != "register" else [])]
            elif isinstance(s, Check):
                work.append(s.condition)
            elif isinstance(s, Prefetch):
                work += s.index
        names: set[str] = set()
        bufs: set[Buf] = set()
        while work:
            for x in subexprs(work.pop()):
                if x.op == "name" and x.arg not in names:
                    names.add(x.arg)
                    work += [s.value for s in body if isinstance(s, Let) and s.name == x.arg]
                elif x.op == "load" and x.arg not in bufs:
                    bufs.add(x.arg)
                    work += [e for s in body if isinstance(s, (Store, Accumulate)) and s.buf == x.arg for e in stmt_exprs(s)]
        return cls(frozenset(names), frozenset(bufs))


class _Sinks:
    """Registers in which values are added up so that they are not for nothing: for each kind of value some sums, used in turn."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.open: dict[tuple[DType, int], Buf] = {}
        self.made = self.turn = 0

    def add(self, e: Expr, around: Sequence[Loop] = ()) -> Accumulate:
        """The statement that adds the bits of `e`. `around`: the unrolled loops around it; their copies go to different sums."""
        bits = _bits(e)
        kind = (bits.dtype, bits.lanes)
        if kind not in self.open:
            chains = max(1, min(CHAINS, CHAIN_LANES // bits.lanes))
            shape = (chains, bits.lanes) if bits.lanes > 1 else (chains,)
            self.open[kind] = Buf(fresh_buffer(self.kernel, f"sum{self.made}_of_bits"), bits.dtype, shape, "register")
            self.made += 1
        buf = self.open[kind]
        self.turn += 1
        which = index(self.turn)
        for s in around:
            which = positions.add(which, positions.floordiv(positions.sub(s.var, index(s.start)), s.step))
        return Accumulate(buf, _row(buf, positions.mod(which, buf.shape[0])), "add", bits)

    def around(self, body: Body) -> Body:
        """A body that has added to them, with their beginning and their end."""
        bufs = list(self.open.values())
        self.open = {}
        return (*(Alloc(b, 0) for b in bufs), *body, *map(self._end, bufs))

    def _end(self, buf: Buf) -> Store:
        total, *others = (load(buf, _row(buf, index(i))) for i in range(buf.shape[0]))
        for x in others:
            total = apply("add", (total, x))
        out = next(p for p in self.kernel.params if p.name in self.kernel.outputs)
        if not out.shape and total.lanes > 1:
            total = lanes_reduce("add", total)
        lanes = total.lanes
        at = tuple(index(0) for _ in out.shape[:-1]) + ((ramp(index(0), lanes) if lanes > 1 else index(0),) if out.shape else ())
        return Store(out, at, const(0, out.dtype, lanes), apply("eq", (total, const(NEVER, total.dtype))))


def _row(buf: Buf, which: Expr) -> tuple[Expr, ...]:
    return (which, ramp(index(0), buf.shape[1])) if len(buf.shape) > 1 else (which,)


def _bits(e: Expr) -> Expr:
    """As unsigned integers of at least 32 bits."""
    if e.dtype.layout is not None:
        e = apply("cast", (e,), float32)
    if e.dtype is not bool_:
        unsigned = by_name(f"uint{8 * e.dtype.itemsize}")
        e = e if e.dtype is unsigned else apply("bitcast", (e,), unsigned)
    return e if e.dtype.itemsize >= 4 else apply("cast", (e,), uint32)


class _Variant:
    """Rebuilds the body of a kernel statement by statement. Each outermost loop that stands beside a parallel one keeps its sums
    to itself, as it may run on another thread."""

    suffix = ""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.needed = _Needed.of(kernel)
        self.sinks = _Sinks(kernel)
        self.apart = any(p.loops for p in split(kernel))

    def run(self) -> Kernel:
        k = self.kernel
        if self.apart:
            body = tuple(self.enter(s) if isinstance(s, Loop) else s for s in k.body)
        else:
            body = self.sinks.around(self.block(k.body, ()))
        made = tidy(replace(k, name=f"{k.name}_{self.suffix}", body=body))
        return replace(made, body=tuple(_without(made.body, used_buffers(made.body))))

    def enter(self, s: Loop) -> Loop:
        return replace(s, body=self.sinks.around(self.block(s.body, (s,))))

    def block(self, body: Body, loops: tuple[Loop, ...]) -> Body:
        """The new statements in place of those inside these loops."""
        raise NotImplementedError


def _without(body: Iterable[Stmt], used: set[Buf]) -> Iterator[Stmt]:
    """The body without memory that nobody uses."""
    for s in body:
        if isinstance(s, Loop):
            yield replace(s, body=tuple(_without(s.body, used)))
        elif not isinstance(s, Alloc) or s.buf in used:
            yield s


@dataclass(frozen=True)
class _Later:
    """A value to be added up after the loop number `depth`, once for all its copies, inside `loops`."""

    value: Expr
    depth: int
    loops: tuple[Loop, ...]


class _Loads(_Variant):
    suffix = "loads"

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        # values of the outermost level stay there, before the parallel loop in which they are used
        self.outer = {s.name for s in kernel.body if isinstance(s, Let)} if self.apart else set()

    def block(self, body: Body, loops: tuple[Loop, ...]) -> Body:
        return self.visit(body, loops, set())[0]

    def visit(self, body: Body, loops: tuple[Loop, ...], seen: set[Expr]) -> tuple[Body, list[_Later]]:
        """`seen`: what is added up before or further out."""
        out: list[Stmt] = []
        further: list[_Later] = []
        seen = set(seen)

        def take(later: _Later) -> None:
            if later.depth < len(loops):
                further.append(later)
            elif later.value not in seen:
                seen.add(later.value)
                copies = [*_unrolled(loops), *later.loops]
                s: Stmt = self.sinks.add(later.value, copies)
                for around in reversed(later.loops):
                    s = replace(around, body=(s,))
                out.append(s)

        for s in body:
            if isinstance(s, Loop):
                inner, rest = self.visit(s.body, (*loops, s), seen)
                if inner:
                    out.append(replace(s, body=inner))
                for later in rest:
                    take(later)
            elif isinstance(s, (Alloc, Check, Prefetch)) or self.needed.makes(s):
                out.append(s)
            else:
                for e in stmt_exprs(s):
                    for x in self.leaves(e):
                        take(_place(x, loops))
                if isinstance(s, (Store, Accumulate)) and s.buf.space != "register":
                    out.append(replace(s, value=const(0, s.buf.dtype, s.value.lanes)))
        return tuple(out), further

    def leaves(self, e: Expr) -> list[Expr]:
        """What `e` takes from memory: its loads, but those in the address of another."""
        if e.op == "load":
            return [] if e.arg.space == "register" else [e]
        if e.op == "name":
            return [e] if e.arg in self.outer else []
        return [x for a in e.args for x in self.leaves(a)]


def _unrolled(loops: Sequence[Loop]) -> list[Loop]:
    """The innermost loops, as far as they are unrolled."""
    out: list[Loop] = []
    for s in reversed(loops):
        if s.kind != "unroll":
            break
        out.insert(0, s)
    return out


def _place(e: Expr, loops: Sequence[Loop]) -> _Later:
    """Where `e` is added up: further out than unrolled loops whose copies load the same, which a machine loads once."""
    copies = _unrolled(loops)
    below = set(subexprs(e))
    used = {x.arg if x.op == "name" else x.arg.name for x in below if x.op in ("name", "load")}
    for i, s in enumerate(copies):
        inside = {x.name if isinstance(x, Let) else x.buf.name for x in walk(s.body) if isinstance(x, (Let, Alloc))}
        if s.var not in below and not used & inside:
            return _Later(e, len(loops) - len(copies) + i, tuple(x for x in copies[i + 1 :] if x.var in below))
    return _Later(e, len(loops), ())


class _Arithmetic(_Variant):
    suffix = "arithmetic"

    def __init__(self, kernel: Kernel, window: int) -> None:
        super().__init__(kernel)
        self.window = window

    def block(self, body: Body, loops: tuple[Loop, ...]) -> Body:
        near = self.near(loops)
        out: list[Stmt] = []
        for s in body:
            if isinstance(s, Loop):
                out.append(replace(s, body=self.block(s.body, (*loops, s))))
            elif isinstance(s, (Store, Accumulate)) and s.buf.space == "global" and not self.needed.makes(s):
                if not positional(s.value):
                    out.append(self.sinks.add(near(s.value), _unrolled(loops)))
            else:
                out.append(map_stmt(s, near))
        return tuple(out)

    def near(self, loops: tuple[Loop, ...]) -> Callable[[Expr], Expr]:
        """The function that moves the loads of an expression into the window."""
        moved = substitution({s.var: self.inside(s) for s in loops if s.kind != "unroll" and s.trips > self.window})
        memo: dict[Expr, Expr] = {}

        def f(e: Expr) -> Expr:
            found = memo.get(e)
            if found is None:
                if e.op == "load" and e.arg.space == "global":
                    found = moved(e)
                else:
                    args = tuple(f(a) for a in e.args)
                    found = e if args == e.args else Expr(e.op, e.dtype, e.lanes, args, e.arg)
                memo[e] = found
            return found

        return f

    def inside(self, s: Loop) -> Expr:
        """The variable within the window: a value that it takes, and never a later one."""
        return positions.add(positions.mod(positions.sub(s.var, index(s.start)), self.window * s.step), index(s.start))


__all__ = ["arithmetic_only", "empty", "loads_only"]
