"""GGUF files (ggml's format, versions 2 and 3): key-values, then tensors, most of them quantised in blocks.

A quantised tensor stays quantised: its bytes become memory of the engine, and its values are a recorded graph of bit operations
over them (gguf_blocks.py). So loading is as quick as reading, the explorer shows how a weight is made, and what is never used is
never computed.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from typing import Any

import numpy as np

from tinyengine.origin import user_line
from tinyengine.state.elements import as_tensor, bits_dtype
from tinyengine.state.gguf_blocks import BLOCKS, dequantize
from tinyengine.tensor import Tensor

# type of a value -> its struct format; 8 is a string, 9 an array
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_PLAIN = {0: "float32", 1: "float16", 24: "int8", 25: "int16", 26: "int32", 27: "int64", 28: "float64", 30: "bfloat16"}
_OTHERS = {
    9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS",
    29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0",
}  # fmt: skip


class _Reader:
    """Reads values one after the other; ValueError when the file ends too early."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at, self.order = data, 0, "<"

    def take(self, count: int) -> memoryview:
        if count < 0 or self.at + count > len(self.data):
            raise ValueError(f"it ends at byte {len(self.data)}, where {count} more bytes are expected at byte {self.at}")
        self.at += count
        return self.data[self.at - count : self.at]

    def scalar(self, form: str) -> Any:
        return struct.unpack(self.order + form, self.take(struct.calcsize(self.order + form)))[0]

    def string(self) -> str:
        return str(self.take(self.scalar("Q")), "utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == 8:
            return self.string()
        if kind == 9:
            inner, count = self.scalar("I"), self.scalar("Q")
            if inner in _SCALARS:
                form = _SCALARS[inner]
                return list(struct.unpack(f"{self.order}{count}{form}", self.take(count * struct.calcsize(form))))
            return [self.value(inner) for _ in range(min(count, len(self.data)))]
        if kind not in _SCALARS:
            raise ValueError(f"a value of the unknown type {kind}")
        return self.scalar(_SCALARS[kind])


def gguf_load(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(key-values, tensors by name) of a GGUF file. Shapes are in PyTorch's order (rows first, as in a safetensors file of the
    same weights). Plain tensors keep their dtype; quantised ones (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, IQ4_NL) are float32
    values that are computed from the quantised bytes when they are used: `x.half().realize()` keeps them.

    ValueError when the file is damaged or none; NotImplementedError, naming tensor and type, for another quantisation."""
    with open(path, "rb") as f:
        try:
            data = memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)) if os.path.getsize(path) else memoryview(b"")
            return _parse(_Reader(data))
        except (ValueError, struct.error, OverflowError) as e:
            raise ValueError(f"{os.fspath(path)} is no valid GGUF file: {e}\n  at {user_line()}") from None
        except NotImplementedError as e:
            raise NotImplementedError(f"{os.fspath(path)}: {e}\n  at {user_line()}") from None


def _parse(r: _Reader) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if bytes(r.take(4)) != b"GGUF":
        raise ValueError("it does not start with GGUF")
    version = r.scalar("I")
    if version not in (2, 3):
        if version in (2 << 24, 3 << 24):
            raise ValueError("it is big-endian")
        raise ValueError(f"version {version}, known are 2 and 3")
    tensors, values = r.scalar("Q"), r.scalar("Q")
    kv: dict[str, Any] = {}
    for _ in range(values):
        key = r.string()
        kv[key] = r.value(r.scalar("I"))
    entries = []
    for _ in range(tensors):
        name, rank = r.string(), r.scalar("I")
        shape = tuple(reversed([r.scalar("Q") for _ in range(rank)]))
        entries.append((name, shape, r.scalar("I"), r.scalar("Q")))
    align = kv.get("general.alignment", 32)
    if not isinstance(align, int) or align < 1:
        raise ValueError(f"general.alignment is {align!r}")
    start = -(-r.at // align) * align
    out: dict[str, Tensor] = {}
    for name, shape, kind, offset in entries:
        r.at = start + offset
        out[name] = _tensor(r, name, shape, kind)
    return kv, out


def _tensor(r: _Reader, name: str, shape: tuple[int, ...], kind: int) -> Tensor:
    count = math.prod(shape)
    if kind in _PLAIN:
        d = bits_dtype(_PLAIN[kind])
        raw = np.frombuffer(r.take(count * d.itemsize), d.newbyteorder("<")).astype(d, copy=False)
        return as_tensor(raw.reshape(shape), _PLAIN[kind])
    if kind not in BLOCKS:
        raise NotImplementedError(f"tensor {name!r} is quantised as {_OTHERS.get(kind, kind)}; known: {_known()}")
    block = BLOCKS[kind]
    if not shape or shape[-1] % block.values:
        raise ValueError(f"{name!r} has shape {list(shape)}: rows of {block.name} hold multiples of {block.values}")
    raw = np.frombuffer(r.take(count // block.values * block.nbytes), np.uint8)
    return dequantize(Tensor(raw.reshape(-1, block.nbytes)), block).reshape(shape)


def _known() -> str:
    return ", ".join([*(n for n in _PLAIN.values()), *(b.name for b in BLOCKS.values())])


__all__ = ["gguf_load"]
