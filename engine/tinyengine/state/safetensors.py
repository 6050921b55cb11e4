"""Files in the safetensors format: a JSON header, then raw little-endian data."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from tinyengine import dtypes
from tinyengine.dtypes import DType
from tinyengine.origin import user_line
from tinyengine.state.elements import as_tensor
from tinyengine.tensor import Tensor

_FORMAT = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "fp8e4m3", "F8_E5M2": "fp8e5m2",
    "BOOL": "bool",
} | {
    f"{k}{8 * b}": f"{n}{8 * b}" for k, n in (("I", "int"), ("U", "uint")) for b in (1, 2, 4, 8)
}  # fmt: skip
_NAMES = {v: k for k, v in _FORMAT.items()}
_MAX_HEADER = 100_000_000  # bytes, as in the reference implementation


def safe_save(tensors: Mapping[str, Tensor], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Write the tensors to `path`, computed if need be. The file appears whole or not at all. TypeError for what is no tensor."""
    items = list(tensors.items())
    strange = next(((name, t) for name, t in items if not isinstance(t, Tensor)), None)
    if strange is not None:
        raise TypeError(f"safe_save: {strange[0]!r} is no Tensor but {type(strange[1]).__name__}\n  at {user_line()}")
    if items:
        items[0][1].realize(*[t for _, t in items[1:]])
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    arrays, at = [], 0
    for name, t in items:
        a = t.dtype.encode(t._values("save"))
        header[name] = {"dtype": _NAMES[t.dtype.name], "shape": list(t.shape), "data_offsets": [at, at + a.nbytes]}
        arrays.append(a.astype(a.dtype.newbyteorder("<"), copy=False))
        at += a.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    target = os.fspath(path)
    handle, partial = tempfile.mkstemp(dir=os.path.dirname(os.path.abspath(target)), suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(len(text).to_bytes(8, "little") + text)
            for a in arrays:
                f.write(a.tobytes())
        os.replace(partial, target)
    except BaseException:
        os.unlink(partial)
        raise


def safe_load(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises ValueError, saying what is wrong, for a file that is damaged or no such file."""
    with open(path, "rb") as f:
        raw = f.read()

    def bad(why: str) -> ValueError:
        return ValueError(f"{os.fspath(path)} is no valid safetensors file: {why}\n  at {user_line()}")

    if len(raw) < 8:
        raise bad(f"{len(raw)} bytes are too few")
    size = int.from_bytes(raw[:8], "little")
    if size > min(len(raw) - 8, _MAX_HEADER):
        raise bad(f"the header should have {size} bytes, the file has {len(raw)}")
    try:
        header = json.loads(raw[8 : 8 + size])
    except ValueError as e:
        raise bad(f"the header is not JSON ({e})") from None
    if not isinstance(header, dict):
        raise bad("the header is no object")
    data = memoryview(raw)[8 + size :]
    out: dict[str, Tensor] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            kind, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
            dtype: DType = dtypes.by_name(_FORMAT[kind])
            fits = all(isinstance(s, int) and s >= 0 for s in shape) and 0 <= begin <= end <= len(data)
            fits = fits and end - begin == math.prod(shape) * dtype.itemsize
        except (KeyError, TypeError, ValueError):
            raise bad(f"the entry of {name!r} is not understood: {entry!r}"[:300]) from None
        if not fits:
            raise bad(f"{name!r}: {kind} {list(shape)} does not fit bytes {begin} to {end} of {len(data)}")
        memory = np.frombuffer(data[begin:end], dtype.numpy.newbyteorder("<")).astype(dtype.numpy).reshape(shape)
        out[name] = as_tensor(memory, dtype.name)
    return out


__all__ = ["safe_load", "safe_save"]
