"""The rules of `simplify` for floats that the machine does not compute with: they are stored narrow and computed as float32.

They stand before all others, so that no other rule, and no later stage, meets arithmetic on float16, bfloat16 or 8-bit floats:
what is left of these dtypes are buffers, casts, views and selections."""

from __future__ import annotations

from tinyengine import dtypes
from tinyengine.dtypes import DType
from tinyengine.node import Node
from tinyengine.ops import ELEMENTWISE, REDUCE, SCAN, TOTALS
from tinyengine.rules import Rule
from tinyengine.stages import record

_COMPUTED = tuple(sorted(ELEMENTWISE - {"cast", "bitcast", "where"}))


def narrow(d: DType) -> bool:
    """Whether arithmetic on `d` is arithmetic on float32."""
    return d.is_float and d.itemsize <= 2


def _wide(n: Node) -> Node:
    return record.operand(n, ())


def _through_float32(n: Node) -> Node | None:
    if not narrow(n.src[0].dtype):
        return None
    src = tuple(map(_wide, n.src))
    if n.dtype is dtypes.bool_:
        return n._replace(src=src)
    return record.result(n._replace(dtype=dtypes.float32, src=src, origin=()), n.dtype, ())


def _total(n: Node) -> Node | None:
    (x,) = n.src
    if not narrow(n.dtype):
        return None
    return record.result(record.reduce(n.op, _wide(x), n.arg, ()), n.dtype, ())


def _scanned(n: Node) -> Node | None:
    axis, reverse = n.arg
    return record.result(record.scan(n.op, _wide(n.src[0]), axis, reverse, ()), n.dtype, ()) if narrow(n.dtype) else None


def _scattered(n: Node) -> Node | None:
    if not narrow(n.dtype):
        return None
    base, index, values = n.src
    return record.result(record.scatter(n.op, _wide(base), index, _wide(values), n.arg, ()), n.dtype, ())


RULES: tuple[Rule, ...] = (
    Rule("compute-in-float32", "float32 holds every operand, and two roundings are as good as one.", _COMPUTED, _through_float32),
    Rule("total-in-float32", "A total in float32 is rounded once at its end, not at every term.", tuple(sorted(REDUCE)), _total),
    Rule("scan-in-float32", "Totals in float32 are rounded once each, not at every term.", tuple(sorted(SCAN)), _scanned),
    Rule("scatter-in-float32", "Totals in float32 are rounded once, not at every term.", TOTALS, _scattered),
)

__all__ = ["RULES", "narrow"]
