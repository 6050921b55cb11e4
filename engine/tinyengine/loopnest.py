"""The kernel IR of stages 5 to 8 (loops, schedule, plan, emit). Its whole grammar stands in this file.

  kernel  ::= Kernel(name, params: Buf*, body: stmt*)
  stmt    ::= Loop(var, start, stop, step, kind, reduce, body: stmt*)   kind: serial | parallel | unroll
            | Alloc(buf, init)                  memory of one iteration: a register accumulator or a local (cache-resident) buffer
            | Let(name, value)                  a value used later in this block
            | Store(buf, index, value, mask)    buf[index] = value
            | Accumulate(buf, index, op, value, mask, only)   buf[index] = op(buf[index], value); op: add | maximum | mul
            | Check(condition, message)         a data-dependent guard: where the condition is false the status word is set
            | Prefetch(buf, index)              a hint
  expr    ::= const | var | name | load | ramp | splat | lanes_reduce | lanes_scan | lane | any elementwise op of the op table

Every expression is an `Expr`: interned (equal means identical), with a dtype and a number of `lanes` (1 = scalar). Loads and
stores
give one index expression per axis of the buffer; index arithmetic is int64. A `mask` is a bool expression: masked-off lanes load
0 and
store nothing. `only` is a permission: where it is false the term may be left out. A loop's variable carries its bounds, so
intervals
need no context. `nodes` on a statement: numbers of the graph nodes
(`Graph.number` of the simplified graph) that it serves: the link from a kernel line back to the graph and to the user's line.
Only an outermost loop, with its tail beside it, may be parallel, and loops inside it, whose iterations the work-items of a group
share (stages/primitives/groups.py); statements before and after it run on one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from sys import getrefcount
from typing import Any

from tinyengine import dtypes
from tinyengine.dtypes import DType
from tinyengine.ops import OPS

INDEX = dtypes.int64
SPACES = ("global", "local", "register")
LEAST_SWEPT = 500_000  # expressions


@dataclass(frozen=True, slots=True)
class Buf:
    """Memory that a kernel touches: row-major, contiguous. `register`: small, and every index is a constant once loops are
    unrolled. `within`: the range of its numbers, where it is known: such memory holds the value of a symbolic size."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    space: str = "global"
    within: tuple[int, int] | None = None

    @property
    def size(self) -> int:
        n = 1
        for d in self.shape:
            n *= d
        return n

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def strides(self) -> tuple[int, ...]:
        """In elements."""
        out, step = [], 1
        for d in reversed(self.shape):
            out.append(step)
            step *= d
        return tuple(reversed(out))


class Expr:
    """An interned expression node: `op`, `dtype`, `lanes`, `args` (Exprs), `arg` (plain data). Build with the functions below."""

    __slots__ = ("__weakref__", "_below", "arg", "args", "dtype", "lanes", "op")
    op: str
    dtype: DType
    lanes: int
    args: tuple[Expr, ...]
    arg: Any
    _below: tuple[Expr, ...] | None  # see subexprs
    _table: dict[Any, Expr] = {}
    _most = LEAST_SWEPT  # entries of the table from which on it is swept

    def __new__(cls, op: str, dtype: DType, lanes: int, args: tuple[Expr, ...] = (), arg: Any = None) -> Expr:
        # repr() of a float keeps 0.0 and -0.0, and 1 and True, apart in the key
        key = (op, dtype.name, lanes, args, repr(arg) if op == "const" else arg)
        found = Expr._table.get(key)
        if found is not None:
            return found
        self = object.__new__(cls)
        self.op, self.dtype, self.lanes, self.args, self.arg, self._below = op, dtype, lanes, args, arg, None
        if len(Expr._table) >= Expr._most:
            Expr._sweep()
        Expr._table[key] = self
        return self

    @classmethod
    def _sweep(cls) -> None:
        """Forget the nodes to which nothing but the table refers. Any other must stay: what is equal must be identical, in
        kernels that are kept and in the one that is being built."""
        table = cls._table
        for e in table.values():
            e._below = None  # refers to e itself
        del e
        single = [object()]
        keys, alone = list(table), getrefcount(single[0])
        while keys:  # from the end: a node stands before those that it is an operand of
            key = keys.pop()
            if getrefcount(table[key]) == alone:
                del table[key]
        cls._most = max(LEAST_SWEPT, 2 * len(table))

    def __repr__(self) -> str:
        return expr_text(self)


def const(value: Any, dtype: DType, lanes: int = 1) -> Expr:
    v = bool(value) if dtype is dtypes.bool_ else float(value) if dtype.is_float else int(value)
    return Expr("const", dtype, lanes, (), v)


def index(value: int) -> Expr:
    return Expr("const", INDEX, 1, (), int(value))


def var(name: str, low: int, high: int) -> Expr:
    """A loop variable that takes values from `low` to `high`, both included."""
    return Expr("var", INDEX, 1, (), (name, low, high))


def name(text: str, dtype: DType, lanes: int = 1) -> Expr:
    """A reference to the value of `Let(text, ...)`."""
    return Expr("name", dtype, lanes, (), text)


def load(buf: Buf, at: tuple[Expr, ...], mask: Expr | None = None) -> Expr:
    """buf[at]: one index per axis; `lanes` is that of the widest index."""
    assert len(at) == len(buf.shape), f"{buf.name} has {len(buf.shape)} axes, index has {len(at)}"
    lanes = max([e.lanes for e in at] + ([mask.lanes] if mask is not None else []) + [1])
    return Expr("load", buf.dtype, lanes, at if mask is None else (*at, mask), buf)


def size(symbol: Any) -> Expr:
    """The value of a symbolic size (size.Symbol: name, min, max): a number in memory, whose range is known."""
    return load(Buf(symbol.name, INDEX, (1,), "global", (symbol.min, symbol.max)), (index(0),))


def is_size(e: Expr) -> bool:
    """Whether `e` reads the value of a symbolic size."""
    return e.op == "load" and e.arg.within is not None


def load_mask(e: Expr) -> Expr | None:
    return e.args[-1] if len(e.args) > len(e.arg.shape) else None


def load_index(e: Expr) -> tuple[Expr, ...]:
    return e.args[: len(e.arg.shape)]


def ramp(base: Expr, lanes: int, stride: int = 1) -> Expr:
    """base + stride * (0, 1, ... lanes-1)."""
    return Expr("ramp", base.dtype, lanes, (base,), stride)


def splat(e: Expr, lanes: int) -> Expr:
    if e.lanes == lanes:
        return e
    if e.op == "const":
        return Expr("const", e.dtype, lanes, (), e.arg)
    return Expr("splat", e.dtype, lanes, (e,))


def lanes_reduce(op: str, e: Expr) -> Expr:
    """The lanes of `e` combined into one by `op` (add, maximum, mul)."""
    return Expr("lanes_reduce", e.dtype, 1, (e,), op)


def lanes_scan(op: str, e: Expr) -> Expr:
    """In lane k, lanes 0 to k of `e` combined by `op` (add, maximum, mul)."""
    return Expr("lanes_scan", e.dtype, e.lanes, (e,), op)


def lane(e: Expr, k: int) -> Expr:
    """Lane `k` of `e`."""
    return Expr("lane", e.dtype, 1, (e,), k)


def apply(op: str, args: tuple[Expr, ...], dtype: DType | None = None, arg: Any = None) -> Expr:
    """An elementwise op of the op table; operands of one lane are splatted to the widest."""
    lanes = max(a.lanes for a in args)
    args = tuple(splat(a, lanes) for a in args)
    if dtype is None:
        dtype = dtypes.bool_ if op in ("lt", "eq") else args[1].dtype if op == "where" else args[0].dtype
    return Expr(op, dtype, lanes, args, arg)


# ---- statements


@dataclass(frozen=True, slots=True)
class Loop:
    var: Expr
    start: int
    stop: int
    step: int
    body: tuple[Stmt, ...]
    kind: str = "serial"
    reduce: bool = False  # iterations combine into an accumulator: they may be reordered only as a reduction
    nodes: tuple[int, ...] = ()
    limit: Expr | None = None  # iterations from here on are not run, unless the loop has just one
    first: Expr | None = None  # nor are iterations before this one; a whole number of steps from `start`

    @property
    def name(self) -> str:
        return str(self.var.arg[0])

    @property
    def ends(self) -> tuple[Expr, ...]:
        """The expressions at which it begins and ends, beside the numbers."""
        return tuple([e for e in (self.first, self.limit) if e is not None])

    @property
    def trips(self) -> int:
        return max(0, -(-(self.stop - self.start) // self.step))


@dataclass(frozen=True, slots=True)
class Alloc:
    buf: Buf
    init: float | int | bool | None = None  # None: left as it is, every element is written before it is read
    nodes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Let:
    name: str
    value: Expr
    nodes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Store:
    buf: Buf
    index: tuple[Expr, ...]
    value: Expr
    mask: Expr | None = None
    hint: str = ""  # "stream": past the caches (non-temporal)
    nodes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Accumulate:
    buf: Buf
    index: tuple[Expr, ...]
    op: str
    value: Expr
    mask: Expr | None = None
    nodes: tuple[int, ...] = ()
    only: Expr | None = None  # where this is false the term changes nothing, or nobody looks at the result


@dataclass(frozen=True, slots=True)
class Check:
    condition: Expr
    message: str
    nodes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Prefetch:
    buf: Buf
    index: tuple[Expr, ...]
    nodes: tuple[int, ...] = ()


Stmt = Loop | Alloc | Let | Store | Accumulate | Check | Prefetch


@dataclass(frozen=True, slots=True)
class Kernel:
    """`params`: global buffers in the order of the call; `outputs`: names of those written. Equal kernels may share code."""

    name: str
    params: tuple[Buf, ...]
    body: tuple[Stmt, ...]
    outputs: tuple[str, ...] = ()
    schedule: tuple[Any, ...] = field(default=())  # the primitives applied so far, in order

    @property
    def parallel(self) -> Loop | None:
        """The parallel loop, if there is one, without its tail."""
        loops = [s for s in self.body if isinstance(s, Loop) and s.kind == "parallel"]
        return max(loops, key=lambda s: s.trips, default=None)

    def text(self) -> str:
        return kernel_text(self)

    def __repr__(self) -> str:
        return self.text()


# ---- walking and rewriting


def walk(body: tuple[Stmt, ...]) -> Iterator[Stmt]:
    """Every statement, outer before inner, in order."""
    out: list[Stmt] = []
    _gather(body, out)
    return iter(out)


def _gather(body: tuple[Stmt, ...], out: list[Stmt]) -> None:
    for s in body:
        out.append(s)
        if isinstance(s, Loop):
            _gather(s.body, out)


def stmt_exprs(s: Stmt) -> tuple[Expr, ...]:
    """The expressions that stand directly in a statement; a loop's limit and first are none, as they only save work."""
    if isinstance(s, Let):
        return (s.value,)
    if isinstance(s, (Store, Accumulate)):
        only = s.only if isinstance(s, Accumulate) else None
        return (*s.index, s.value) + ((s.mask,) if s.mask is not None else ()) + ((only,) if only is not None else ())
    if isinstance(s, Check):
        return (s.condition,)
    if isinstance(s, Prefetch):
        return s.index
    return ()


def subexprs(e: Expr, seen: set[int] | None = None) -> Iterable[Expr]:
    """e and everything below it, each once, operands first; what is in `seen` (identities) is left out, and then noted there."""
    if seen is not None:
        out = [x for x in subexprs(e) if id(x) not in seen]
        seen.update([id(x) for x in out])
        return out
    known = e._below
    if known is None:
        below: dict[Expr, None] = {}
        for a in e.args:
            below.update(dict.fromkeys(subexprs(a)))
        known = e._below = (*below, e)
    return known


def map_expr(e: Expr, f: Callable[[Expr], Expr | None], memo: dict[Expr, Expr] | None = None) -> Expr:
    """Bottom-up rewrite: `f` gets each node with its operands already rewritten and returns a replacement or None."""
    memo = {} if memo is None else memo
    known = memo.get(e)
    if known is not None:
        return known
    new, args = e, tuple([map_expr(a, f, memo) for a in e.args])
    if args != e.args:
        lanes = e.lanes if e.op in _FIXED_LANES else max([e.lanes, *[a.lanes for a in args]])
        new = Expr(e.op, e.dtype, lanes, args, e.arg)
    out = f(new)
    memo[e] = out = new if out is None else out
    return out


_FIXED_LANES = ("ramp", "splat", "lanes_reduce", "lane")


def map_stmt(s: Stmt, f: Callable[[Expr], Expr]) -> Stmt:
    """The same statement with `f` applied to each expression that stands directly in it; a loop's body is not entered."""
    if isinstance(s, Let):
        return Let(s.name, f(s.value), s.nodes)
    if isinstance(s, (Store, Accumulate)):
        at, value = tuple([f(i) for i in s.index]), f(s.value)
        mask = f(s.mask) if s.mask is not None else None
        if isinstance(s, Store):
            return Store(s.buf, at, value, mask, s.hint, s.nodes)
        return Accumulate(s.buf, at, s.op, value, mask, s.nodes, f(s.only) if s.only is not None else None)
    if isinstance(s, Check):
        return Check(f(s.condition), s.message, s.nodes)
    if isinstance(s, Prefetch):
        return Prefetch(s.buf, tuple([f(i) for i in s.index]), s.nodes)
    return s


# ---- text


def expr_text(e: Expr) -> str:
    """Readable form: infix where the op table gives a symbol, x[i, k] for loads, <16> marks vectors."""
    a = [expr_text(x) for x in e.args]
    if e.op == "const":
        return f"{e.arg}"
    if e.op == "var":
        return str(e.arg[0])
    if e.op == "name":
        return str(e.arg)
    if e.op == "load":
        if e.arg.within is not None:
            return str(e.arg.name)
        n = len(e.arg.shape)
        at = f"{e.arg.name}[{', '.join(a[:n])}]"
        return at if len(a) == n else f"({at} if {a[n]} else 0)"
    if e.op == "ramp":
        end = a[0] + f" + {e.lanes * e.arg}" if a[0] != "0" else f"{e.lanes * e.arg}"
        return f"{a[0]} : {end}" + (f" : {e.arg}" if e.arg != 1 else "")
    if e.op == "splat":
        return a[0]
    if e.op == "lanes_reduce":
        return f"lanes_{e.arg}({a[0]})"
    if e.op == "lanes_scan":
        return f"scan_{e.arg}({a[0]})"
    if e.op == "lane":
        return f"{a[0]}.lane({e.arg})"
    if e.op == "cast":
        return f"{e.dtype}({a[0]})"
    if e.op == "bitcast":
        return f"bitcast_{e.dtype}({a[0]})"
    if e.op == "add" and e.dtype is INDEX and e.lanes == 1:
        return _sum_text(e)
    op = OPS.get(e.op)  # none: an instruction that only some machines have
    if op is not None and op.symbol:
        return f"{_wrap(a[0], e.args[0])} {op.symbol} {_wrap(a[1], e.args[1])}"
    return f"{e.op}({', '.join(a)})"


def _sum_text(e: Expr) -> str:
    """A sum of positions as people write it: 2 - r, and not (r * -1) + 2."""
    terms: list[Expr] = []
    stack = [e]
    while stack:
        x = stack.pop()
        if x.op == "add" and x.lanes == 1:
            stack += reversed(x.args)
        else:
            terms.append(x)
    signed = [(_negated(x) is not None, x) for x in terms]
    signed.sort(key=lambda pair: pair[0])  # what is added comes first
    out = ""
    for minus, x in signed:
        y = _negated(x) if minus else x
        assert y is not None
        text = _wrap(expr_text(y), y)
        out += (f" {'-' if minus else '+'} " if out else "-" if minus else "") + text
    return out


def _negated(e: Expr) -> Expr | None:
    """-e where e is written with a minus: a negative number, or a product with one."""
    if e.op == "const" and e.arg < 0:
        return index(-e.arg)
    if e.op == "mul" and e.args[1].op == "const" and e.args[1].arg < 0:
        k = -e.args[1].arg
        return e.args[0] if k == 1 else Expr("mul", INDEX, 1, (e.args[0], index(k)))
    return None


def _wrap(text: str, e: Expr) -> str:
    return f"({text})" if (e.op in OPS and OPS[e.op].symbol) or e.op == "ramp" else text


_SIGN = {"add": "+=", "maximum": "max=", "mul": "*="}


def stmt_lines(s: Stmt, depth: int = 0) -> list[tuple[str, Stmt]]:
    """(line of text, statement) for a statement and its body: one line per statement, so that lines and statements link."""
    pad = "  " * depth
    if isinstance(s, Loop):
        word = {"serial": "for", "parallel": "parallel", "unroll": "unroll"}[s.kind] + (" reduce" if s.reduce else "")
        step = f" step {s.step}" if s.step != 1 else ""
        since, until = (
            f"{own}" if e is None else expr_text(e) if e.op == "const" else f"{word}({own}, {expr_text(e)})"
            for own, e, word in ((s.start, s.first, "max"), (s.stop, s.limit, "min"))
        )
        out: list[tuple[str, Stmt]] = [(f"{pad}{word} {s.name} in {since}..{until}{step}:", s)]
        for b in s.body:
            out += stmt_lines(b, depth + 1)
        return out
    if isinstance(s, Alloc):
        init = "" if s.init is None else f" = {s.init}"
        shape = "x".join(map(str, s.buf.shape)) or "scalar"
        return [(f"{pad}{s.buf.space} {s.buf.name}: {s.buf.dtype} {shape}{init}", s)]
    if isinstance(s, Let):
        return [(f"{pad}{s.name} = {expr_text(s.value)}", s)]
    if isinstance(s, (Store, Accumulate)):
        sign = _SIGN[s.op] if isinstance(s, Accumulate) else "="
        at = ", ".join(expr_text(i) for i in s.index)
        mask = f"  if {expr_text(s.mask)}" if s.mask is not None else ""
        hint = f"  ({s.hint})" if isinstance(s, Store) and s.hint else ""
        if isinstance(s, Accumulate) and s.only is not None:
            hint = f"  (only {expr_text(s.only)})"
        target = f"{s.buf.name}[{at}]" if s.index else s.buf.name
        return [(f"{pad}{target} {sign} {expr_text(s.value)}{mask}{hint}", s)]
    if isinstance(s, Check):
        return [(f"{pad}check {expr_text(s.condition)}, {s.message!r}", s)]
    return [(f"{pad}prefetch {s.buf.name}[{', '.join(expr_text(i) for i in s.index)}]", s)]


def kernel_lines(k: Kernel) -> list[tuple[str, Stmt | None]]:
    params = ", ".join(f"{p.name}: {p.dtype}{list(p.shape)}" + (" out" if p.name in k.outputs else "") for p in k.params)
    out: list[tuple[str, Stmt | None]] = [(f"kernel {k.name}({params})", None)]
    for s in k.body:
        out += stmt_lines(s, 1)
    return out


def kernel_text(k: Kernel) -> str:
    return "\n".join(line for line, _ in kernel_lines(k))
