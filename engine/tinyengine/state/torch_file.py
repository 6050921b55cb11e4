"""PyTorch's `.pt` files without PyTorch, and without executing what is in them.

A `.pt` file is a pickle: a little program that may call any function of any module by name. Here it may name only what a state
dict is made of (`_GLOBALS`), and each of those names stands for a function of this file. Everything else is refused before
anything is called. Two forms exist: a zip archive with one file per storage (PyTorch 1.6 and later), and a row of five pickles
followed by raw storages (before, and with _use_new_zipfile_serialization=False).
"""

from __future__ import annotations

import io
import math
import os
import pickle
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinyengine.origin import user_line
from tinyengine.state.elements import KNOWN, Array, as_tensor, bits_dtype
from tinyengine.tensor import Tensor

_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older form
_PROTOCOL = 1001
_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
    "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool",
}  # fmt: skip
_MAX_REPEATED = 1 << 28  # elements; a view that repeats its storage (stride 0) is not made larger than this


class _Fixed:
    """What a name of the pickle stands for. A pickle can set attributes of whatever it names (its BUILD instruction, through
    __setstate__ where there is one): here there is none, and nothing can be set."""

    __slots__ = ("function", "name")
    function: Callable[..., Any]
    name: str

    def __init__(self, **parts: Any) -> None:
        for k, v in parts.items():
            object.__setattr__(self, k, v)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"the file tries to set {name} of something that it only may name")


class _Call(_Fixed):
    """A function."""

    __slots__ = ()

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function=function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


class _Type(_Fixed):
    """An element type: a torch.dtype, or the class of a storage. Empty: bytes, the type is said later."""

    __slots__ = ()

    def __init__(self, name: str) -> None:
        super().__init__(name=name)


@dataclass(slots=True)
class _Storage:
    """Elements in a row, as bits; None while they have not been read."""

    key: str
    dtype: _Type
    count: int
    data: Array | None = None
    views: dict[Any, Tensor] = field(default_factory=dict)  # two views of the same place are one tensor: tied weights stay tied


def _refuse(why: str) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(f"{why}\n  at {user_line()}")


def _tensor(
    storage: _Storage, offset: int, size: Any, stride: Any, requires_grad: bool = False, hooks: Any = None, *more: Any
) -> Tensor | None:
    """torch._utils._rebuild_tensor_v2, and _v3, which gives the dtype of a storage of bytes."""
    if not isinstance(storage, _Storage) or not all(isinstance(n, int) for n in (offset, *size, *stride)):
        raise _refuse("a tensor is not described by a storage, an offset, a size and strides")
    if storage.data is None:  # the older form's first pass
        return None
    name = storage.dtype.name or (more[0].name if more and isinstance(more[0], _Type) else "")
    if name not in KNOWN:
        raise _refuse(f"a tensor of dtype {name or '(none given)'}, which is not supported")
    bits = storage.data.view(bits_dtype(name))
    size, stride = tuple(size), tuple(stride)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if min((offset, *size, *stride)) < 0 or (math.prod(size) and last >= bits.size):
        what = f"a tensor of size {list(size)}, strides {list(stride)} at {offset}"
        raise _refuse(f"{what} leaves its storage of {bits.size} elements")
    if math.prod(size) > max(bits.size, _MAX_REPEATED):
        raise _refuse(f"a tensor of size {list(size)} repeats a storage of {bits.size} elements too often")
    place = (name, offset, size, stride, bool(requires_grad))
    if place not in storage.views:
        steps = [s * bits.itemsize for s in stride]
        view = np.lib.stride_tricks.as_strided(bits[offset:], size, steps) if math.prod(size) else np.zeros(size, bits.dtype)
        storage.views[place] = as_tensor(np.ascontiguousarray(view).reshape(size), name, requires_grad or None)
    return storage.views[place]


def _parameter(data: Tensor | None, requires_grad: bool = True, hooks: Any = None, state: Any = None) -> Tensor | None:
    if data is None or not requires_grad:
        return data
    return Tensor(data.numpy(), dtype=data.dtype, requires_grad=True)  # another tensor than the one without a gradient


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """_codecs.encode, with which protocol 2 writes bytes."""
    return text.encode("latin1")


def _with_type(rebuild: Any, kind: Any, args: Any, state: Any) -> Any:
    """torch._tensor._rebuild_from_type_v2: a tensor with Python attributes, which are left out."""
    if not isinstance(rebuild, _Call):
        raise _refuse("a tensor is rebuilt by something else than a function of PyTorch")
    return rebuild(*args)


# everything that a file may name
_GLOBALS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): _Call(lambda factory=None: defaultdict(None)),
    ("_codecs", "encode"): _Call(_latin1),
    ("torch", "Size"): _Call(tuple),
    ("torch", "device"): _Call(lambda *names: ":".join(map(str, names))),
    ("torch", "Tensor"): _Type("Tensor"),
    ("torch.nn.parameter", "Parameter"): _Type("Parameter"),
    ("torch.storage", "UntypedStorage"): _Type(""),
    ("torch", "UntypedStorage"): _Type(""),
    ("torch._utils", "_rebuild_tensor"): _Call(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Call(_tensor),
    ("torch._utils", "_rebuild_tensor_v3"): _Call(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Call(_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): _Call(_parameter),
    ("torch._tensor", "_rebuild_from_type_v2"): _Call(_with_type),
    **{("torch", f"{k}Storage"): _Type(v) for k, v in _STORAGES.items()},
    **{("torch", n): _Type(n) for n in KNOWN},
}
_GLOBALS |= {(m, n): _Call(set) for m in ("builtins", "__builtin__") for n in ("set", "frozenset")}


class _Unpickler(pickle.Unpickler):
    """Reads one pickle. `storage(kind, key, count)` gives the storage of a persistent id."""

    def __init__(self, file: Any, storage: Callable[[_Type, str, int], _Storage]) -> None:
        super().__init__(file, encoding="utf-8")
        self.storage = storage

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _GLOBALS[module, name]
        except KeyError:
            raise _refuse(
                f"the file names {module}.{name}, which a state dict does not need; nothing was called. If it holds a whole "
                "model, save model.state_dict() instead"
            ) from None

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", _Type() as kind, str(key), str(), int(count), *view) if view in ([], [None]) and count >= 0:
                return self.storage(kind, key, count)
        raise _refuse(f"a storage is not understood: {pid!r}"[:300])


def torch_load(path: str | os.PathLike[str]) -> Any:
    """What `torch.save` wrote to `path`: usually a dict of name -> Tensor, nested dicts and numbers included. Nothing in the file
    is executed, PyTorch is not needed, and devices are ignored. Dtypes are kept; a tensor that
    appears twice is one tensor; views are copied.

    pickle.UnpicklingError when the file names anything but what tensors are made of; ValueError when it is damaged or something
    else than a `.pt` file."""
    with open(path, "rb") as f:
        start = f.read(4)
        f.seek(0)
        try:
            return _zip_form(f) if start[:2] == b"PK" else _older_form(f)
        except pickle.UnpicklingError as e:
            first, _, rest = str(e).partition("\n  at ")
            raise pickle.UnpicklingError(f"{os.fspath(path)}: {first}\n  at {rest or user_line()}") from None
        except (zipfile.BadZipFile, EOFError, KeyError, IndexError, AttributeError, TypeError, ValueError, OverflowError) as e:
            raise ValueError(f"{os.fspath(path)} is no valid .pt file: {e}\n  at {user_line()}") from None


def _zip_form(f: Any) -> Any:
    with zipfile.ZipFile(f) as archive:
        names = archive.namelist()
        pickles = [n for n in names if n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("it has no data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if any(n.startswith(f"{folder}code/") for n in names):
            raise ValueError("it is a TorchScript program; save its state_dict() instead")
        order = archive.read(f"{folder}byteorder").strip() if f"{folder}byteorder" in names else b"little"
        known: dict[str, _Storage] = {}

        def storage(kind: _Type, key: str, count: int) -> _Storage:
            if key not in known:
                entry, nbytes = f"{folder}data/{key}", count * _itemsize(kind)
                if archive.getinfo(entry).file_size != nbytes:  # looked at before it is read
                    raise ValueError(f"storage {key} should have {nbytes} bytes, not {archive.getinfo(entry).file_size}")
                known[key] = _Storage(key, kind, count, _bits(archive.read(entry), kind, order == b"big"))
            return known[key]

        return _Unpickler(io.BytesIO(archive.read(pickles[0])), storage).load()


def _older_form(f: Any) -> Any:
    known: dict[str, _Storage] = {}

    def storage(kind: _Type, key: str, count: int) -> _Storage:
        return known.setdefault(key, _Storage(key, kind, count))

    def read() -> Any:
        return _Unpickler(f, storage).load()

    try:
        magic = read()
    except (pickle.UnpicklingError, EOFError, ValueError) as e:
        if "names" in str(e):
            raise
        magic = None
    if magic != _MAGIC:
        raise ValueError("it starts like neither form of them")
    if read() != _PROTOCOL:
        raise ValueError("an unknown version of the older form")
    big = not read().get("little_endian", True)
    at = f.tell()
    read()  # once to learn which storages there are, and again with their content
    for key in read():
        s = known[key]
        count = int.from_bytes(f.read(8), "big" if big else "little")
        raw = f.read(count * _itemsize(s.dtype)) if count == s.count else b""
        if len(raw) != s.count * _itemsize(s.dtype):
            raise ValueError(f"storage {key} should have {s.count} elements")
        s.data = _bits(raw, s.dtype, big)
    f.seek(at)
    return read()


def _itemsize(kind: _Type) -> int:
    return bits_dtype(kind.name).itemsize if kind.name else 1


def _bits(raw: bytes, kind: _Type, big: bool) -> Array:
    if big and not kind.name:
        raise ValueError("a storage of bytes, written on a big-endian machine")
    d = bits_dtype(kind.name) if kind.name else np.dtype(np.uint8)
    return np.frombuffer(raw, d.newbyteorder(">" if big else "<")).astype(d, copy=False)


__all__ = ["torch_load"]
