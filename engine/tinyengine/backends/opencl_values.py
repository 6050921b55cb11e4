"""Values of a kernel as OpenCL C expressions: names and their scopes, addresses, loads, elementwise ops.

Lanes beyond 16, or of a count that OpenCL lacks, are pieces of 16, 8, 4, 2 and 1. A value used more than once in a statement
gets a name, the rest stands where it is used. Register buffers are variables.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from tinyengine import dtypes
from tinyengine.backends import opencl_memory as mem
from tinyengine.backends import opencl_ops as ops
from tinyengine.backends.moves import ONE_BY_ONE, Moves
from tinyengine.backends.opencl_ops import Helpers, Operand, bare, pieces, register
from tinyengine.backends.strided import Access, Key, Run, block, prefix
from tinyengine.dtypes import DType
from tinyengine.loopnest import Buf, Expr, load_index, load_mask
from tinyengine.stages.arithmetic import affine as af
from tinyengine.stages.arithmetic.expand import Expander

ROOM = 16  # elements before and after the function's own arrays
LONGEST = 88  # characters of an operand that is not given a name
Value = list[Operand]  # one per piece

_TYPES = "bool char uchar short ushort int uint long ulong half float double size_t"
_KEYWORDS = frozenset(
    f"""{_TYPES} void signed unsigned const volatile restrict register static extern inline struct union enum typedef
    sizeof auto if else for while do switch case default break continue return goto kernel global local constant private generic
    pipe read_only write_only read_write uniform min max fma sqrt trunc rint all any prefetch status first scratch mine share
    begin end NAN INFINITY
    """.split()
)
_RESERVED = re.compile(  # vector types, temporaries, conversions, and the helpers' names
    rf"({'|'.join(_TYPES.split())})\d+|e\d+|(as|convert|vload|vstore)_?.*|\w+_(({'|'.join(_TYPES.split())})\d*(_\w+)?|half\d+|bits\d+)"
)


class NotRegister(Exception):
    """A register buffer that is indexed by more than constants, or in pieces of different width: it becomes an array."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Line(NamedTuple):
    text: str
    number: int  # the line of the kernel's text, from 1; 0: none


class Address(NamedTuple):
    """Element offsets: an affine form, whose lanes are evenly spaced, else one offset per lane."""

    buf: Buf
    affine: af.Affine | None
    offsets: Expr | None
    lanes: int

    @property
    def needs(self) -> tuple[Expr, ...]:
        if self.affine is not None:
            return tuple(t for t, _ in self.affine.terms)
        return (self.offsets,) if self.offsets is not None else ()


def identifier(text: str) -> str:
    """`text` as a name that means nothing else in OpenCL C."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", text)
    if name[:1].isdigit() or name[:1] in ("", "_"):
        name = f"n{name}"
    return f"{name}_" if name in _KEYWORDS or _RESERVED.fullmatch(name) else name


class Block:
    """An open pair of braces: names that end with it."""

    def __init__(self) -> None:
        self.names: dict[str, Value] = {}
        self.products: dict[str, tuple[Value, Value]] = {}
        self.taken: list[str] = []
        self.buffers: list[str] = []


class Values:
    """What one function knows while it is written. `lower` expands what the device has no instruction for; `in_memory`: register
    buffers that have to be arrays; `summands` and `needed`: see `opencl_module.uses_of_names`."""

    def __init__(self, helpers: Helpers, lower: Expander, numbers: dict[int, int], in_memory: frozenset[str]) -> None:
        self.helpers, self.lower, self.numbers, self.in_memory = helpers, lower, numbers, in_memory
        self.summands: frozenset[str] = frozenset()
        self.needed: frozenset[str] = frozenset()
        self.lines: list[Line] = []
        self.indent = 1
        self.number = 0
        self.temporaries = 0
        self.taken: set[str] = set()
        self.blocks: list[Block] = [Block()]
        self.values: dict[Expr, Value] = {}
        self.env: dict[Expr, Expr] = {}
        self.env_memo: dict[Expr, Expr] = {}
        self.places: dict[str, tuple[str, str]] = {}  # buffer -> (pointer, address space)
        self.slots: dict[tuple[str, int], list[str]] = {}
        self.widths: dict[str, int] = {}
        self.grain: dict[str, int] = {}
        self.messages: tuple[str, ...] = ()
        self.scratch_at = self.scratch_bytes = 0
        self.in_scratch = False
        self.addresses: dict[Expr, Address] = {}
        self.apart: dict[int, tuple[Access, ...]] = {}  # by id of an unrolled loop: its strided loads
        self.columns: dict[Key, Run] = {}
        self.moves = Moves()

    # ---- text

    def put(self, text: str) -> None:
        self.lines.append(Line("  " * self.indent + text, self.number))

    def fresh(self, text: str) -> str:
        base = name = identifier(text)
        n = 1
        while name in self.taken:
            n += 1
            name = f"{base}_{n}"
        self.taken.add(name)
        self.blocks[-1].taken.append(name)
        return name

    def temporary(self, e: Expr, k: int, text: str) -> Operand:
        name = self.declare(register(e.dtype, pieces(e.lanes)[k][1]), text)
        return Operand(name, name)

    def declare(self, type_: str, text: str) -> str:
        """A name for the value of `text`."""
        self.temporaries += 1
        self.put(f"const {type_} e{self.temporaries} = {bare(text)};")
        return f"e{self.temporaries}"

    def open(self) -> None:
        self.blocks.append(Block())

    def close(self) -> None:
        b = self.blocks.pop()
        self.taken.difference_update(b.taken)
        for name in b.buffers:
            for slot in [s for s in self.slots if s[0] == name]:
                del self.slots[slot]

    # ---- values

    def address(self, buf: Buf, at: tuple[Expr, ...]) -> Address:
        lanes = max([i.lanes for i in at] + [1])
        a = af.flat(at, buf.strides)
        if a is not None:
            return Address(buf, a, None, lanes)
        flat = af.flat_expr(at, buf.strides)
        short = af.narrow(flat) if buf.nbytes <= af.INT32_MAX else None
        return Address(buf, None, self.lower(short if short is not None else flat), lanes)

    def _below(self, e: Expr) -> tuple[Expr, ...]:
        """What the text of `e` is made of."""
        if e.op != "load":
            return e.args
        a = self.addresses.get(e)
        if a is None:
            a = self.addresses[e] = self.address(e.arg, load_index(e))
        mask = load_mask(e)
        return a.needs if mask is None else (*a.needs, mask)

    def evaluate(self, roots: Sequence[Expr]) -> None:
        """Texts for all of `roots`, in `self.values`; what several places use, or what is long, is computed into a name first."""
        order: list[Expr] = []
        seen: set[Expr] = set()
        stack = [(r, False) for r in reversed(roots)]
        uses: dict[Expr, int] = {}
        for r in roots:
            uses[r] = uses.get(r, 0) + 1
        while stack:
            e, ready = stack.pop()
            if ready:
                order.append(e)
            elif e not in seen and e not in self.values:
                seen.add(e)
                stack.append((e, True))
                for a in reversed(self._below(e)):
                    uses[a] = uses.get(a, 0) + 1
                    stack.append((a, False))
        for e in order:
            parts = [self.text(e, k, first, w) for k, (first, w) in enumerate(pieces(e.lanes))]
            if e.op not in ("const", "var", "name", "splat"):
                inner = uses[e] > 1 or e not in roots  # a root is about to be written down anyway
                for k, x in enumerate(parts):
                    if inner and (uses[e] > 1 or len(x.full) > LONGEST) and not x.full.isidentifier():
                        parts[k] = self.temporary(e, k, x.full)
            self.values[e] = parts

    def named(self, e: Expr) -> Value:
        """The value of `e`, evaluated already, as constants and names that do not change."""
        source = e.args[0] if e.op == "splat" else e
        changes = source.op == "load" and self.in_registers(source.arg)
        out = []
        for k, x in enumerate(self.values[e]):
            fixed = x.constant or (x.thin.isidentifier() and not changes)
            out.append(x if fixed else self.temporary(e, k, x.full))
        self.values[e] = out
        return out

    def text(self, e: Expr, k: int, first: int, w: int) -> Operand:
        """Piece k of `e`: lanes first to first + w."""
        op, d = e.op, e.dtype
        if op == "const":
            return ops.splat(ops.literal(e.arg, d), d, w, True)
        if op == "var":
            return self.find(e.arg[0])[0]
        if op == "name":
            return self.find(e.arg)[k]
        if op == "splat":
            scalar = self.values[e.args[0]][0]
            return ops.splat(scalar.full, d, w, scalar.constant)
        if op == "load":
            text = self.load(e, k, first, w)
            return text if isinstance(text, Operand) else Operand(text, text)
        if op == "ramp":
            text = self.ramp(e, first, w)
        elif op == "lanes_reduce":
            text = self.reduced(e.arg, d, e.args[0].lanes, [x.full for x in self.values[e.args[0]]])
        elif op == "lanes_scan":
            parts = [x.full for x in self.values[e.args[0]]]
            text = ops.lanes_scan(self.helpers, e.arg, d, w, parts[k])
            if first:
                before = ops.splat(self.reduced(e.arg, d, first, parts[:k]), d, w)
                text = ops.combine(self.helpers, e.arg, d, w, before, Operand(text, text))
        elif op == "lane":
            at, (start, width) = next(p for p in enumerate(pieces(e.args[0].lanes)) if e.arg < sum(p[1]))
            text = ops.lane(self.values[e.args[0]][at].full, e.arg - start, width)
            text = f"({text} & 1)" if d is dtypes.bool_ and width > 1 else text
        else:
            text = self.elementwise(e, [self.values[a][k] for a in e.args], w)
        return Operand(text, text)

    def ramp(self, e: Expr, first: int, w: int) -> str:
        base = e.args[0]
        start = base.arg if base.op == "const" else 0
        steps = ", ".join(ops.literal(start + e.arg * (first + i), e.dtype) for i in range(w))
        text = f"({register(e.dtype, w)})({steps})"
        return text if base.op == "const" else f"({self.values[base][0].thin} + {text})"

    def find(self, name: str) -> Value:
        for b in reversed(self.blocks):
            if name in b.names:
                return b.names[name]
        raise ValueError(f"{name} is used outside the block that defines it")

    def elementwise(self, e: Expr, args: Sequence[Operand], w: int) -> str:
        op, d, h = e.op, e.dtype, self.helpers
        source = e.args[0].dtype
        if op == "cast":
            return ops.cast(h, source, d, w, args[0])
        if op == "bitcast":
            return ops.bitcast(h, source, d, w, args[0])
        if op in ("neg", "sqrt", "trunc", "round", "reciprocal"):
            return ops.unary(h, op, d, w, args[0])
        if op in ("lt", "eq"):
            return ops.compare(op, source, w, args[0], args[1])
        if op == "where":
            return ops.select(args[0].full, d, w, args[1].full, args[2].full)
        if op == "fma":
            return ops.fma(h, d, w, args[0], args[1], args[2])
        return ops.combine(h, op, d, w, args[0], args[1], self.plain(e))

    def plain(self, e: Expr) -> bool:
        """Whether C's own operator gives the right result for these integers."""
        if not e.dtype.is_int:
            return False
        bounds = af.interval(e.args[0]) if e.op in ("floordiv", "mod") else af.interval(e)
        if bounds is None or bounds[0] < e.dtype.min or bounds[1] > e.dtype.max or e.dtype.itemsize < 4:
            return False
        return e.op not in ("floordiv", "mod") or (bounds[0] >= 0 and e.args[1].op == "const" and e.args[1].arg > 0)

    def reduced(self, op: str, d: DType, lanes: int, parts: Sequence[str]) -> str:
        """Pieces of equal width are combined first, then the lanes of each width."""
        h, by_width = self.helpers, dict[int, str]()
        for (_, w), x in zip(pieces(lanes), parts, strict=True):
            old = by_width.get(w)
            by_width[w] = x if old is None else ops.combine(h, op, d, w, Operand(old, old), Operand(x, x))
        out = ""
        for w, x in by_width.items():
            one = ops.lanes_reduce(h, op, d, w, x)
            out = one if not out else ops.combine(h, op, d, 1, Operand(out, out), Operand(one, one))
        return out

    # ---- loads

    def offset(self, a: Address, first: int) -> str:
        """The element offset of lane `first`."""
        assert a.affine is not None
        parts = []
        for t, c in a.affine.terms:
            x = self.values[t][0].full
            parts.append(x if c == 1 else f"{x} * {c}")
        constant = a.affine.constant + a.affine.lane * first
        if constant or not parts:
            parts.append(str(constant))
        text = " + ".join(parts).replace("+ -", "- ")
        return f"({text})" if len(parts) > 1 or "*" in text else text

    def slot(self, a: Address) -> tuple[str, int]:
        """The key of the register that holds these lanes; NotRegister when it is not exactly one."""
        f = a.affine
        key = (a.buf.name, f.constant if f is not None else -1)
        if f is None or f.terms or (a.lanes > 1 and f.lane != 1) or a.lanes != self.widths[a.buf.name] or key not in self.slots:
            raise NotRegister(a.buf.name)
        return key

    def in_registers(self, buf: Buf) -> bool:
        return buf.space == "register" and buf.name not in self.in_memory

    def load(self, e: Expr, k: int, first: int, w: int) -> str | Operand:
        h, d, buf, a = self.helpers, e.dtype, e.arg, self.addresses[e]
        mask = load_mask(e)
        m = None if mask is None else self.values[mask][k if mask.lanes > 1 else 0].full
        whole = m if mask is not None and mask.lanes == 1 else None  # one bit for all lanes
        if self.in_registers(buf):
            names = self.slots[self.slot(a)]
            x = ops.splat(names[0], d, w) if a.lanes < e.lanes else Operand(names[k], names[k])
        else:
            base, space = self.places[buf.name]
            f = a.affine
            if f is None:
                return self._gather(e, a, k, w, m, whole)
            if a.lanes == 1 or f.lane == 0:
                x = ops.splat(mem.load_one(h, d, base, self.offset(a, 0)), d, w)
                if w > 1 and m is not None and whole is None:
                    # the element may be outside the buffer unless some lane is on
                    assert mask is not None
                    some = self.reduced("maximum", dtypes.bool_, e.lanes, [y.full for y in self.values[mask]])
                    x = ops.splat(f"({some} ? {x.thin} : {ops.literal(0, d)})", d, w)
            elif w == 1:
                text = mem.load_one(h, d, base, self.offset(a, first))
                x = Operand(text, text)
            elif f.lane != 1 and m is not None and whole is None:
                self.moves.note("load", a.buf.name, ONE_BY_ONE, f.lane, w)
                return mem.load_apart(h, d, w, space, base, self.offset(a, first), f.lane, m)
            elif f.lane == -1:
                self.moves.note("load", a.buf.name, "reversed", f.lane, w)
                text = mem.backwards(h, d, w, base, self.offset(a, first + w - 1))
                x = Operand(text, text)
            elif f.lane != 1:
                text = self._apart(a, f, first, w, m is not None)
                x = Operand(text, text)
            elif m is not None and whole is None and w > 1 and not self.readable(a):
                n = prefix(mask)
                if n is not None:
                    offsets = [self.offset(a, first + at) for at in range(w)]
                    return mem.load_prefix(h, d, w, base, offsets, min(w, max(0, n - first)))
                return mem.load_masked(h, d, w, space, base, self.offset(a, first), m)
            else:
                text = mem.load(h, d, w, base, self.offset(a, first))
                x = Operand(text, text)
        if m is None:
            return x
        zero = ops.splat(ops.literal(0, d), d, w, True).full
        if w > 1 and whole is None:
            return ops.select(m, d, w, x.full, zero)
        return f"({m} ? {x.full} : {zero})"

    def readable(self, a: Address) -> bool:
        """Whether all lanes may be read, on or off: the function's own memory has room for a vector at either end."""
        if a.buf.space == "global" or a.affine is None:
            return False
        low = high = a.affine.constant
        for t, c in a.affine.terms:
            bounds = af.interval(t)
            if bounds is None:
                return False
            low, high = low + min(c * x for x in bounds), high + max(c * x for x in bounds)
        return low >= -ROOM and high + a.lanes <= a.buf.size + ROOM

    def _apart(self, a: Address, f: af.Affine, first: int, w: int, masked: bool) -> str:
        """Lanes that are not neighbours: columns of a block that an unrolled loop reads are turned together, lanes a small step
        apart are picked from what lies between them, others loaded one by one."""
        h, buf = self.helpers, a.buf
        base, space = self.places[buf.name]
        start, count = block(self.columns, buf, f, w)
        if count == w == a.lanes and w <= af.BLOCK and f.lane > 1 and not masked:
            self.moves.note("load", buf.name, "block turned", f.lane, w)
            at = self.offset(a._replace(affine=f._replace(constant=start)), 0)
            return mem.column(h, buf.dtype, w, space, base, at, f.lane, f.constant - start)
        at = self.offset(a, first)
        near = 1 < f.lane <= af.NEAR and not masked
        self.moves.note("load", buf.name, "lines and shuffles" if near else ONE_BY_ONE, f.lane, w)
        if near:
            return mem.load_near(h, buf.dtype, w, space, base, at, f.lane)
        return mem.load_apart(h, buf.dtype, w, space, base, at, f.lane, None)

    def _gather(self, e: Expr, a: Address, k: int, w: int, m: str | None, whole: str | None) -> str:
        assert a.offsets is not None
        base, space = self.places[a.buf.name]
        text, t = self.values[a.offsets][k].full, register(a.offsets.dtype, 1)
        if e.lanes > 1:
            self.moves.note("load", a.buf.name, ONE_BY_ONE, 0, w)
        if w == 1:
            x = mem.load_one(self.helpers, e.dtype, base, text)
            return x if m is None else f"({m} ? {x} : {ops.literal(0, e.dtype)})"
        if whole is not None:
            m = f"(int{w})(-{whole})"
        return mem.gather(self.helpers, e.dtype, w, space, base, text, t, m)
