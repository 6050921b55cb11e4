"""Parts of modules: parameters, and lists and dicts of modules."""

from __future__ import annotations

from typing import Any

from tinyengine.nn.module import Module
from tinyengine.tensor import Tensor


class Parameter(Tensor):
    """`Parameter(data)`: a tensor that is trained. It is a plain Tensor with `requires_grad`, made from a copy of `data`."""

    __slots__ = ()

    def __new__(cls, data: Any, requires_grad: bool = True) -> Any:
        return Tensor(data.detach() if isinstance(data, Tensor) else data, requires_grad=requires_grad).realize()


class ModuleList(Module, list[Any]):
    """A list of modules, which are called '0', '1', ... as in PyTorch."""

    def named_children(self) -> list[tuple[str, Module]]:
        return [(str(i), m) for i, m in enumerate(self) if isinstance(m, Module)]

    __hash__ = Module.__hash__  # type: ignore[assignment]
    __eq__ = Module.__eq__
    __repr__ = Module.__repr__


class ModuleDict(Module, dict[str, Any]):
    """A dict of modules, which are called by their keys."""

    def named_children(self) -> list[tuple[str, Module]]:
        return [(k, m) for k, m in self.items() if isinstance(m, Module)]

    __hash__ = Module.__hash__  # type: ignore[assignment]
    __eq__ = Module.__eq__
    __repr__ = Module.__repr__


__all__ = ["ModuleDict", "ModuleList", "Parameter"]
