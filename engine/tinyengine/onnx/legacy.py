"""Operators as they were before operator set 7: broadcasting only where a node asks for it, along an axis that it names; training
unless a node says `is_test`; shapes as attributes."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from tinyengine.onnx import recurrent
from tinyengine.onnx.cast import cast_op
from tinyengine.onnx.elementwise import div, equal, power
from tinyengine.onnx.movement import ints, pad_2, reshape, split_18, tile
from tinyengine.onnx.network import batch_normalization, dropout_7, gemm
from tinyengine.onnx.registry import op
from tinyengine.onnx.resize import upsample_7

# The numbers of the element types that Cast once named.
_TYPES = {
    "FLOAT": 1, "UINT8": 2, "INT8": 3, "UINT16": 4, "INT16": 5, "INT32": 6, "INT64": 7, "BOOL": 9, "FLOAT16": 10, "DOUBLE": 11,
    "UINT32": 12, "UINT64": 13,
}  # fmt: skip


def _beside(a: Any, b: Any, axis: int | None, broadcast: int) -> Any:
    """b as it stands beside a: its axes are those of a from `axis` on, or the last."""
    if not broadcast or a.shape == b.shape or b.numel() == 1:
        if a.shape != b.shape and not broadcast:
            raise ValueError(f"shapes {list(a.shape)} and {list(b.shape)} differ, and the node does not ask to broadcast")
        return b.reshape(()) if a.shape != b.shape else b
    first = a.ndim - b.ndim if axis is None else axis % a.ndim
    return b.reshape((*b.shape, *(1,) * (a.ndim - first - b.ndim)))


def _pair(name: str, f: Callable[[Any, Any], Any]) -> None:
    @op(name)
    def of(a: Any, b: Any, *, axis: int | None = None, broadcast: int = 0) -> Any:
        return f(a, _beside(a, b, axis, broadcast))


_PAIRS: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "And": operator.and_, "Or": operator.or_,
    "Xor": operator.xor, "Less": operator.lt, "Greater": operator.gt, "Div": div, "Equal": equal, "Pow": power,
}  # fmt: skip
for _name, _f in _PAIRS.items():
    _pair(_name, _f)


@op("Gemm")
def gemm_1(
    a: Any, b: Any, c: Any, *, alpha: float = 1.0, beta: float = 1.0, broadcast: int = 0, transA: int = 0, transB: int = 0
) -> Any:
    return gemm(a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)


@op("PRelu")
def prelu_1(x: Any, slope: Any) -> Any:
    slope = slope.reshape(()) if slope.numel() == 1 else slope.reshape((-1,) + (1,) * (x.ndim - 2))
    return (x < 0).where(x * slope, x)


@op("BatchNormalization")
def batch_normalization_1(
    x: Any, scale: Any, b: Any, mean: Any, var: Any, *, epsilon: float = 1e-5, is_test: int = 0, momentum: float = 0.9,
    spatial: int = 1, call: Any,
) -> Any:  # fmt: skip
    if not is_test and call.outputs > 1:
        raise NotImplementedError("BatchNormalization in training, before operator set 14")
    return batch_normalization(x, scale, b, mean, var, epsilon=epsilon, spatial=spatial, call=call._replace(outputs=1))


@op("Dropout")
def dropout_1(x: Any, *, is_test: int = 0, ratio: float = 0.5, call: Any) -> Any:
    if not is_test:
        raise NotImplementedError("Dropout in training, before operator set 12; give the node is_test=1")
    return dropout_7(x, ratio=ratio, call=call)


@op("Reshape")
def reshape_1(x: Any, *, shape: list[int]) -> Any:
    return reshape(x, shape)


@op("Pad")
def pad_1(x: Any, *, paddings: list[int], mode: str = "constant", value: float = 0.0) -> Any:
    return pad_2(x, pads=paddings, mode=mode, value=value)


@op("Tile", host=(1, 2))
def tile_1(x: Any, tiles: Any, axis: Any) -> Any:
    times = [1] * x.ndim
    times[ints(axis)[0]] = ints(tiles)[0]
    return tile(x, times)


@op("Split", host=(1,))
def split_1(x: Any, sizes: Any = None, *, axis: int = 0, split: list[int] | None = None, call: Any) -> Any:
    return split_18(x, sizes if split is None else split, axis=axis, call=call)


@op("Upsample")
def upsample_1(x: Any, *, height_scale: float, width_scale: float, mode: str = "nearest") -> Any:
    return upsample_7(x, scales=[1.0, 1.0, height_scale, width_scale], mode="linear" if mode == "bilinear" else mode)


@op("Cast", raw=True)
def cast_1(x: Any, *, to: str) -> Any:
    return cast_op(x, to=_TYPES[to])


@op("RNN")
def rnn_1(*xs: Any, output_sequence: int = 0, activation_alpha: Any = None, activation_beta: Any = None, activations: Any = None,
          clip: float | None = None, direction: str = "forward", hidden_size: int = 0) -> Any:  # fmt: skip
    return recurrent.rnn(*xs, activation_alpha=activation_alpha, activation_beta=activation_beta, activations=activations,
                         clip=clip, direction=direction)  # fmt: skip


@op("GRU")
def gru_1(*xs: Any, output_sequence: int = 0, activation_alpha: Any = None, activation_beta: Any = None, activations: Any = None,
          clip: float | None = None, direction: str = "forward", hidden_size: int = 0, linear_before_reset: int = 0,
          ) -> Any:  # fmt: skip
    return recurrent.gru(*xs, activation_alpha=activation_alpha, activation_beta=activation_beta, activations=activations,
                         clip=clip, direction=direction, linear_before_reset=linear_before_reset)  # fmt: skip


@op("LSTM")
def lstm_1(*xs: Any, output_sequence: int = 0, activation_alpha: Any = None, activation_beta: Any = None, activations: Any = None,
           clip: float | None = None, direction: str = "forward", hidden_size: int = 0, input_forget: int = 0,
           ) -> Any:  # fmt: skip
    return recurrent.lstm(*xs, activation_alpha=activation_alpha, activation_beta=activation_beta, activations=activations,
                          clip=clip, direction=direction, input_forget=input_forget)  # fmt: skip
