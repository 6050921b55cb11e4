"""tinyviz: a neural network's training step, seen whole: from the line of Python to the instruction and its nanoseconds.

The engine's names are handed on: `from tinyviz import Tensor, nn, optim, jit`. `with tv.watch() as rec:` records; `tv.lower(x)`
shows every stage of a computation as a value; `tv.load(path)` reads a saved recording; `%load_ext tinyviz` adds `%%watch`.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from tinyengine import origin as _origin

if TYPE_CHECKING:
    from tinyengine import (
        Tensor,
        TinyJit,
        Variable,
        cat,
        data,
        dtypes,
        hooks,
        jit,
        manual_seed,
        nn,
        no_grad,
        onnx,
        optim,
        stack,
        state,
        where,
    )
    from tinyengine.pinned import pin, pins, unpin
    from tinyviz.lowering import lower, tune
    from tinyviz.recording import Recording, compare, load, watch

__version__ = "0.1.0"

_ENGINE = (
    "Tensor", "TinyJit", "Variable", "cat", "data", "dtypes", "hooks", "jit", "manual_seed", "nn", "no_grad", "onnx", "optim",
    "pin", "pins", "stack", "state", "unpin", "where",
)  # fmt: skip
_OWN = {
    "watch": "tinyviz.recording", "Recording": "tinyviz.recording", "load": "tinyviz.recording",
    "compare": "tinyviz.recording", "addresses": "tinyviz.tracing",
    "lower": "tinyviz.lowering", "tune": "tinyviz.lowering",
}  # fmt: skip

__all__ = [
    "Recording", "Tensor", "TinyJit", "Variable", "addresses", "cat", "compare", "data", "dtypes", "hooks", "jit", "load",
    "lower", "manual_seed", "nn", "no_grad", "onnx", "optim", "pin", "pins", "stack", "state", "tune", "unpin", "watch", "where",
]  # fmt: skip

# Frames of this package are never the user's.
_origin.hide(os.path.dirname(os.path.abspath(__file__)))


def __getattr__(name: str) -> Any:
    """Everything is imported at first use: importing tinyviz imports neither NumPy's users nor Jupyter."""
    if name in _OWN:
        value = getattr(importlib.import_module(_OWN[name]), name)
    elif name in _ENGINE:
        value = getattr(importlib.import_module("tinyengine"), name)
    else:
        raise AttributeError(f"module 'tinyviz' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext tinyviz`."""
    from tinyviz import magics

    magics.load_ipython_extension(shell)


def unload_ipython_extension(shell: Any) -> None:
    """`%unload_ext tinyviz`."""
    from tinyviz import magics

    magics.unload_ipython_extension(shell)
