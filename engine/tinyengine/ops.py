"""THE table of primitive ops: name, family, NumPy meaning, FLOPs per element. Everything else is composed of these.

Families:
  source       a leaf: `const` (arg = the number, any shape), `buffer` (arg = a runtime Buffer), `iota` (arg = axis; the position
               along it), `size` (arg = a Size; its value, everywhere)
  unary/binary/ternary   elementwise on equal shapes (broadcasting is an explicit `expand`)
  movement     no arithmetic: output element = one input element, or 0 outside; arg describes the index map
  reduce       arg = tuple of axes, which stay in the shape with extent 1
  scan         arg = (axis, reverse): element i combines those from 0 to i, or, reversed, from i to the last
  index        addresses that depend on data
  kernel       stands only in loop nests, where the schedule puts it: dot2(a, b) of pairs of bfloat16 in the bits of uint32 is
               a0 b0 + a1 b1 in float32
  effect       a write to existing memory, a demand to be stored, or a user's function around what it computed

Movement args (shapes are always those of the nodes; every map is 'output index -> input index'):
  reshape  arg None                     row-major order stays
  permute  arg (axes)                   out[i] = in[..], out axis d is in axis arg[d]
  expand   arg None                     extent-1 axes repeat
  slice    arg ((start, step), ...)     in = start + step * out, step >= 1
  pad      arg ((low, high, interior), ...)   XLA's pad: zeros around, and `interior` zeros between; low and high >= 0
  flip     arg (axes)                   in = extent - 1 - out on those axes
  window   arg (axis, kaxis, stride, dilation)   out[.., o, .., k, ..] = in[.., o*stride + k*dilation, .., k, ..]
  place    the same arg                 adjoint of window before its sum: out[.., i, .., k, ..] = in[.., (i - k*dilation)/stride,
           .., k, ..]
                                        where that is a whole number in range, else 0. Summed over k it is `fold` (col2im).

gather      src (table, index), arg axis: out[p] = table[p with axis replaced by index[p]]; index has the shape of the result
            (torch.gather)
scatter_add src (base, index, values), arg axis: base plus each values[p] at [p with axis replaced by index[p]]
            (torch.scatter_add); scatter_max: the larger of both; scatter_mul: the product; scatter: the value takes the place,
            of several the last one along the axis
assign      src (target, value): target is a `buffer` node; the buffer's memory becomes value; as a value it is the new content
contiguous  src (x): x is stored in memory of its own
function    src (results..., arguments..., saved...), arg (application, k): result k, with the derivative that its author wrote
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyengine.erf import erf


@dataclass(frozen=True, slots=True)
class Op:
    """`numpy` maps operand arrays to the result array; `flops` counts per element (an FMA is 2, a transcendental 1); an `arity`
    of -1 is any number of operands."""

    name: str
    family: str
    arity: int
    flops: int = 0
    numpy: Callable[..., Any] | None = None
    symbol: str = ""  # infix form for text, or empty: name(args)
    commutes: bool = False


def _div(a: Any, b: Any) -> Any:
    with np.errstate(all="ignore"):
        return np.true_divide(a, b).astype(np.result_type(a))


def _floordiv(a: Any, b: Any) -> Any:
    """Rounds toward minus infinity, as Python does; a zero divisor gives 0, never a trap."""
    with np.errstate(all="ignore"):
        return np.where(b == 0, np.zeros_like(a), np.floor_divide(a, np.where(b == 0, np.ones_like(b), b)))


def _mod(a: Any, b: Any) -> Any:
    """The sign of the divisor, as in Python; integer x mod 0 is 0."""
    with np.errstate(all="ignore"):
        if np.issubdtype(np.result_type(a), np.integer):
            return np.where(b == 0, np.zeros_like(a), np.mod(a, np.where(b == 0, np.ones_like(b), b)))
        return np.mod(a, b)


def _reciprocal(a: Any) -> Any:
    with np.errstate(all="ignore"):
        return (1.0 / a).astype(a.dtype)


def _shl(a: Any, b: Any) -> Any:
    return np.left_shift(a, b)


def _quiet(f: Callable[..., Any]) -> Callable[..., Any]:
    def call(*xs: Any) -> Any:
        with np.errstate(all="ignore"):
            return f(*xs)

    return call


def threefry2x32(counter: Any, key: Any) -> Any:
    """32 random bits from 32-bit `counter` and `key` (threefry2x32-20, Salmon et al. 2011; counter (c, 0), key (k, 0), first
    word)."""
    with np.errstate(over="ignore"):
        ks = (key, np.zeros_like(key), key ^ np.uint32(0x1BD11BDA))
        x0, x1 = counter + ks[0], np.zeros_like(counter)
        for block in range(5):
            for r in THREEFRY_ROTATIONS[block % 2]:
                x0 = x0 + x1
                x1 = (x1 << np.uint32(r)) | (x1 >> np.uint32(32 - r))
                x1 = x1 ^ x0
            x0 = x0 + ks[(block + 1) % 3]
            x1 = x1 + ks[(block + 2) % 3] + np.uint32(block + 1)
    return x0


def dot2(a: Any, b: Any) -> Any:
    """The float32 dot product of pairs of bfloat16 in uint32, the first in the low bits."""
    first = (a << np.uint32(16)).view(np.float32) * (b << np.uint32(16)).view(np.float32)
    high = np.uint32(0xFFFF0000)
    return first + (a & high).view(np.float32) * (b & high).view(np.float32)


THREEFRY_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))

_TABLE = [
    Op("const", "source", 0), Op("buffer", "source", 0), Op("iota", "source", 0),
    Op("size", "source", 0),
    Op("cast", "unary", 1), Op("bitcast", "unary", 1),
    Op("neg", "unary", 1, 1, np.negative), Op("exp", "unary", 1, 1, _quiet(np.exp)), Op("exp2", "unary", 1, 1, _quiet(np.exp2)),
    Op("log", "unary", 1, 1, _quiet(np.log)),
    Op("sin", "unary", 1, 1, _quiet(np.sin)), Op("tanh", "unary", 1, 1, np.tanh), Op("erf", "unary", 1, 1, erf),
    Op("sqrt", "unary", 1, 1, _quiet(np.sqrt)), Op("reciprocal", "unary", 1, 1, _reciprocal),
    Op("trunc", "unary", 1, 1, np.trunc), Op("round", "unary", 1, 1, np.rint),
    Op("add", "binary", 2, 1, _quiet(np.add), "+", True), Op("sub", "binary", 2, 1, _quiet(np.subtract), "-"),
    Op("mul", "binary", 2, 1, _quiet(np.multiply), "*", True), Op("div", "binary", 2, 1, _div, "/"),
    Op("floordiv", "binary", 2, 1, _floordiv, "//"), Op("mod", "binary", 2, 1, _mod, "%"),
    Op("maximum", "binary", 2, 1, np.maximum, "", True), Op("minimum", "binary", 2, 1, np.minimum, "", True),
    Op("lt", "binary", 2, 1, np.less, "<"), Op("eq", "binary", 2, 1, np.equal, "==", True),
    Op("and", "binary", 2, 1, np.bitwise_and, "&", True), Op("or", "binary", 2, 1, np.bitwise_or, "|", True),
    Op("xor", "binary", 2, 1, np.bitwise_xor, "^", True),
    Op("shl", "binary", 2, 1, _shl, "<<"), Op("shr", "binary", 2, 1, np.right_shift, ">>"),
    Op("threefry", "binary", 2, 1, threefry2x32),
    Op("dot2", "kernel", 2, 3, dot2),
    Op("where", "ternary", 3, 1, np.where), Op("fma", "ternary", 3, 2, lambda a, b, c: a * b + c),
    Op("reshape", "movement", 1), Op("permute", "movement", 1), Op("expand", "movement", 1), Op("slice", "movement", 1),
    Op("pad", "movement", 1), Op("flip", "movement", 1), Op("window", "movement", 1), Op("place", "movement", 1),
    Op("sum", "reduce", 1, 1, np.add), Op("max", "reduce", 1, 1, np.maximum), Op("prod", "reduce", 1, 1, np.multiply),
    Op("scan_add", "scan", 1, 1), Op("scan_max", "scan", 1, 1), Op("scan_mul", "scan", 1, 1),
    Op("gather", "index", 2),
    Op("scatter", "index", 3),
    Op("scatter_add", "index", 3, 1), Op("scatter_max", "index", 3, 1), Op("scatter_mul", "index", 3, 1),
    Op("assign", "effect", 2), Op("contiguous", "effect", 1), Op("function", "effect", -1),
]  # fmt: skip

OPS: dict[str, Op] = {op.name: op for op in _TABLE}
ELEMENTWISE = frozenset(o.name for o in _TABLE if o.family in ("unary", "binary", "ternary"))
MOVEMENT = frozenset(o.name for o in _TABLE if o.family == "movement")
REDUCE = {"sum": "add", "max": "maximum", "prod": "mul"}  # reduce op -> the binary op that combines two partial results
SCAN = {"scan_add": "add", "scan_max": "maximum", "scan_mul": "mul"}  # scan op -> the binary op that adds an element to a total
# scatter op -> the binary op by which a value joins what is there; "": it takes its place
SCATTER = {"scatter": "", "scatter_add": "add", "scatter_max": "maximum", "scatter_mul": "mul"}
TOTALS = tuple(sorted(op for op, how in SCATTER.items() if how))  # those that join
