"""Raw elements of a file as tensors, by the name of their type."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyengine import dtypes
from tinyengine.origin import here
from tinyengine.runtime.buffer import Buffer
from tinyengine.stages import record
from tinyengine.tensor import Tensor, core

Array = np.ndarray[Any, Any]
KNOWN = {d.name for d in dtypes.ALL} | {"float8_e4m3fn", "float8_e5m2"}  # PyTorch's names for 8-bit floats too


def bits_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of one element as it lies in a file."""
    return dtypes.by_name(name).numpy


def as_tensor(bits: Array, name: str, requires_grad: bool | None = None) -> Tensor:
    """A tensor of these elements, bit by bit: infinities of a dtype that saturates when it is computed are kept."""
    memory = Buffer(bits.size, dtypes.by_name(name))
    memory.array[...] = bits.reshape(-1)
    t = core.make(record.buffer(memory, bits.shape, here()), core.NO_FLOW)
    if requires_grad:
        t.requires_grad = True
    return t


__all__ = ["KNOWN", "Array", "as_tensor", "bits_dtype"]
