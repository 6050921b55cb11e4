"""state: the tensors of a model by name, and the files that hold them: safetensors, PyTorch's .pt, GGUF. Reading executes
nothing."""

from tinyengine.state.gguf import gguf_load
from tinyengine.state.names import get_parameters, get_state_dict, load_state_dict, walk
from tinyengine.state.safetensors import safe_load, safe_save
from tinyengine.state.torch_file import torch_load

__all__ = [
    "get_parameters", "get_state_dict", "gguf_load", "load_state_dict", "safe_load", "safe_save", "torch_load", "walk",
]  # fmt: skip
