"""Element types and PyTorch's promotion between them; the default float is float32, the default integer int32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class DType:
    """One element type. `kind` is 'bool', 'int', 'uint' or 'float'; `itemsize` is in bytes."""

    name: str
    kind: str
    itemsize: int
    numpy: np.dtype[Any]

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


def _make(name: str, kind: str, itemsize: int) -> DType:
    return DType(name, kind, itemsize, np.dtype(name))


bool_ = _make("bool", "bool", 1)
int8, int16, int32, int64 = (_make(f"int{8 * b}", "int", b) for b in (1, 2, 4, 8))
uint8, uint16, uint32, uint64 = (_make(f"uint{8 * b}", "uint", b) for b in (1, 2, 4, 8))
float16, float32, float64 = (_make(f"float{8 * b}", "float", b) for b in (2, 4, 8))

ALL = (bool_, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16, float32, float64)
default_float = float32
default_int = int32

_NAMES = {d.name: d for d in ALL} | {
    "half": float16, "float": float32, "double": float64, "short": int16, "int": int32, "long": int64, "char": int8,
}  # fmt: skip


def by_name(name: str) -> DType:
    """The dtype called `name`; TypeError names what exists when there is none."""
    try:
        return _NAMES[name]
    except (KeyError, TypeError):
        raise TypeError(f"unknown dtype {name!r}; known: {', '.join(d.name for d in ALL)}") from None


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
    ca, cb = _CATEGORY[a.kind], _CATEGORY[b.kind]
    if ca != cb:
        return a if ca > cb else b
    if a.kind == b.kind:
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
