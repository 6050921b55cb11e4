"""ONNX models: `model = onnx.load("model.onnx")`, then `model(x)` is a lazy tensor like any other."""

from __future__ import annotations

from tinyengine.onnx import (  # noqa: F401  (they fill the registry)
    attention,
    cast,
    control,
    draw,
    elementwise,
    legacy,
    losses,
    movement,
    network,
    quantise,
    recurrent,
    reduce,
    resize,
    sampling,
    select,
    signal,
    text,
)
from tinyengine.onnx.model import Model, Spec, load
from tinyengine.onnx.registry import supported
from tinyengine.onnx.values import Held

__all__ = ["Held", "Model", "Spec", "load", "supported"]
