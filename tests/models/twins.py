"""The examples' networks in PyTorch: the same source, with `tinyengine` read as `torch`. So the names of parameters are the same,
and what is proven is that a program written for one runs on the other."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from tinyengine import Tensor, manual_seed

torch = pytest.importorskip("torch")


class Proof(NamedTuple):
    """A network of `tinyviz.examples`, and a batch for it; `labels`: how many classes each output has."""

    module: str
    make: str  # an expression in that module
    shape: tuple[int, ...]
    classes: int
    tokens: int = 0  # inputs are ints below this, or (0) normal floats
    places: tuple[int, ...] = ()  # axes behind the batch whose elements have a label of their own
    last: bool = False  # classes are the last axis of the logits
    lr: float = 1e-2

    def ours(self) -> Any:
        manual_seed(0)
        return eval(self.make, vars(importlib.import_module(f"tinyviz.examples.{self.module}")))

    def theirs(self) -> Any:
        source = inspect.getsource(importlib.import_module(f"tinyviz.examples.{self.module}"))
        names: dict[str, Any] = {}
        exec(compile(re.sub(r"\btinyengine\b", "torch", source), f"{self.module} in torch", "exec"), names)
        return eval(self.make, names)

    def batch(self, seed: int = 0) -> tuple[Any, Any]:
        rng = np.random.default_rng(seed)
        x = rng.integers(0, self.tokens, self.shape) if self.tokens else rng.standard_normal(self.shape)
        y = rng.integers(0, self.classes, (self.shape[0], *self.places))
        return x.astype(np.int32 if self.tokens else np.float32), y.astype(np.int32)

    def loss(self, logits: Any, y: Any, cross_entropy: Callable[..., Any]) -> Any:
        if self.last:
            logits, y = logits.flatten(0, -2), y.flatten()
        return cross_entropy(logits, y)


PROOFS = {
    "resnet18": Proof("resnet", "ResNet(classes=10)", (2, 3, 64, 64), 10),
    "gpt2": Proof("gpt", "GPT(512, 128, 2)", (2, 64), 512, tokens=512, places=(64,), last=True),
    "lstm": Proof("text", "TextLSTM()", (8, 24), 96, tokens=96, places=(24,), last=True, lr=0.1),
    "unet": Proof("unet", "UNet()", (2, 3, 32, 32), 2, places=(32, 32)),
    "vit": Proof("vit", "ViT(64, classes=10)", (2, 3, 64, 64), 10),
}


def as_torch(a: Any) -> Any:
    t = torch.from_numpy(np.array(a))
    return t.long() if t.dtype == torch.int32 else t


__all__ = ["PROOFS", "Proof", "Tensor", "as_torch", "torch"]
