"""state: the tensors of a model by name, and the files that hold them: safetensors, PyTorch's .pt, GGUF. Reading executes
nothing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tinyengine.state.names import get_parameters, get_state_dict, load_state_dict, walk

if TYPE_CHECKING:
    from tinyengine.state.gguf import gguf_load
    from tinyengine.state.safetensors import safe_load, safe_save
    from tinyengine.state.torch_file import torch_load

__all__ = [
    "get_parameters", "get_state_dict", "gguf_load", "load_state_dict", "safe_load", "safe_save", "torch_load", "walk",
]  # fmt: skip

# what reads and writes files, with its module: imported when it is first used, as every model imports this package
_FILES = {"gguf_load": "gguf", "safe_load": "safetensors", "safe_save": "safetensors", "torch_load": "torch_file"}


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)
    return value
