"""LLVM types, constants and the instructions of each elementwise op: text in, text out. No control flow, no memory."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyengine import dtypes
from tinyengine.dtypes import DType
from tinyengine.loopnest import Expr

TYPES = {
    "bool": "i1", "float16": "half", "float32": "float", "float64": "double",
    "bfloat16": "i16", "fp8e4m3": "i8", "fp8e5m2": "i8",  # the bits: stage `expand` converts
} | {
    f"{u}int{8 * n}": f"i{8 * n}" for u in ("", "u") for n in (1, 2, 4, 8)
}  # fmt: skip
UNARY = {"sqrt": "sqrt", "trunc": "trunc", "round": "rint"}  # the names of their intrinsics
SUFFIX = {"half": "f16", "float": "f32", "double": "f64"}

Line = Callable[[str], str]  # appends one instruction, returns the name of its result


def scalar_type(d: DType) -> str:
    return TYPES[d.name]


def memory_type(d: DType) -> str:
    """A bool is one byte in memory and one bit in a register."""
    return "i8" if d is dtypes.bool_ else TYPES[d.name]


def vector(t: str, lanes: int) -> str:
    return t if lanes == 1 else f"<{lanes} x {t}>"


def type_of(e: Expr) -> str:
    return vector(TYPES[e.dtype.name], e.lanes)


def suffix(t: str, lanes: int) -> str:
    """The type as it stands in the name of an intrinsic: v16f32."""
    s = SUFFIX.get(t, t)
    return s if lanes == 1 else f"v{lanes}{s}"


def literal(value: Any, d: DType, lanes: int = 1) -> str:
    """A constant. Floats are written by their bits, so that nothing is rounded twice and NaN keeps its payload."""
    if d is dtypes.bool_:
        text = "true" if value else "false"
    elif d is dtypes.float16:
        text = "0xH" + struct.pack(">e", _to_half(value)).hex().upper()
    elif d is dtypes.float32:
        text = "0x" + struct.pack(">d", float(d.numpy.type(value))).hex().upper()
    elif d is dtypes.float64:
        text = "0x" + struct.pack(">d", value).hex().upper()
    else:
        bits = 8 * d.itemsize
        if d.layout is not None:
            value = int(d.encode(np.asarray(value)))
        value &= (1 << bits) - 1
        text = str(value - (1 << bits) if value >> (bits - 1) else value)
    return text if lanes == 1 else f"splat ({TYPES[d.name]} {text})"


def _to_half(value: float) -> float:
    return float(dtypes.float16.numpy.type(value))


def lane_numbers(d: DType, lanes: int, stride: int) -> str:
    """The constant vector <0, stride, 2 stride, ...>."""
    t = TYPES[d.name]
    return "<" + ", ".join(f"{t} {stride * k}" for k in range(lanes)) + ">"


def splat(line: Line, value: str, t: str, lanes: int) -> str:
    one = line(f"insertelement <{lanes} x {t}> poison, {t} {value}, i64 0")
    return line(f"shufflevector <{lanes} x {t}> {one}, <{lanes} x {t}> poison, <{lanes} x i32> zeroinitializer")


def combine(line: Line, op: str, d: DType, lanes: int, a: str, b: str) -> str:
    """op(a, b) for add, mul, maximum, minimum, sub, div, and/or/xor, floordiv, mod, shl, shr of one dtype."""
    t = TYPES[d.name]
    ty = vector(t, lanes)
    if d is dtypes.bool_:
        op = {"add": "or", "maximum": "or", "mul": "and", "minimum": "and"}.get(op, op)
    if op in ("maximum", "minimum"):
        return _extreme(line, op, d, ty, a, b)
    if op in ("floordiv", "mod"):
        return _divide(line, op, d, lanes, a, b)
    if op in ("shl", "shr"):
        return _shift(line, op, d, lanes, a, b)
    word = op if op in ("and", "or", "xor") else {"add": "add", "sub": "sub", "mul": "mul", "div": "div"}[op]
    return line(f"{'f' if d.is_float else ''}{word} {ty} {a}, {b}")


def _extreme(line: Line, op: str, d: DType, ty: str, a: str, b: str) -> str:
    """NaN on either side gives NaN: a compare-and-select keeps b when a is not ordered, and a NaN in a is put back.

    Three instructions on AVX-512, against five or more for llvm.maximum, which also orders -0 before +0 (NumPy leaves that
    open)."""
    if not d.is_float:
        sign = "s" if d.kind == "int" else "u"
        pick = line(f"icmp {sign}{'gt' if op == 'maximum' else 'lt'} {ty} {a}, {b}")
        return line(f"select {_bits(ty)} {pick}, {ty} {a}, {ty} {b}")
    if b[0] != "%" and "x7FF" not in b and "xFFF" not in b:
        a, b = b, a  # a constant that is no NaN comes first: then one compare-and-select is enough
    pick = line(f"fcmp {'ogt' if op == 'maximum' else 'olt'} {ty} {a}, {b}")
    best = line(f"select {_bits(ty)} {pick}, {ty} {a}, {ty} {b}")
    if a[0] != "%":
        return best
    nan = line(f"fcmp uno {ty} {a}, {a}")
    return line(f"select {_bits(ty)} {nan}, {ty} {a}, {ty} {best}")


def _bits(ty: str) -> str:
    return "i1" if ty[0] != "<" else ty[: ty.index(" x ") + 3] + "i1>"


def _zero(t: str, lanes: int) -> str:
    return "zeroinitializer" if lanes > 1 else ("0.0" if t in SUFFIX else "0")


def divide_by_constant(line: Line, op: str, d: DType, lanes: int, a: str, divisor: int, nonnegative: bool) -> str:
    """floordiv or mod by a constant > 0; without sign handling where the dividend is known to be >= 0."""
    ty = vector(TYPES[d.name], lanes)
    c = literal(divisor, d, lanes)
    if divisor == 1:
        return a if op == "floordiv" else literal(0, d, lanes)
    if nonnegative or d.kind == "uint":
        return line(f"{'udiv' if op == 'floordiv' else 'urem'} {ty} {a}, {c}")
    rest = line(f"srem {ty} {a}, {c}")
    low = line(f"icmp slt {ty} {rest}, {_zero(TYPES[d.name], lanes)}")
    if op == "mod":
        up = line(f"add {ty} {rest}, {c}")
        return line(f"select {_bits(ty)} {low}, {ty} {up}, {ty} {rest}")
    quotient = line(f"sdiv {ty} {a}, {c}")
    less = line(f"sext {_bits(ty)} {low} to {ty}")
    return line(f"add {ty} {quotient}, {less}")


def _divide(line: Line, op: str, d: DType, lanes: int, a: str, b: str) -> str:
    """Integer floordiv and mod with Python's signs. The divisors 0 and -1 never reach the instruction: both could trap."""
    ty, zero = vector(TYPES[d.name], lanes), _zero(TYPES[d.name], lanes)
    bits, one = _bits(ty), literal(1, d, lanes)
    by_zero = line(f"icmp eq {ty} {b}, {zero}")
    if d.kind == "uint":
        safe = line(f"select {bits} {by_zero}, {ty} {one}, {ty} {b}")
        out = line(f"{'udiv' if op == 'floordiv' else 'urem'} {ty} {a}, {safe}")
        return line(f"select {bits} {by_zero}, {ty} {zero}, {ty} {out}")
    by_minus = line(f"icmp eq {ty} {b}, {literal(-1, d, lanes)}")
    special = line(f"or {bits} {by_zero}, {by_minus}")
    safe = line(f"select {bits} {special}, {ty} {one}, {ty} {b}")
    rest = line(f"srem {ty} {a}, {safe}")
    some = line(f"icmp ne {ty} {rest}, {zero}")
    cross = line(f"xor {ty} {rest}, {safe}")
    opposite = line(f"icmp slt {ty} {cross}, {zero}")
    adjust = line(f"and {bits} {some}, {opposite}")
    if op == "mod":
        up = line(f"add {ty} {rest}, {safe}")
        return line(f"select {bits} {adjust}, {ty} {up}, {ty} {rest}")
    quotient = line(f"sdiv {ty} {a}, {safe}")
    less = line(f"sext {bits} {adjust} to {ty}")
    floor = line(f"add {ty} {quotient}, {less}")
    minus = line(f"sub {ty} {zero}, {a}")
    out = line(f"select {bits} {by_minus}, {ty} {minus}, {ty} {floor}")
    return line(f"select {bits} {by_zero}, {ty} {zero}, {ty} {out}")


def _shift(line: Line, op: str, d: DType, lanes: int, a: str, b: str) -> str:
    """As NumPy: by the width or more gives 0, or -1 for a negative number shifted right. Only constant counts skip the test."""
    t = TYPES[d.name]
    ty, width = vector(t, lanes), 8 * d.itemsize
    word = "shl" if op == "shl" else "ashr" if d.kind == "int" else "lshr"
    if b[0] != "%":
        return line(f"{word} {ty} {a}, {b}")
    fits = line(f"icmp ult {ty} {b}, {literal(width, d, lanes)}")
    count = line(f"select {_bits(ty)} {fits}, {ty} {b}, {ty} {literal(width - 1, d, lanes)}")
    out = line(f"{word} {ty} {a}, {count}")
    if word == "ashr":
        return out
    return line(f"select {_bits(ty)} {fits}, {ty} {out}, {ty} {_zero(t, lanes)}")


def cast(line: Line, a: str, source: DType, target: DType, lanes: int) -> str:
    """Conversion. A float that does not fit an integer is undefined here: stage `expand` brings it into range first."""
    s, t = TYPES[source.name], TYPES[target.name]
    sv, tv = vector(s, lanes), vector(t, lanes)
    if s == t:
        return a
    if target is dtypes.bool_:
        zero = _zero(s, lanes)
        return line(f"fcmp une {sv} {a}, {zero}" if source.is_float else f"icmp ne {sv} {a}, {zero}")
    if source is dtypes.bool_:
        return line(f"select {sv} {a}, {tv} {literal(1, target, lanes)}, {tv} {_zero(t, lanes)}")
    if source.is_float and target.is_float:
        if abs(source.itemsize - target.itemsize) == 6:  # half and double have no direct instruction
            return cast(line, cast(line, a, source, dtypes.float32, lanes), dtypes.float32, target, lanes)
        return line(f"{'fpext' if target.itemsize > source.itemsize else 'fptrunc'} {sv} {a} to {tv}")
    if source.is_float:
        if source is dtypes.float16:
            return cast(line, cast(line, a, source, dtypes.float32, lanes), dtypes.float32, target, lanes)
        return line(f"{'fptosi' if target.kind == 'int' else 'fptoui'} {sv} {a} to {tv}")
    if target.is_float:
        if target is dtypes.float16:
            return cast(line, cast(line, a, source, dtypes.float32, lanes), dtypes.float32, target, lanes)
        return line(f"{'sitofp' if source.kind == 'int' else 'uitofp'} {sv} {a} to {tv}")
    if target.itemsize < source.itemsize:
        return line(f"trunc {sv} {a} to {tv}")
    return line(f"{'sext' if source.kind == 'int' else 'zext'} {sv} {a} to {tv}")


def upper_halves(line: Line, d: DType, lanes: int, x: str) -> str:
    """The upper halves of lanes twice as wide as `d`: every second lane of what they are as lanes of `d` (the lower half comes
    first). One shuffle packs two vectors, where shifting and truncating takes five instructions."""
    t = TYPES[d.name]
    picks, twice = ", ".join([f"i32 {2 * k + 1}" for k in range(lanes)]), vector(t, 2 * lanes)
    halves = line(f"bitcast <{lanes} x i{16 * d.itemsize}> {x} to {twice}")
    return line(f"shufflevector {twice} {halves}, {twice} poison, <{lanes} x i32> <{picks}>")


def fma(line: Line, d: DType, lanes: int, a: str, b: str, c: str) -> str:
    t = TYPES[d.name]
    ty = vector(t, lanes)
    if not d.is_float:
        return combine(line, "add", d, lanes, combine(line, "mul", d, lanes, a, b), c)
    if d is dtypes.float16:  # one rounding in float32, one to half: the product of two halves is exact in float32
        wide = [cast(line, x, d, dtypes.float32, lanes) for x in (a, b, c)]
        return cast(line, fma(line, dtypes.float32, lanes, wide[0], wide[1], wide[2]), dtypes.float32, d, lanes)
    return line(f"call {ty} @llvm.fma.{suffix(t, lanes)}({ty} {a}, {ty} {b}, {ty} {c})")


def scalef(line: Line, d: DType, lanes: int, x: str, n: str) -> str:
    """x * 2**n for whole numbers n in the dtype of x: vectors of 16, 32 or 64 bytes, or pairs of such."""
    t = TYPES[d.name]
    ty = vector(t, lanes)
    if lanes * d.itemsize > 64:
        half = vector(t, lanes // 2)
        sides = []
        for start in (0, lanes // 2):
            picks = ", ".join(f"i32 {start + k}" for k in range(lanes // 2))
            parts = [line(f"shufflevector {ty} {a}, {ty} poison, <{lanes // 2} x i32> <{picks}>") for a in (x, n)]
            sides.append(scalef(line, d, lanes // 2, *parts))
        picks = ", ".join(f"i32 {k}" for k in range(lanes))
        return line(f"shufflevector {half} {sides[0]}, {half} {sides[1]}, <{lanes} x i32> <{picks}>")
    bits = 8 * lanes * d.itemsize
    name = f"@llvm.x86.avx512.mask.scalef.p{'s' if d.itemsize == 4 else 'd'}.{bits}"
    rest = f"{ty} zeroinitializer, i{max(8, lanes)} -1" + (", i32 4" if bits == 512 else "")  # all lanes; rounded as usual
    return line(f"call {ty} {name}({ty} {x}, {ty} {n}, {rest})")


def dot2(line: Line, lanes: int, a: str, b: str, total: str) -> str:
    """total + the dot products of pairs of bfloat16 in the i32 lanes of a and b."""
    t, pairs, bits = f"<{lanes} x float>", f"<{2 * lanes} x bfloat>", f"<{lanes} x i32>"
    x, y = (line(f"bitcast {bits} {v} to {pairs}") for v in (a, b))
    return line(f"call {t} @llvm.x86.avx512bf16.dpbf16ps.{32 * lanes}({t} {total}, {pairs} {x}, {pairs} {y})")


def lanes_reduce(line: Line, op: str, d: DType, lanes: int, a: str) -> str:
    """All lanes into one by halving; an odd count leaves its last lane for the end. Bits are compared all at once."""
    t = TYPES[d.name]
    if d is dtypes.bool_ and lanes > 1:
        bits = line(f"bitcast <{lanes} x i1> {a} to i{lanes}")
        return line(f"icmp eq i{lanes} {bits}, -1" if op == "mul" else f"icmp ne i{lanes} {bits}, 0")
    rest: list[str] = []
    while lanes > 1:
        if lanes % 2:
            rest.append(line(f"extractelement <{lanes} x {t}> {a}, i64 {lanes - 1}"))
        half = lanes // 2
        sides = []
        for start in (0, half):
            if half == 1:
                sides.append(line(f"extractelement <{lanes} x {t}> {a}, i64 {start}"))
            else:
                picks = ", ".join(f"i32 {start + k}" for k in range(half))
                sides.append(line(f"shufflevector <{lanes} x {t}> {a}, <{lanes} x {t}> poison, <{half} x i32> <{picks}>"))
        a = combine(line, op, d, half, sides[0], sides[1])
        lanes = half
    for r in rest:
        a = combine(line, op, d, 1, a, r)
    return a


def lanes_scan(line: Line, op: str, d: DType, lanes: int, a: str) -> str:
    """Lanes combined with all before them: with the one before, with what is then two before, four before... (Hillis and Steele
    1986, "Data parallel algorithms")."""
    t, step = TYPES[d.name], 1
    ty = f"<{lanes} x {t}>"
    start = literal({"add": 0, "mul": 1, "maximum": d.min}[op], d, lanes)
    while step < lanes:
        picks = ", ".join(f"i32 {k - step if k >= step else lanes}" for k in range(lanes))
        before = line(f"shufflevector {ty} {a}, {ty} {start}, <{lanes} x i32> <{picks}>")
        a = combine(line, op, d, lanes, before, a)
        step *= 2
    return a


def elementwise(line: Line, e: Expr, args: Sequence[str]) -> str:
    """The instructions of one op of the op table; the transcendental ones are gone by now (stage expand)."""
    d, lanes, op = e.dtype, e.lanes, e.op
    t = TYPES[d.name]
    ty = vector(t, lanes)
    source = e.args[0].dtype
    st = vector(TYPES[source.name], lanes)
    if op == "cast" or (op == "bitcast" and dtypes.bool_ in (source, d)):  # a byte in memory, one bit here
        return cast(line, args[0], source, d, lanes)
    if op == "bitcast":
        return args[0] if st == ty else line(f"bitcast {st} {args[0]} to {ty}")
    if op == "neg":
        return line(f"fneg {ty} {args[0]}" if d.is_float else f"sub {ty} {_zero(t, lanes)}, {args[0]}")
    if op in UNARY:
        if not d.is_float:
            return args[0]
        if d is dtypes.float16:
            wide = cast(line, args[0], d, dtypes.float32, lanes)
            wt = vector("float", lanes)
            out = line(f"call {wt} @llvm.{UNARY[op]}.{suffix('float', lanes)}({wt} {wide})")
            return cast(line, out, dtypes.float32, d, lanes)
        return line(f"call {ty} @llvm.{UNARY[op]}.{suffix(t, lanes)}({ty} {args[0]})")
    if op == "reciprocal":
        return line(f"fdiv {ty} {literal(1.0, d, lanes)}, {args[0]}")
    if op in ("lt", "eq"):
        if source is dtypes.bool_ and op == "lt":
            return line(f"icmp ult {st} {args[0]}, {args[1]}")
        if source.is_float:
            return line(f"fcmp {'olt' if op == 'lt' else 'oeq'} {st} {args[0]}, {args[1]}")
        return line(f"icmp {'eq' if op == 'eq' else 'ult' if source.kind == 'uint' else 'slt'} {st} {args[0]}, {args[1]}")
    if op == "where":
        return line(f"select {st} {args[0]}, {ty} {args[1]}, {ty} {args[2]}")
    if op == "fma":
        return fma(line, d, lanes, args[0], args[1], args[2])
    if op == "dot2":
        return dot2(line, lanes, args[0], args[1], "zeroinitializer")
    if op == "scalef":
        return scalef(line, d, lanes, args[0], args[1])
    return combine(line, op, d, lanes, args[0], args[1])
