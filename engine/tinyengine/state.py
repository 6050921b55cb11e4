"""The tensors of a model by name, and files of them in the safetensors format (a JSON header, then raw little-endian data)."""

from __future__ import annotations

import json
import math
import os
import tempfile
import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tinyengine import dtypes
from tinyengine.dtypes import DType
from tinyengine.origin import user_line
from tinyengine.tensor import Tensor

_FORMAT = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "fp8e4m3", "F8_E5M2": "fp8e5m2",
    "BOOL": "bool",
} | {
    f"{k}{8 * b}": f"{n}{8 * b}" for k, n in (("I", "int"), ("U", "uint")) for b in (1, 2, 4, 8)
}  # fmt: skip
_NAMES = {v: k for k, v in _FORMAT.items()}
_MAX_HEADER = 100_000_000  # bytes, as in the reference implementation


def walk(obj: Any, kind: type | tuple[type, ...], prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """(dotted path, thing) for everything of `kind` inside an object: attributes, lists, tuples, dicts. A Sequential's list has
    no name of its own, as in PyTorch. Each object is visited once."""
    seen = set() if seen is None else seen
    if id(obj) in seen:
        return
    if isinstance(obj, kind):
        seen.add(id(obj))
        yield prefix, obj
    if isinstance(obj, Tensor):
        return
    parts: Any
    if isinstance(obj, (list, tuple)):
        parts = enumerate(obj)
    elif isinstance(obj, (dict, OrderedDict)):
        parts = obj.items()
    elif hasattr(obj, "__dict__") and not isinstance(obj, (type, types.ModuleType, types.FunctionType)):
        seen.add(id(obj))
        parts = obj.__dict__.items()
        if type(obj).__name__ == "Sequential" and set(obj.__dict__) - {"_path", "training"} == {"layers"}:
            parts = enumerate(obj.layers)
    else:
        return
    for k, v in parts:
        yield from walk(v, kind, f"{prefix}.{k}" if prefix else str(k), seen)


def get_state_dict(obj: Any) -> dict[str, Tensor]:
    """Name -> tensor for all tensors inside `obj`. A tensor found twice has its first name only. Memory without a name takes the
    tensor's, for those who read kernels."""
    found = dict(walk(obj, Tensor))
    for name, t in found.items():
        if t.node.op == "buffer" and not t.node.arg.name:
            t.node.arg.name = name
    return found


def get_parameters(obj: Any) -> list[Tensor]:
    """The tensors inside `obj` that are trained (requires_grad)."""
    return [t for t in get_state_dict(obj).values() if t.requires_grad]


def load_state_dict(model: Any, state_dict: Mapping[str, Any], strict: bool = True) -> None:
    """Take over values by name, into the memory that the model has. Raises RuntimeError, naming them, for missing or unexpected
    names when `strict`, and for a wrong shape; then nothing has been changed."""
    mine = get_state_dict(model)
    missing, extra = [k for k in mine if k not in state_dict], [k for k in state_dict if k not in mine]
    if strict and (missing or extra):
        raise RuntimeError(f"state dict: missing {missing}, unexpected {extra}\n  at {user_line()}")
    new = {k: v if isinstance(v, Tensor) else Tensor(np.asarray(v)) for k, v in state_dict.items() if k in mine}
    for k, v in new.items():
        if v.shape != mine[k].shape:
            raise RuntimeError(f"state dict: {k} has shape {list(v.shape)}, expected {list(mine[k].shape)}\n  at {user_line()}")
    for k, v in new.items():
        mine[k].assign(v)
    if new:
        next(iter(new.values())).realize(*[mine[k] for k in new])


def safe_save(tensors: Mapping[str, Tensor], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Write the tensors to `path`, computed if need be. The file appears whole or not at all."""
    items = list(tensors.items())
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
        out[name] = Tensor(dtype.decode(memory), dtype=dtype)
    return out


__all__ = ["get_parameters", "get_state_dict", "load_state_dict", "safe_load", "safe_save", "walk"]
