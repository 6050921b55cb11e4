"""The tensors of a model by name."""

from __future__ import annotations

import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tinyengine.origin import user_line
from tinyengine.tensor import Tensor


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


__all__ = ["get_parameters", "get_state_dict", "load_state_dict", "walk"]
