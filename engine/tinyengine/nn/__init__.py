"""nn: layers with PyTorch's names, parameters and initialisation."""

from tinyengine.nn.layers import (
    GELU,
    BatchNorm,
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    Conv1d,
    Conv2d,
    Dropout,
    Embedding,
    Flatten,
    GroupNorm,
    LayerNorm,
    Linear,
    MaxPool2d,
    ReLU,
    RMSNorm,
    Sequential,
    Sigmoid,
    SiLU,
    Tanh,
)
from tinyengine.nn.module import Module, set_training
from tinyengine.nn.recurrent import LSTMCell
from tinyengine.nn.spatial import (
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    InstanceNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm2d,
)

__all__ = [
    "GELU", "BatchNorm", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d",
    "ConvTranspose2d", "Dropout", "Embedding", "Flatten", "GroupNorm", "InstanceNorm", "InstanceNorm1d", "InstanceNorm2d",
    "InstanceNorm3d", "LSTMCell", "LayerNorm", "LayerNorm2d", "Linear", "MaxPool2d", "Module", "RMSNorm", "ReLU", "Sequential",
    "SiLU", "Sigmoid", "Tanh", "set_training",
]  # fmt: skip
