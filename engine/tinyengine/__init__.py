"""tinyengine: a small lazy-tensor engine whose every stage can be looked at. `from tinyengine import Tensor, nn, optim, jit`."""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyengine import autograd, data, dtypes, nn, onnx, optim, state
    from tinyengine.device import Context, Device
    from tinyengine.jit import jit
    from tinyengine.pinned import pin, pins, unpin
    from tinyengine.size import Variable
    from tinyengine.tensor import Function, Tensor, cat, enable_grad, manual_seed, no_grad, stack, where
    from tinyengine.tune import tune

    TinyJit = jit

__version__ = "0.1.0"

# name -> (module, name in it, or None for the module itself). Looked up at first use: importing the engine imports nothing else.
_PUBLIC: dict[str, tuple[str, str | None]] = {
    **{n: ("tinyengine.tensor", n) for n in ("Function", "Tensor", "cat", "enable_grad", "manual_seed")},
    **{n: ("tinyengine.tensor", n) for n in ("no_grad", "stack", "where")},
    **{n: (f"tinyengine.{n}", None) for n in ("autograd", "data", "dtypes", "hooks", "nn", "onnx", "optim", "state")},
    **{n: ("tinyengine.pinned", n) for n in ("pin", "pins", "unpin")},
    **{n: ("tinyengine.device", n) for n in ("Context", "Device")},
    "Variable": ("tinyengine.size", "Variable"),
    "jit": ("tinyengine.jit", "jit"),
    "tune": ("tinyengine.tune", "tune"),
    "TinyJit": ("tinyengine.jit", "jit"),
}

__all__ = [
    "Context",
    "Device",
    "Function",
    "Tensor",
    "TinyJit",
    "Variable",
    "autograd",
    "cat",
    "data",
    "dtypes",
    "enable_grad",
    "jit",
    "manual_seed",
    "nn",
    "no_grad",
    "onnx",
    "optim",
    "pin",
    "pins",
    "stack",
    "state",
    "tune",
    "unpin",
    "where",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tinyengine' has no attribute {name!r}")
    module, inner = _PUBLIC[name]
    value = importlib.import_module(module)
    if inner is not None:
        value = getattr(value, inner)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})


class _Package(types.ModuleType):
    """Importing a submodule must not put it in the place of the function of that name."""

    def __setattr__(self, name: str, value: Any) -> None:
        hidden = name in ("jit", "tune") and isinstance(value, types.ModuleType)
        super().__setattr__(name, getattr(value, name) if hidden else value)


sys.modules[__name__].__class__ = _Package
