"""What flows between the nodes of a model: recorded Tensors, NumPy arrays of what is known without the inputs (`object` arrays of
strings too), lists (sequences), None (an optional that holds nothing) and `Held`.

A dtype that the engine does not have (4-bit ints, some 8-bit floats) is `Held`: its elements lie, exactly, in one that it has.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import numpy as np

from tinyengine import dtypes
from tinyengine.backends.graph_eval import evaluate
from tinyengine.dtypes import DType
from tinyengine.origin import here
from tinyengine.runtime.buffer import Buffer
from tinyengine.size import Size
from tinyengine.stages import record
from tinyengine.state.elements import as_tensor
from tinyengine.tensor import Tensor, core

Array = np.ndarray[Any, Any]

# ONNX's number of an element type -> ours
ELEMENTS: dict[int, DType] = {
    1: dtypes.float32, 2: dtypes.uint8, 3: dtypes.int8, 4: dtypes.uint16, 5: dtypes.int16, 6: dtypes.int32, 7: dtypes.int64,
    9: dtypes.bool_, 10: dtypes.float16, 11: dtypes.float64, 12: dtypes.uint32, 13: dtypes.uint64, 16: dtypes.bfloat16,
    17: dtypes.fp8e4m3, 19: dtypes.fp8e5m2,
}  # fmt: skip
STRING = 8


class Whole(NamedTuple):
    """A small integer: its bits, and the dtype that holds it."""

    name: str
    bits: int
    holder: DType

    @property
    def low(self) -> int:
        return -(1 << (self.bits - 1)) if self.holder.kind == "int" else 0

    @property
    def high(self) -> int:
        return (1 << (self.bits - 1)) - 1 if self.holder.kind == "int" else (1 << self.bits) - 1


class Small(NamedTuple):
    """A small float, held in float32: bits of the mantissa, the exponent of the smallest normal, the largest finite one, and
    whether there is a NaN."""

    name: str
    mantissa: int
    least: int
    largest: float
    nan: bool = True
    holder: DType = dtypes.float32


class Scale(NamedTuple):
    """Powers of two from 2^-127 to 2^127, and NaN; held in float32."""

    name: str
    holder: DType = dtypes.float32


HELD: dict[int, Whole | Small | Scale] = {
    18: Small("float8e4m3fnuz", 3, -7, 240.0),
    20: Small("float8e5m2fnuz", 2, -15, 57344.0),
    21: Whole("uint4", 4, dtypes.uint8),
    22: Whole("int4", 4, dtypes.int8),
    23: Small("float4e2m1", 1, 0, 6.0, False),
    24: Scale("float8e8m0"),
    25: Whole("uint2", 2, dtypes.uint8),
    26: Whole("int2", 2, dtypes.int8),
}


class Held(NamedTuple):
    """A tensor of a dtype that the engine does not have: `values` are its elements in one that it has, `element` is ONNX's number
    of the dtype."""

    values: Any
    element: int

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)


class Sizes(NamedTuple):
    """An int64 array some of whose elements are symbolic: the shape of a tensor with a Variable in it."""

    array: Array  # of object: ints and Sizes

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)


def of_sizes(xs: Any) -> Any:
    """Numbers, symbolic ones among them, as a value."""
    a = np.asarray(xs, object)
    return Sizes(a) if any(isinstance(x, Size) for x in a.reshape(-1)) else a.astype(np.int64)


def element_of(value: Any) -> int:
    """ONNX's number of the element type."""
    if isinstance(value, Held):
        return value.element
    if isinstance(value, Sizes):
        return 7
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "OUS":
            return STRING
        d = dtypes.as_dtype(value.dtype)
    else:
        d = value.dtype
    return next(k for k, v in ELEMENTS.items() if v is d)


def element_name(element: int) -> str:
    """What errors call it."""
    known: Any = ELEMENTS.get(element) or HELD.get(element)
    return "string" if element == STRING else known.name if known is not None else f"element type {element}"


def from_array(a: Array) -> Any:
    """A value of the NumPy array of a file or of a caller; dtypes that NumPy does not have are those of ml_dtypes."""
    if a.dtype.kind in "biufOUS" and a.dtype.name in {d.name for d in dtypes.ALL}:
        return a
    if a.dtype.kind in "OUS":
        return np.array([s.decode() if isinstance(s, bytes) else s for s in a.reshape(-1)], object).reshape(a.shape)
    name = {"float8_e4m3fnuz": 18, "float8_e5m2fnuz": 20, "uint4": 21, "int4": 22, "float4_e2m1fn": 23, "float8_e8m0fnu": 24,
            "uint2": 25, "int2": 26}.get(a.dtype.name)  # fmt: skip
    if name is not None:
        return Held(Tensor(a.astype(HELD[name].holder.numpy)), name)
    return as_tensor(a.view(dtypes.by_name(a.dtype.name).numpy), a.dtype.name)


class Taken(NamedTuple):
    """What was made of an array: the one number that it holds, or memory."""

    array: weakref.ref[Array]
    number: Any
    memory: Buffer | None


_taken: dict[int, Taken] = {}  # by the id of the array: a model's constants are the same at every call


def as_recorded(value: Any) -> Any:
    """A Tensor of a known array; one number everywhere is a constant of the graph, without memory. Other values stay."""
    if isinstance(value, Sizes):
        each = [Tensor.full((), 0, dtype=dtypes.int64) + x for x in value.array.reshape(-1)]
        return Tensor.stack(each, dim=0).reshape(value.shape) if value.shape else each[0]
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        return value
    found = _taken.get(id(value))
    if found is None or found.array() is not value:
        found = _take(value)
    if found.memory is None:
        return Tensor.full(value.shape, found.number, dtype=value.dtype)
    return core.make(record.buffer(found.memory, value.shape, here()), core.NO_FLOW, True)


def _take(value: Array) -> Taken:
    flat, key = value.reshape(-1), id(value)
    one = value.size and (value.size == 1 or (flat[0] == value).all()) and (flat[0] != 0 or not np.signbit(value).any())
    memory = None if one else Buffer.of(value, dtypes.as_dtype(value.dtype))
    new = Taken(weakref.ref(value, lambda _: _taken.pop(key, None)), flat[0].item() if one else None, memory)
    _taken[key] = new
    return new


def known(value: Any) -> bool:
    """Whether a value does not depend on the inputs."""
    return isinstance(value, (np.ndarray, Sizes))


def on_host(value: Any) -> Any:
    """The value as a NumPy array: computed at once when it is recorded. In a jitted function that is a JitError for what depends
    on its arguments."""
    if isinstance(value, Held):
        value = value.values
    if isinstance(value, Sizes):
        return value.array
    if not isinstance(value, Tensor):
        return value
    t = value if value.dtype.layout is None else value.float()
    return t.numpy()


FOLDED = 1 << 16  # elements of a value that is worth folding


def folded(value: Any) -> Any:
    """A recorded value that depends on nothing, computed by NumPy; with symbolic sizes it stays."""
    if not isinstance(value, Tensor) or any(isinstance(s, Size) for s in value.shape):
        return value
    if value.dtype.layout is not None or value.numel() > FOLDED:
        return value
    return np.asarray(evaluate(record.run([value.node]))[0])
