"""Element types and PyTorch's promotion between them; the default float is float32, the default integer int32.

Conversions, everywhere: integers wrap; a float becomes an integer by truncation, out of range the nearest one, NaN 0; floats
round to the nearest, ties to even. bfloat16 and the 8-bit floats are stored as such and computed as float32 (see `narrow`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyengine import narrow

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, eq=False)
class DType:
    """One element type. `kind` is 'bool', 'int', 'uint' or 'float'; `itemsize` is in bytes; `numpy` is what memory holds. That is
    the value itself, except where NumPy has no such float (`layout` is not None): there memory holds the bits as unsigned
    integers, and arrays of values are float32."""

    name: str
    kind: str
    itemsize: int
    numpy: np.dtype[Any]
    layout: narrow.Layout | None = None

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        return (by_name, (self.name,))

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_int(self) -> bool:
        return self.kind in ("int", "uint")

    @property
    def values(self) -> np.dtype[Any]:
        """The NumPy dtype of arrays of values."""
        return self.numpy if self.layout is None else _FLOAT32

    @property
    def digits(self) -> int:
        """Significant bits of a float."""
        return (np.finfo(self.numpy).nmant if self.layout is None else self.layout.mantissa) + 1

    @property
    def exponent(self) -> int:
        """The exponent of the largest finite float."""
        if self.layout is None:
            return int(np.finfo(self.numpy).maxexp) - 1
        return self.layout.bias + (0 if self.layout.infinite else 1)

    def decode(self, memory: Array) -> Array:
        """What memory of this dtype holds, as an array of values."""
        return memory if self.layout is None else narrow.decode(memory, self.layout)

    def encode(self, values: Array) -> Array:
        """Any numbers as memory of this dtype."""
        if self.layout is not None:
            return narrow.encode(values, self.layout)
        values = np.asarray(values)
        return values if values.dtype == self.numpy else self._native(values)

    def convert(self, values: Array) -> Array:
        """Any numbers as values of this dtype."""
        memory = self.encode(values)
        return self.decode(memory)

    def _native(self, values: Array) -> Array:
        with np.errstate(all="ignore"):
            if not self.is_int or values.dtype.kind != "f":
                return values.astype(self.numpy)
            x = np.trunc(np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=np.inf, neginf=-np.inf))
            inside = np.where((x < float(self.max)) & (x > float(self.min)), x, 0.0).astype(self.numpy)
            return np.where(x >= float(self.max), self.max, np.where(x <= float(self.min), self.min, inside)).astype(self.numpy)

    @property
    def min(self) -> Any:
        """The smallest value: the identity of `max`."""
        if self.is_float:
            return -float("inf")
        return False if self.kind == "bool" else int(np.iinfo(self.numpy).min)

    @property
    def max(self) -> Any:
        if self.is_float:
            return float("inf")
        return True if self.kind == "bool" else int(np.iinfo(self.numpy).max)


_FLOAT32 = np.dtype(np.float32)


def _make(name: str, kind: str, itemsize: int) -> DType:
    return DType(name, kind, itemsize, np.dtype(name))


bool_ = _make("bool", "bool", 1)
int8, int16, int32, int64 = (_make(f"int{8 * b}", "int", b) for b in (1, 2, 4, 8))
uint8, uint16, uint32, uint64 = (_make(f"uint{8 * b}", "uint", b) for b in (1, 2, 4, 8))
float16, float32, float64 = (_make(f"float{8 * b}", "float", b) for b in (2, 4, 8))
bfloat16 = DType("bfloat16", "float", 2, np.dtype(np.uint16), narrow.BF16)
fp8e4m3 = DType("fp8e4m3", "float", 1, np.dtype(np.uint8), narrow.E4M3)  # torch.float8_e4m3fn
fp8e5m2 = DType("fp8e5m2", "float", 1, np.dtype(np.uint8), narrow.E5M2)  # torch.float8_e5m2

ALL = (
    bool_, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16, bfloat16, float32, float64, fp8e4m3, fp8e5m2,
)  # fmt: skip
default_float = float32
default_int = int32

_NAMES = {d.name: d for d in ALL} | {
    "half": float16, "float": float32, "double": float64, "short": int16, "int": int32, "long": int64, "char": int8,
    "uchar": uint8, "ushort": uint16, "uint": uint32, "ulong": uint64,
    "float8_e4m3fn": fp8e4m3, "float8_e5m2": fp8e5m2,
}  # fmt: skip


def by_name(name: str) -> DType:
    """The dtype called `name`; TypeError names what exists when there is none."""
    try:
        return _NAMES[name]
    except (KeyError, TypeError):
        raise TypeError(f"unknown dtype {name!r}; known: {', '.join(d.name for d in ALL)}") from None


def __getattr__(name: str) -> DType:
    """`dtypes.half`, `dtypes.float`, `dtypes.bool`...: the short names, which would hide Python's own in this file."""
    try:
        return _NAMES[name]
    except KeyError:
        raise AttributeError(f"module 'tinyengine.dtypes' has no attribute {name!r}") from None


def known(name: str) -> bool:
    """Whether there is a dtype of that name."""
    return name in _NAMES


def as_dtype(x: Any) -> DType:
    """A DType from a DType, a name, a NumPy dtype or a Python type (bool, int, float)."""
    if isinstance(x, DType):
        return x
    if isinstance(x, str):
        return by_name(x)
    if isinstance(x, type) and x in (bool, int, float):  # np.dtype('int64') == int
        return {bool: bool_, int: default_int, float: default_float}[x]
    try:
        return by_name(np.dtype(x).name)
    except TypeError:
        raise TypeError(f"unknown dtype {x!r}; known: {', '.join(d.name for d in ALL)}") from None


_CATEGORY = {"bool": 0, "uint": 1, "int": 1, "float": 2}


def promote(a: DType, b: DType) -> DType:
    """The common dtype of two tensors (torch.promote_types)."""
    if a is b:
        return a
    if 1 in (a.itemsize * a.is_float, b.itemsize * b.is_float):
        raise TypeError(f"no common dtype for {a} and {b}: 8-bit floats mix with nothing; cast one of them")
    ca, cb = _CATEGORY[a.kind], _CATEGORY[b.kind]
    if ca != cb:
        return a if ca > cb else b
    if a.kind == b.kind:
        if a.itemsize == b.itemsize:
            return float32  # float16 and bfloat16: neither holds the other
        return a if a.itemsize > b.itemsize else b
    signed, unsigned = (a, b) if a.kind == "int" else (b, a)
    if signed.itemsize > unsigned.itemsize:
        return signed
    if unsigned.itemsize >= 8:
        raise TypeError(f"no common dtype for {a} and {b}: no signed integer holds every {unsigned}; cast one of them")
    return {1: int16, 2: int32, 4: int64}[unsigned.itemsize]


def promote_scalar(tensor: DType, value: bool | int | float) -> DType:
    """The result dtype of a tensor with a Python number: the number's category counts, not its size."""
    kind = "bool" if isinstance(value, bool) else "int" if isinstance(value, int) else "float"
    if _CATEGORY[kind] <= _CATEGORY[tensor.kind]:
        return tensor
    return {"int": default_int, "float": default_float}[kind]
