"""OpenCL C types, constants and the text of each elementwise op, for one vector of at most 16 lanes. No memory, no control flow.

How values are held in registers: a bool is an int (0 or 1), bool vectors are intN with lanes 0 or -1, as OpenCL compares; a
float16 is a float that holds a float16's value, rounded after every operation, and its bits in memory are a ushort: no device
needs cl_khr_fp16, and drivers that take vload_half's address for aligned do no harm. What takes more than one expression is a
helper function; `Helpers` collects those that are used.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from tinyengine import dtypes
from tinyengine.dtypes import DType

REGISTER = {
    "bool": "int", "int8": "char", "int16": "short", "int32": "int", "int64": "long",
    "uint8": "uchar", "uint16": "ushort", "uint32": "uint", "uint64": "ulong",
    "float16": "float", "float32": "float", "float64": "double",
    "bfloat16": "ushort", "fp8e4m3": "uchar", "fp8e5m2": "uchar",  # the bits: stage `expand` converts
}  # fmt: skip
MEMORY = REGISTER | {"bool": "uchar", "float16": "ushort"}
SIGNED = {1: "char", 2: "short", 4: "int", 8: "long"}
SIGN = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "xor": "^", "lt": "<", "eq": "=="}
LANES = "0123456789abcdef"


@functools.cache
def pieces(lanes: int) -> tuple[tuple[int, int], ...]:
    """(first lane, width) of the OpenCL vectors that hold `lanes` lanes: widths 16, 8, 4, 2 and 1."""
    out, at = [], 0
    for w in (16, 8, 4, 2, 1):
        while lanes - at >= w:
            out.append((at, w))
            at += w
    return tuple(out)


def wide(t: str, w: int) -> str:
    return t if w == 1 else f"{t}{w}"


def register(d: DType, w: int) -> str:
    """The type of a value: float16 is sixteen floats here, whatever the element type."""
    return wide(REGISTER[d.name], w)


def width_of(d: DType) -> int:
    """Bytes of one lane in a register."""
    return 4 if d is dtypes.bool_ or d is dtypes.float16 else d.itemsize


def literal(value: Any, d: DType) -> str:
    """A scalar constant of exactly this value and type."""
    if d is dtypes.bool_:
        return str(int(value))
    if d.layout is not None:
        value = int(d.encode(np.asarray(value)))
    elif d.is_float:
        return _float_literal(float(d.numpy.type(value)), d)
    v = int(value) & ((1 << 8 * d.itemsize) - 1)
    if d.kind == "int" and v >> (8 * d.itemsize - 1):
        v -= 1 << 8 * d.itemsize
    if d.itemsize < 4:
        return f"({REGISTER[d.name]}){v}"
    end = ("u" if d.kind == "uint" else "") + ("L" if d.itemsize == 8 else "")
    if d.kind == "int" and v == d.min:  # -2147483648 would be minus a number that does not fit
        return f"({v + 1}{end} - 1)"
    return f"{v}{end}"


def _float_literal(v: float, d: DType) -> str:
    double = d is dtypes.float64
    if math.isnan(v):
        bits = np.float64(v).view(np.int64) if double else np.float32(v).view(np.int32)
        return f"as_{'double' if double else 'float'}({int(bits):#x}{'L' if double else ''})" if bits >= 0 else "(-(float)NAN)"
    if math.isinf(v):
        text = "(double)INFINITY" if double else "INFINITY"
        return text if v > 0 else f"(-{text})"
    text = repr(v) if double else str(np.float32(v))
    if not any(c in text for c in ".e"):
        text += ".0"
    text += "" if double else "f"
    return f"({text})" if text[0] == "-" else text


class Helpers(dict[str, str]):
    """Helper functions by name, each after those that it calls."""

    def add(self, name: str, text: str) -> str:
        self.setdefault(name, text)
        return name


class Operand(NamedTuple):
    """The text of a value: `full` has the type of its lanes; `thin` is a scalar where all lanes are equal, else just `full`."""

    full: str
    thin: str
    constant: bool = False

    @property
    def scalar(self) -> bool:
        return self.thin is not self.full


def splat(scalar: str, d: DType, w: int, constant: bool = False) -> Operand:
    if w == 1:
        return Operand(scalar, scalar, constant)
    if d is dtypes.bool_:
        full = f"(int{w})({'-1' if scalar == '1' else scalar if constant else f'-{scalar}'})"
        return Operand(full, full, constant)
    return Operand(f"({register(d, w)})({bare(scalar)})", scalar, constant)


def bare(text: str) -> str:
    """Without the parentheses around all of it."""
    while text.startswith("(") and text.endswith(")"):
        depth = 0
        for i, c in enumerate(text):
            depth += (c == "(") - (c == ")")
            if depth == 0 and i < len(text) - 1:
                return text
        text = text[1:-1]
    return text


# ---- rounding to float16, held in floats


def _half_round(h: Helpers, w: int) -> str:
    """To the nearest of 11 significant bits, ties to even; below 2**-14 to a multiple of 2**-24; above 65504 to infinity."""
    f, u = wide("float", w), wide("uint", w)
    text = f"""{f} to_half{w}({f} x) {{  // the nearest float16
  {u} bits = as_{u}(x) & 0x7fffffffu, sign = as_{u}(x) & 0x80000000u;
  {f} size = as_{f}(bits), near = as_{f}((bits + 0xfffu + ((bits >> 13) & 1u)) & 0xffffe000u);
  near = size < 0x1p-14f ? (size + 0.5f) - 0.5f : near;
  near = near > 65504.0f ? ({f})(INFINITY) : near;
  near = size != size ? size : near;
  return as_{f}(as_{u}(near) | sign);
}}"""
    return h.add(f"to_half{w}", text)


def rounded(h: Helpers, text: str, d: DType, w: int) -> str:
    """`text` computed in float, as a value of dtype `d`."""
    return f"{_half_round(h, w)}({bare(text)})" if d is dtypes.float16 else text


def half_bits(h: Helpers, w: int, x: str) -> str:
    """The bits of floats that are float16 values."""
    f, u, s = (wide(t, w) for t in ("float", "uint", "ushort"))
    text = f"""{s} half_bits{w}({f} x) {{
  {u} bits = as_{u}(x) & 0x7fffffffu, sign = (as_{u}(x) & 0x80000000u) >> 16;
  {f} size = as_{f}(bits);
  {u} out = size < 0x1p-14f ? {_to(u, w)}(size * 0x1p24f) : (bits - 0x38000000u) >> 13;
  out = size < 65536.0f ? out : ({u})(0x7c00u);
  out = size != size ? ((bits >> 13) & 0x3ffu) | 0x7e00u : out;
  return {_to(s, w)}(out | sign);
}}"""
    return f"{h.add(f'half_bits{w}', text)}({bare(x)})"


def bits_half(h: Helpers, w: int, x: str) -> str:
    """The float16 values with these bits, as floats."""
    f, u, s = (wide(t, w) for t in ("float", "uint", "ushort"))
    text = f"""{f} bits_half{w}({s} x) {{
  {u} all_bits = {_to(u, w)}(x), bits = (all_bits & 0x7fffu) << 13, sign = (all_bits & 0x8000u) << 16;
  {f} out = bits < 0x800000u ? as_{f}(bits | 0x38800000u) - 0x1p-14f : as_{f}(bits + 0x38000000u);
  out = bits < 0xf800000u ? out : as_{f}(bits | 0x7f800000u);
  return as_{f}(as_{u}(out) | sign);
}}"""
    return f"{h.add(f'bits_half{w}', text)}({bare(x)})"


def _to(t: str, w: int) -> str:
    return f"({t})" if w == 1 else f"convert_{t}"


# ---- arithmetic


def combine(h: Helpers, op: str, d: DType, w: int, a: Operand, b: Operand, plain: bool = False) -> str:
    """op(a, b) of one dtype: add, sub, mul, div, maximum, minimum, and, or, xor, shl, shr, floordiv, mod.
    `plain`: a scalar integer result is known not to overflow (index arithmetic)."""
    if d is dtypes.bool_:
        op = {"add": "or", "maximum": "or", "mul": "and", "minimum": "and"}.get(op, op)
    if op in ("maximum", "minimum"):
        return _extreme(h, op, d, w, a, b)
    if op in ("floordiv", "mod"):
        return _divide(h, op, d, w, a, b, plain)
    if op in ("shl", "shr"):
        return _shift(h, op, d, w, a, b)
    x, y = a.thin, b.thin
    if w > 1 and a.scalar and b.scalar:
        x = a.full
    sign = SIGN[op]
    if not d.is_int or w > 1 or plain or (sign in "&|^" and d.itemsize >= 4):
        return rounded(h, f"({x} {sign} {y})", d, w)
    # C leaves overflow of signed integers undefined, and widens short ones: unsigned arithmetic wraps
    t = REGISTER[d.name]
    if d.itemsize < 4:
        return f"({t})((uint){x} {sign} (uint){y})"
    if d.kind == "uint":
        return f"({x} {sign} {y})"
    return f"as_{t}(as_u{t}({bare(x)}) {sign} as_u{t}({bare(y)}))"


def _extreme(h: Helpers, op: str, d: DType, w: int, a: Operand, b: Operand) -> str:
    """NaN on either side gives NaN."""
    if not d.is_float:
        return f"{op[:3]}({bare(a.full)}, {bare(b.full)})"
    t = register(d, w)
    name = f"{op}_{t}"
    sign = ">" if op == "maximum" else "<"
    h.add(name, f"{t} {name}({t} a, {t} b) {{\n  return a != a ? a : a {sign} b ? a : b;\n}}")
    return f"{name}({bare(a.full)}, {bare(b.full)})"


def _divide(h: Helpers, op: str, d: DType, w: int, a: Operand, b: Operand, plain: bool) -> str:
    """Integers, rounding toward minus infinity; a divisor 0 gives 0, and neither it nor -1 reaches the instruction."""
    sign = "/" if op == "floordiv" else "%"
    if plain:  # both at least 0, and the divisor a constant
        return f"({a.thin if w == 1 else a.full} {sign} {b.thin})"
    t = register(d, w)
    constants = f"  {t} zero = ({t})(0), one = ({t})(1);"
    if d.kind == "uint":
        body = f"{constants}\n  return b == zero ? zero : ({t})(a {sign} (b == zero ? one : b));"
    else:
        u = wide("u" + REGISTER[d.name], w)
        flipped = f"as_{t}(({u})(0) - as_{u}(a))" if d.itemsize >= 4 or w > 1 else "zero - a"
        result = f"b == minus ? {flipped} : wrong ? q - one : q" if op == "floordiv" else "wrong ? r + safe : r"
        body = f"""{constants}
  {t} minus = ({t})(-1), safe = (b == zero) | (b == minus) ? one : b;
  {t} q = a / safe, r = a - q * safe, wrong = (r != zero) & ((r ^ safe) < zero);
  return b == zero ? zero : {result};"""
    name = h.add(f"{op}_{t}", f"{t} {op}_{t}({t} a, {t} b) {{\n{body}\n}}")
    return f"{name}({bare(a.full)}, {bare(b.full)})"


def _shift(h: Helpers, op: str, d: DType, w: int, a: Operand, b: Operand) -> str:
    """By the width or more: 0, or -1 for a negative number shifted right. OpenCL itself counts modulo the width."""
    t, bits = register(d, w), 8 * d.itemsize
    s, sign = REGISTER[d.name], "<<" if op == "shl" else ">>"
    if b.constant and d.itemsize >= 4 and not b.full.startswith("(-"):
        count = int(bare(b.thin).rstrip("uL"))
        if count < bits:
            if op == "shl" and w == 1 and d.kind == "int":
                return f"as_{t}(as_u{t}({bare(a.full)}) << {count})"
            return f"({a.full} {sign} {b.full if w > 1 else count})"
    u = wide(s if d.kind == "uint" else f"u{s}", w)
    one = s if d.kind == "uint" else f"u{s}"
    if op == "shr" and d.kind == "int":
        body = f"return ({t})(a >> (as_{u}(b) < ({one}){bits} ? b : ({t})({bits - 1})));"
    else:
        body = f"return as_{u}(b) < ({one}){bits} ? ({t})(a {sign} b) : ({t})(0);"
    name = h.add(f"{op}_{t}", f"{t} {op}_{t}({t} a, {t} b) {{\n  {body}\n}}")
    return f"{name}({bare(a.full)}, {bare(b.full)})"


def fma(h: Helpers, d: DType, w: int, a: Operand, b: Operand, c: Operand) -> str:
    """Rounded once; for float16 once to float32 and once more, which the product, exact in float32, does not suffer from."""
    if not d.is_float:
        product = combine(h, "mul", d, w, a, b)
        return combine(h, "add", d, w, Operand(product, product), c)
    return rounded(h, f"fma({bare(a.full)}, {bare(b.full)}, {bare(c.full)})", d, w)


def mask_for(m: str, d: DType, w: int) -> str:
    """A bool vector as the condition of a selection between values of dtype `d`."""
    return m if w == 1 or width_of(d) == 4 else f"convert_{SIGNED[width_of(d)]}{w}({bare(m)})"


def select(m: str, d: DType, w: int, a: str, b: str) -> str:
    return f"({mask_for(m, d, w)} ? {a} : {b})"


def compare(op: str, source: DType, w: int, a: Operand, b: Operand) -> str:
    if source is dtypes.bool_ and w > 1 and op == "lt":
        return f"(~{a.full} & {b.full})"
    x, y = a.thin, b.thin
    if w > 1 and a.scalar and b.scalar:
        x = a.full
    text = f"({x} {SIGN[op]} {y})"
    return text if w == 1 or width_of(source) == 4 else f"convert_int{w}{text}"


def cast(h: Helpers, source: DType, target: DType, w: int, a: Operand) -> str:
    """Conversion. A float that does not fit an integer is undefined here: stage `expand` brings it into range first."""
    if source is target:
        return a.full
    t = register(target, w)
    if target is dtypes.bool_:
        zero = splat(literal(0, source), source, w, True)
        text = f"({a.full} != {zero.thin})"
        return text if w == 1 or width_of(source) == 4 else f"convert_int{w}{text}"
    if source is dtypes.bool_:
        if w == 1:
            return f"({t}){a.full}"
        return select(a.full, target, w, splat(literal(1, target), target, w).full, splat(literal(0, target), target, w).full)
    text = a.full
    if REGISTER[source.name] != REGISTER[target.name]:
        text = f"({t}){text}" if w == 1 else f"convert_{t}({bare(text)})"
    exact = source in (dtypes.int8, dtypes.uint8) or source is dtypes.float16
    return text if exact else rounded(h, text, target, w)


def bitcast(h: Helpers, source: DType, target: DType, w: int, a: Operand) -> str:
    if source is target:
        return a.full
    if dtypes.bool_ in (source, target):
        return cast(h, source, target, w, a)
    if source is dtypes.float16:
        bits = half_bits(h, w, a.full)
        return bits if target is dtypes.uint16 else f"as_{register(target, w)}({bits})"
    if target is dtypes.float16:
        bits = a.full if source is dtypes.uint16 else f"as_{wide('ushort', w)}({bare(a.full)})"
        return bits_half(h, w, bits)
    return f"as_{register(target, w)}({bare(a.full)})"


def unary(h: Helpers, op: str, d: DType, w: int, a: Operand) -> str:
    """neg, sqrt, trunc, round, reciprocal."""
    if op == "neg":
        if d.is_float or w > 1:
            return f"(-{a.full})"
        zero = literal(0, d)
        return combine(h, "sub", d, w, Operand(zero, zero, True), a)
    if not d.is_float:
        return a.full
    if op == "reciprocal":
        return rounded(h, f"({literal(1, d)} / {a.full})", d, w)
    if op == "sqrt":
        return rounded(h, f"sqrt({bare(a.full)})", d, w)
    return f"{'rint' if op == 'round' else op}({bare(a.full)})"


def lanes_reduce(h: Helpers, op: str, d: DType, w: int, a: str) -> str:
    """All lanes into one, by halves."""
    if w == 1:
        return a
    if d is dtypes.bool_:
        return f"{'all' if op in ('mul', 'minimum', 'and') else 'any'}({bare(a)})"
    t = REGISTER[d.name]
    half = w // 2
    sides = [Operand(f"x.{s}", f"x.{s}") for s in ("lo", "hi")]
    rest = combine(h, op, d, half, sides[0], sides[1])
    mark = "half_" if d is dtypes.float16 else ""
    text = lanes_reduce(h, op, d, half, rest) if half > 1 else rest
    name = f"lanes_{op}_{mark}{t}{w}"
    h.add(name, f"{t} {name}({wide(t, w)} x) {{\n  return {bare(text)};\n}}")
    return f"{name}({bare(a)})"


def lanes_scan(h: Helpers, op: str, d: DType, w: int, a: str) -> str:
    """Each lane combined with all before it: with the one before, with what is then two before, four before..."""
    if w == 1:
        return a
    t = REGISTER[d.name]
    start = {"add": 0, "mul": 1, "maximum": d.min}[op]
    least = ("-1" if start else "0") if d is dtypes.bool_ else bare(literal(start, d))
    lines, step = [f"  {wide(t, w)} y;"], 1
    while step < w:
        lanes = ", ".join([least] * step + [lane("x", k, w) for k in range(w - step)])
        lines.append(f"  y = ({wide(t, w)})({lanes});")
        lines.append(f"  x = {bare(combine(h, op, d, w, Operand('y', 'y'), Operand('x', 'x')))};")
        step *= 2
    mark = "half_" if d is dtypes.float16 else "bool_" if d is dtypes.bool_ else ""
    name = f"scan_{op}_{mark}{t}{w}"
    h.add(name, f"{wide(t, w)} {name}({wide(t, w)} x) {{\n" + "\n".join(lines) + "\n  return x;\n}")
    return f"{name}({bare(a)})"


def lane(a: str, k: int, w: int) -> str:
    """Lane k of w."""
    return a if w == 1 else f"{a}.s{k:x}"
