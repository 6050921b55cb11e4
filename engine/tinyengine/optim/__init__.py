"""optim: optimizers and learning-rate schedules with PyTorch's names and formulas."""

from tinyengine.optim import lr_scheduler
from tinyengine.optim.adam import LAMB, Adam, AdamW
from tinyengine.optim.base import Optimizer, OptimizerGroup
from tinyengine.optim.muon import Muon
from tinyengine.optim.rms import Adagrad, RMSprop
from tinyengine.optim.sgd import LARS, SGD

__all__ = [
    "LAMB", "LARS", "SGD", "Adagrad", "Adam", "AdamW", "Muon", "Optimizer", "OptimizerGroup", "RMSprop", "lr_scheduler",
]  # fmt: skip
