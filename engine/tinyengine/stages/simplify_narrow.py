"""The rules of `simplify` for floats that the machine does not compute with: they are stored narrow and computed as float32.

They stand before all others, so that no other rule, and no later stage, meets arithmetic on bfloat16 or 8-bit floats: what is
left of these dtypes are buffers, casts, views and selections."""

from __future__ import annotations

from tinyengine import dtypes
from tinyengine.dtypes import DType
from tinyengine.node import Node
from tinyengine.ops import ELEMENTWISE, REDUCE
from tinyengine.rules import Rule
from tinyengine.stages import record

_COMPUTED = tuple(sorted(ELEMENTWISE - {"cast", "bitcast", "where"}))


def _wide(n: Node) -> Node:
    return record.cast(n, dtypes.float32, ())


def _through_float32(n: Node) -> Node | None:
    if n.src[0].dtype.layout is None:
        return None
    src = tuple(map(_wide, n.src))
    if n.dtype is dtypes.bool_:
        return n._replace(src=src)
    return record.cast(n._replace(dtype=dtypes.float32, src=src, origin=()), n.dtype, ())


def adds_wide(d: DType) -> bool:
    """Whether sums of `d` are held in float32."""
    return d.layout is not None or d is dtypes.float16


def _total(n: Node) -> Node | None:
    (x,) = n.src
    if not (adds_wide(n.dtype) if n.op != "max" else n.dtype.layout is not None):
        return None
    return record.cast(record.reduce(n.op, _wide(x), n.arg, ()), n.dtype, ())


def _scattered(n: Node) -> Node | None:
    if not adds_wide(n.dtype):
        return None
    base, index, values = n.src
    return record.cast(record.scatter_add(_wide(base), index, _wide(values), n.arg, ()), n.dtype, ())


RULES: tuple[Rule, ...] = (
    Rule("compute-in-float32", "float32 holds every operand, and two roundings are as good as one.", _COMPUTED, _through_float32),
    Rule("total-in-float32", "A total in float32 is rounded once at its end, not at every term.", tuple(sorted(REDUCE)), _total),
    Rule("scatter-in-float32", "Totals in float32 are rounded once, not at every term.", ("scatter_add",), _scattered),
)

__all__ = ["RULES", "adds_wide"]
