"""Arithmetic, comparison and bit operations on two tensors, or a tensor and a number; the primitive functions of one tensor."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyengine import dtypes
from tinyengine.dtypes import DType
from tinyengine.node import Node
from tinyengine.origin import here, user_line
from tinyengine.size import Size
from tinyengine.stages import record
from tinyengine.tensor import core
from tinyengine.tensor.core import Base, make
from tinyengine.tensor.views import derive

if TYPE_CHECKING:
    from tinyengine.tensor import Tensor

    Operand = Base | bool | int | float | np.ndarray[Any, Any] | np.generic

_node = tuple.__new__
_NUMBERS = (bool, int, float)
_EXACT_NUMBER = frozenset({"add", "sub", "mul"})
_NO_GRADIENT = frozenset({"lt", "eq", "and", "or", "xor", "shl", "shr", "floordiv"})


def tensor_of(x: Any, op: str) -> Base:
    """An operand that is no Python number as a tensor: arrays are taken over, anything else is a TypeError."""
    if isinstance(x, Base):
        return x
    if isinstance(x, np.ndarray):
        return core._cls(x)  # type: ignore[no-any-return]
    if isinstance(x, Size):
        return make(_node(Node, ("size", dtypes.default_int, (), (), x, here(3))), core.NO_FLOW)
    raise TypeError(f"{op} of a tensor takes a tensor, an array or a number, not {type(x).__name__}\n  at {user_line()}")


def common_dtype(a: Node, b: Node) -> DType:
    """torch.result_type: a tensor without axes yields to one with axes of the same or a higher kind (bool < int < float)."""
    da, db = a.dtype, b.dtype
    if da is db:
        return da
    if bool(a.shape) != bool(b.shape):
        big, small = (da, db) if a.shape else (db, da)
        rank = {"bool": 0, "uint": 1, "int": 1, "float": 2}
        if rank[small.kind] <= rank[big.kind]:
            return big
        if big.kind != "bool" and not small.is_float:
            return big
    try:
        return dtypes.promote(da, db)
    except TypeError as e:
        raise TypeError(f"{e}\n  at {user_line()}") from None


def pair(a: Any, b: Any, op: str, to_float: bool = False) -> tuple[Node, Node, int, record.Where]:
    """(left, right, flow, origin): two operands, at least one a tensor, with one dtype and one shape."""
    o = here()
    if isinstance(b, np.generic):
        b = b.item()
    if isinstance(a, np.generic):
        a = a.item()
    if isinstance(b, _NUMBERS) or isinstance(a, _NUMBERS):
        x, number = (a, b) if isinstance(b, _NUMBERS) else (b, a)
        x = tensor_of(x, op)
        flow, n = core.operand(x)
        dtype = n.dtype if number.__class__ is float and n.dtype.is_float else dtypes.promote_scalar(n.dtype, number)
        if to_float:
            dtype = core.float_of(dtype)
        try:
            c = record.const(number, dtype, n.shape, o)
        except (OverflowError, ValueError):
            raise RuntimeError(f"{number!r} cannot be converted to {dtype}\n  at {user_line()}") from None
        n = record.cast(n, dtype, o)
        return (n, c, flow, o) if x is a else (c, n, flow, o)
    x, y = tensor_of(a, op), tensor_of(b, op)
    flow = x.flow | y.flow
    m, n = x.node, y.node
    if flow > core.state.limit:
        flow, (m, n) = core.settle(x, y)
    dtype = common_dtype(m, n)
    if to_float:
        dtype = core.float_of(dtype)
    m, n = record.cast(m, dtype, o), record.cast(n, dtype, o)
    if m.shape != n.shape:
        shape = core.broadcast_shape(m.shape, n.shape)
        m, n = core.broadcast_node(m, shape, o), core.broadcast_node(n, shape, o)
    return m, n, flow, o


def binary(op: str, a: Any, b: Any) -> Tensor:
    """`op` of two operands. First the short ways: two tensors of one dtype; a float tensor and a number."""
    kind = b.__class__
    if a.__class__ is kind:
        m, n = a.node, b.node
        if m.dtype is n.dtype and m.dtype is not dtypes.bool_:
            flow = a.flow | b.flow
            if flow > core.state.limit:
                flow, (m, n) = core.settle(a, b)
            at = here(3)
            if m.shape != n.shape:
                shape = core.broadcast_shape(m.shape, n.shape)
                m, n = core.broadcast_node(m, shape, at), core.broadcast_node(n, shape, at)
            if op in _NO_GRADIENT:
                return make(record.binary(op, m, n, at), core.NO_FLOW)
            return make(_node(Node, (op, m.dtype, m.shape, (m, n), None, at)), flow)
    elif kind is float or kind is int:
        m = a.node
        if m.dtype.kind == "float" and m.dtype.itemsize > 2 and op not in _NO_GRADIENT:
            flow = a.flow
            if flow > core.state.limit:
                flow, (m,) = core.settle(a)
            o: record.Where = here(3)
            c = _node(Node, ("const", m.dtype, m.shape, (), float(b), o))
            return make(_node(Node, (op, m.dtype, m.shape, (m, c), None, o)), flow)
    if op == "sub" and dtypes.bool_ in (_kind(a), _kind(b)):
        raise RuntimeError(f"a - b is not defined for bools; use ^ or logical_xor, or cast them\n  at {user_line()}")
    if op in _EXACT_NUMBER and (half := _half_beside_number(a, b)):
        return core.narrowed(binary(op, *half[:2]), half[2])  # type: ignore[no-any-return]
    m, n, flow, o = pair(a, b, op)
    if op == "mod" and m.dtype is dtypes.bool_:
        raise NotImplementedError(f"% is not defined for bool tensors\n  at {user_line()}")
    return make(record.binary(op, m, n, o), core.NO_FLOW if op in _NO_GRADIENT else flow)


def _half_beside_number(a: Any, b: Any) -> tuple[Any, Any, DType] | None:
    """(a, b, dtype of the result) where one is a number, the other a float of one or two bytes: that as float32, so that the
    number is not rounded to so few bits before it is used, as in PyTorch."""
    x: Any
    x, number = (a, b) if isinstance(a, Base) else (b, a)
    if not isinstance(number, _NUMBERS) or core.wide(x.dtype) is x.dtype:
        return None
    wide = core.widened(x)
    return (wide, b, x.dtype) if x is a else (a, wide, x.dtype)


def unary(op: str, x: Base) -> Tensor:
    """A function of one tensor; ints and bools become the default float first."""
    flow, n = core.operand(x)
    o = here(3)
    if not n.dtype.is_float:
        n, flow = record.cast(n, dtypes.default_float, o), core.NO_FLOW
    return make(_node(Node, (op, n.dtype, n.shape, (n,), None, o)), flow)


def _whole(op: str, *xs: Any) -> None:
    for x in xs:
        if isinstance(x, float) or (isinstance(x, Base) and x.dtype.is_float):
            what = x.dtype if isinstance(x, Base) else "float"
            raise NotImplementedError(f"{op} works on bool and integer tensors, not on {what}\n  at {user_line()}")
    if op in ("<<", ">>") and all(_kind(x) is dtypes.bool_ for x in xs):
        raise NotImplementedError(f"{op} of bools; cast one to an int\n  at {user_line()}")


def _kind(x: Any) -> Any:
    """The dtype of an operand, where it has one to speak of."""
    return x.dtype if isinstance(x, Base) else dtypes.bool_ if isinstance(x, bool) else None


def _no_zero(op: str, a: Any, b: Any) -> None:
    """RuntimeError for an integer divided by the number 0. (Elements of a tensor are not looked at: the quotient is 0.)"""
    if isinstance(b, int) and b == 0 and isinstance(a, Base) and not a.dtype.is_float:
        raise RuntimeError(f"{op}: an integer divided by zero\n  at {user_line()}")


class Elementwise(Base):
    """Operators and the functions of one element."""

    __slots__ = ()
    __array_priority__ = 1000  # array + tensor asks the tensor

    def __add__(self, other: Operand) -> Tensor:
        return binary("add", self, other)

    def __radd__(self, other: Operand) -> Tensor:
        return binary("add", other, self)

    def __sub__(self, other: Operand) -> Tensor:
        return binary("sub", self, other)

    def __rsub__(self, other: Operand) -> Tensor:
        return binary("sub", other, self)

    def __mul__(self, other: Operand) -> Tensor:
        return binary("mul", self, other)

    def __rmul__(self, other: Operand) -> Tensor:
        return binary("mul", other, self)

    def __truediv__(self, other: Operand) -> Tensor:
        return divide(self, other)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return divide(other, self)

    def __floordiv__(self, other: Operand) -> Tensor:
        return floor_divide(self, other)

    def __rfloordiv__(self, other: Operand) -> Tensor:
        return floor_divide(other, self)

    def __mod__(self, other: Operand) -> Tensor:
        return self.mod(other)

    def __rmod__(self, other: Operand) -> Tensor:
        return binary("mod", other, self)

    def __neg__(self) -> Tensor:
        return self.neg()

    def __pos__(self) -> Tensor:
        return derive(self, self.node, self.node, self.flow)

    def __and__(self, other: Operand) -> Tensor:
        return self.bitwise_and(other)

    def __rand__(self, other: Operand) -> Tensor:
        return self.bitwise_and(other)

    def __or__(self, other: Operand) -> Tensor:
        return self.bitwise_or(other)

    def __ror__(self, other: Operand) -> Tensor:
        return self.bitwise_or(other)

    def __xor__(self, other: Operand) -> Tensor:
        return self.bitwise_xor(other)

    def __rxor__(self, other: Operand) -> Tensor:
        return self.bitwise_xor(other)

    def __invert__(self) -> Tensor:
        if self.dtype.is_float:
            raise TypeError(f"~x works on bool and integer tensors, not on {self.dtype}\n  at {user_line()}")
        return self.bitwise_not()

    def __lshift__(self, other: Operand) -> Tensor:
        return self.lshift(other)

    def __rshift__(self, other: Operand) -> Tensor:
        return self.rshift(other)

    def __rlshift__(self, other: Operand) -> Tensor:
        _whole("<<", self, other)
        return binary("shl", other, self)

    def __rrshift__(self, other: Operand) -> Tensor:
        _whole(">>", self, other)
        return binary("shr", other, self)

    def __lt__(self, other: Operand) -> Tensor:
        return binary("lt", self, other)

    def __gt__(self, other: Operand) -> Tensor:
        return binary("lt", other, self)

    def __le__(self, other: Operand) -> Tensor:
        return at_least(other, self)

    def __ge__(self, other: Operand) -> Tensor:
        return at_least(self, other)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return binary("eq", self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return binary("eq", self, other).logical_not()

    __hash__ = object.__hash__

    # The same by name.
    def add(self, other: Operand) -> Tensor:
        """self + other, broadcast. RuntimeError when the shapes do not fit."""
        return binary("add", self, other)

    def sub(self, other: Operand) -> Tensor:
        """self - other, broadcast. RuntimeError for bools."""
        return binary("sub", self, other)

    def mul(self, other: Operand) -> Tensor:
        """self * other, broadcast."""
        return binary("mul", self, other)

    def div(self, other: Operand, rounding_mode: str | None = None) -> Tensor:
        """True division (ints give the default float); rounding_mode 'floor' or 'trunc' rounds the quotient."""
        if rounding_mode is None:
            return divide(self, other)
        if rounding_mode == "floor":
            return floor_divide(self, other)
        if rounding_mode != "trunc":
            raise RuntimeError(f"div: rounding_mode is None, 'floor' or 'trunc', not {rounding_mode!r}\n  at {user_line()}")
        m, n, flow, o = pair(self, other, "div")
        if m.dtype.is_float:
            return make(record.unary("trunc", record.binary("div", m, n, o), o), flow)
        q = make(record.binary("floordiv", m, n, o), core.NO_FLOW)
        exact = binary("eq", q * make(n, 0), make(m, 0))
        return (exact | (q >= 0)).where(q, q + 1)

    def mod(self, other: Operand) -> Tensor:
        """The remainder with the sign of the divisor (torch.remainder). RuntimeError for an integer by the number 0; by an
        element that is 0 it is 0 (PyTorch raises). NotImplementedError for bools by bools."""
        _no_zero("%", self, other)
        return binary("mod", self, other)

    def maximum(self, other: Operand) -> Tensor:
        """The larger of the two; NaN if either is. In gradients two equal tensors share, and beside a number a tie gets none (as
        relu)."""
        return binary("maximum", self, other)

    def minimum(self, other: Operand) -> Tensor:
        """The smaller of the two; NaN if either is. Gradients as of `maximum`."""
        return binary("minimum", self, other)

    def lt(self, other: Operand) -> Tensor:
        """self < other: bool, false beside NaN."""
        return binary("lt", self, other)

    def gt(self, other: Operand) -> Tensor:
        """self > other: bool, false beside NaN."""
        return binary("lt", other, self)

    def le(self, other: Operand) -> Tensor:
        """self <= other: bool, false beside NaN."""
        return at_least(other, self)

    def ge(self, other: Operand) -> Tensor:
        """self >= other: bool, false beside NaN."""
        return at_least(self, other)

    def eq(self, other: Operand) -> Tensor:
        """self == other: bool, false beside NaN."""
        return binary("eq", self, other)

    def ne(self, other: Operand) -> Tensor:
        """self != other: bool, true beside NaN."""
        return binary("eq", self, other).logical_not()

    def bitwise_and(self, other: Operand) -> Tensor:
        """Bits of ints, truth of bools; RuntimeError for floats."""
        _whole("and", self, other)
        return binary("and", self, other)

    def bitwise_or(self, other: Operand) -> Tensor:
        """Bits of ints, truth of bools; NotImplementedError for floats."""
        _whole("or", self, other)
        return binary("or", self, other)

    def bitwise_xor(self, other: Operand) -> Tensor:
        """Bits of ints, truth of bools; NotImplementedError for floats."""
        _whole("xor", self, other)
        return binary("xor", self, other)

    def bitwise_not(self) -> Tensor:
        """Bits of ints, truth of bools; NotImplementedError for floats."""
        _whole("not", self)
        if self.dtype.kind == "uint":
            return binary("xor", self, self.dtype.max)
        return binary("xor", self, True if self.dtype is dtypes.bool_ else -1)

    def lshift(self, other: Operand) -> Tensor:
        """Bits moved up by `other`. NotImplementedError for floats, and for bools by bools."""
        _whole("<<", self, other)
        return binary("shl", self, other)

    def rshift(self, other: Operand) -> Tensor:
        """Bits moved down by `other`; the sign stays. NotImplementedError for floats, and for bools by bools."""
        _whole(">>", self, other)
        return binary("shr", self, other)

    def logical_not(self) -> Tensor:
        """True where the element is zero."""
        if self.dtype is dtypes.bool_:
            return binary("xor", self, True)
        return binary("eq", self, 0)

    def where(self, a: Operand, b: Operand) -> Tensor:
        """`a` where self (bool) is true, else `b`; all three broadcast. Of a tensor that is not bool, as PyTorch has it:
        x.where(condition, b) is x where the condition is true. RuntimeError when neither is bool."""
        if self.dtype is not dtypes.bool_ and isinstance(a, Base) and a.dtype is dtypes.bool_:
            return choose(a, self, b)
        return choose(self, a, b)

    def masked_fill(self, mask: Operand, value: Operand) -> Tensor:
        """`value` where `mask` (bool) is true; the dtype stays."""
        if isinstance(mask, Base) and mask.dtype is not dtypes.bool_:
            raise RuntimeError(f"masked_fill takes a bool mask, not {mask.dtype}\n  at {user_line()}")
        if isinstance(value, Base) and value.ndim:
            raise RuntimeError(f"masked_fill takes one value, not shape {list(value.shape)}; see where()\n  at {user_line()}")
        if isinstance(value, float) and math.isfinite(value) and not self.dtype.is_float:
            value = bool(value) if self.dtype is dtypes.bool_ else int(value)
        return choose(mask, value, self).cast(self.dtype)

    # One operand.
    def neg(self) -> Tensor:
        """-x. RuntimeError for bools."""
        flow, n = core.operand(self)
        if n.dtype is dtypes.bool_:
            raise RuntimeError(f"-x is not defined for bool tensors; use ~x or logical_not()\n  at {user_line()}")
        return make(record.unary("neg", n, here(2)), flow)

    def exp(self) -> Tensor:
        """e to the x. Ints and bools become float32 first, here and in all functions below."""
        return unary("exp", self)

    def log(self) -> Tensor:
        """Natural logarithm: -inf at 0, NaN below."""
        return unary("log", self)

    def sin(self) -> Tensor:
        """Sine."""
        return unary("sin", self)

    def tanh(self) -> Tensor:
        """Hyperbolic tangent."""
        return unary("tanh", self)

    def erf(self) -> Tensor:
        """The error function."""
        return unary("erf", self)

    def sqrt(self) -> Tensor:
        """The square root; NaN below 0."""
        return unary("sqrt", self)

    def reciprocal(self) -> Tensor:
        """1 / x."""
        return unary("reciprocal", self)

    def trunc(self) -> Tensor:
        """Toward zero; ints stay as they are."""
        return core.same(self) if not self.dtype.is_float else unary("trunc", self)


def divide(a: Any, b: Any) -> Tensor:
    """a / b as floats."""
    if half := _half_beside_number(a, b):
        return core.narrowed(divide(*half[:2]), half[2])  # type: ignore[no-any-return]
    m, n, flow, o = pair(a, b, "div", to_float=True)
    return make(record.binary("div", m, n, o), flow)


def floor_divide(a: Any, b: Any) -> Tensor:
    """The quotient rounded down, as in Python: 1.0 // 0.1 is 9.0. A float divided by 0 gives what / gives, an integer
    divided by an element that is 0 gives 0 (PyTorch raises)."""
    _no_zero("//", a, b)
    m, n, flow, o = pair(a, b, "floordiv")
    if m.dtype is dtypes.bool_:
        raise NotImplementedError(f"// is not defined for bool tensors\n  at {user_line()}")
    q = record.binary("floordiv", m, n, o)
    if m.dtype.is_float:
        by_zero = record.binary("eq", n, record.const(0.0, n.dtype, n.shape, o), o)
        return make(record.where(by_zero, record.bitcast(record.binary("div", m, n, o), m.dtype, o), q, o), flow)
    return make(q, core.NO_FLOW)


def at_least(a: Any, b: Any) -> Tensor:
    """a >= b. For floats not (a < b) would be true of NaN, so it is (b < a) or (a == b)."""
    m, n, _, o = pair(a, b, ">=")
    if m.dtype.is_float:
        return make(record.binary("or", record.binary("lt", n, m, o), record.binary("eq", m, n, o), o), core.NO_FLOW)
    less = record.binary("lt", m, n, o)
    return make(record.binary("xor", less, record.const(True, dtypes.bool_, m.shape, o), o), core.NO_FLOW)


def choose(c: Any, a: Any, b: Any) -> Tensor:
    """a where the bool tensor c is True, else b; shapes broadcast, dtypes are promoted. RuntimeError where c is no bool tensor
    (uint8 counts as one)."""
    cond = tensor_of(c, "where")
    if cond.dtype is dtypes.uint8:
        cond = make(record.cast(cond.node, dtypes.bool_, here()), core.NO_FLOW)
    if cond.dtype is not dtypes.bool_:
        raise RuntimeError(
            f"where chooses by a bool tensor, not by {cond.dtype}; compare it first, as in (x != 0)\n  at {user_line()}"
        )
    o: record.Where = here()
    if isinstance(a, (*_NUMBERS, np.generic)) and isinstance(b, (*_NUMBERS, np.generic)):
        a, b = (v.item() if isinstance(v, np.generic) else v for v in (a, b))
        both = float if float in (type(a), type(b)) else int if int in (type(a), type(b)) else bool
        d = dtypes.as_dtype(both)
        m, n, flow = record.const(a, d, cond.shape, o), record.const(b, d, cond.shape, o), core.NO_FLOW
    else:
        m, n, flow, o = pair(a, b, "where")
    if cond.shape != m.shape:
        shape = core.broadcast_shape(cond.shape, m.shape)
        m, n = core.broadcast_node(m, shape, o), core.broadcast_node(n, shape, o)
        return make(record.where(core.broadcast_node(cond.node, shape, o), m, n, o), flow)
    return make(record.where(cond.node, m, n, o), flow)
