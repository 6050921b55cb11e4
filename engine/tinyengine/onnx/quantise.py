"""Quantised arithmetic: round, shift by a zero point, saturate; products of small integers add up in int32."""

from __future__ import annotations

from typing import Any

from tinyengine import dtypes
from tinyengine.onnx import values
from tinyengine.onnx.cast import cast
from tinyengine.onnx.movement import axis_of
from tinyengine.onnx.network import pads_of, per_axis
from tinyengine.onnx.registry import op
from tinyengine.onnx.values import ELEMENTS, HELD, Held, Whole


def _elements(x: Any) -> Any:
    """What can be computed with: held elements in the dtype that holds them."""
    return x.values if isinstance(x, Held) else values.as_recorded(x)


def _wide(x: Any) -> Any:
    """Elements of a quantised dtype in one in which sums of them are exact."""
    x = _elements(x)
    return x.float() if x.dtype.is_float else x.cast(dtypes.int32)


def _spread(s: Any, shape: tuple[int, ...], axis: int, block: int) -> Any:
    """A scale or zero point beside elements of this shape: for all, for each place along `axis`, or for each block of places."""
    if s.numel() == 1 and not block:
        return s.reshape(())
    axis = axis_of(axis, len(shape))
    if block:
        s = s.repeat_interleave(block, axis)
        return s.shrink([(0, shape[axis]) if k == axis else None for k in range(s.ndim)])
    return s.reshape([-1 if k == axis else 1 for k in range(len(shape))])


def saturated(y: Any, element: int, saturate: int = 1) -> Any:
    """Whole floats as an integer element type, the nearest there is; or any floats as an 8-bit float."""
    held: Any = HELD.get(element)
    if isinstance(held, Whole):
        return Held(y.clamp(held.low, held.high).cast(held.holder), element)
    if element in ELEMENTS and ELEMENTS[element].is_int:
        d = ELEMENTS[element]
        return y.clamp(d.min, d.max).cast(d)
    return cast(y, element, saturate)


def _is_float(element: int) -> bool:
    held: Any = HELD.get(element)
    return not isinstance(held, Whole) if held is not None else ELEMENTS[element].is_float


@op("QuantizeLinear", 10, raw=True)
def quantize(
    x: Any, scale: Any, zero: Any = None, *, axis: int = 1, block_size: int = 0, output_dtype: int = 0, precision: int = 0,
    saturate: int = 1,
) -> Any:  # fmt: skip
    element = values.element_of(zero) if zero is not None else output_dtype or 2
    x, scale = values.as_recorded(x), values.as_recorded(scale)
    d = ELEMENTS[precision] if precision else scale.dtype
    y = (x.cast(d) / _spread(scale.cast(d), x.shape, axis, block_size)).float()
    y = y if _is_float(element) else y.round()
    if zero is not None:
        y = y + _spread(_elements(zero).float(), x.shape, axis, block_size)
    return saturated(y, element, saturate)


@op("DequantizeLinear", 10, raw=True)
def dequantize(x: Any, scale: Any, zero: Any = None, *, axis: int = 1, block_size: int = 0, output_dtype: int = 0) -> Any:
    scale = values.as_recorded(scale)
    d = ELEMENTS[output_dtype] if output_dtype else scale.dtype
    y = _wide(x)
    if zero is not None:
        y = y - _spread(_wide(zero), y.shape, axis, block_size)
    return y.cast(d) * _spread(scale.cast(d), y.shape, axis, block_size)


@op("MatMulInteger")
def matmul_integer(a: Any, b: Any, a_zero: Any = None, b_zero: Any = None) -> Any:
    left, right = _wide(a), _wide(b)
    if a_zero is not None:
        left = left - _rows(_wide(a_zero))
    return left.matmul(right if b_zero is None else right - _wide(b_zero))


def _rows(s: Any) -> Any:
    """A number for each row of a matrix stands in a column."""
    return s.unsqueeze(-1) if s.ndim == 1 and s.numel() > 1 else s


@op("QLinearMatMul", 10, raw=True)
def qlinear_matmul(a: Any, a_scale: Any, a_zero: Any, b: Any, b_scale: Any, b_zero: Any, y_scale: Any, y_zero: Any) -> Any:
    element = values.element_of(y_zero)
    total = (_wide(a) - _rows(_wide(a_zero))).matmul(_wide(b) - _wide(b_zero)).float()
    scale = [_elements(s).float() for s in (a_scale, b_scale, y_scale)]
    y = total * (_rows(scale[0]) * scale[1] / scale[2])
    y = y if _is_float(element) else y.round()
    return saturated(y + _elements(y_zero).float(), element)


def _conv(x: Any, w: Any, auto_pad: str, dilations: Any, group: int, pads: Any, strides: Any) -> Any:
    """int32 cross-correlation."""
    axes = w.ndim - 2
    s, d = per_axis(strides, axes), per_axis(dilations, axes)
    wide = pads_of(auto_pad, pads, x.shape[2:], w.shape[2:], s, d)
    return x.pad([None, None, *wide]).conv2d(w, None, s, 0, d, group)


@op("ConvInteger")
def conv_integer(
    x: Any, w: Any, x_zero: Any = None, w_zero: Any = None, *, auto_pad: str = "NOTSET", dilations: Any = None, group: int = 1,
    kernel_shape: Any = None, pads: Any = None, strides: Any = None,
) -> Any:  # fmt: skip
    x, w = _wide(x), _wide(w)
    x = x if x_zero is None else x - _wide(x_zero)
    w = w if w_zero is None else w - _spread(_wide(w_zero), w.shape, 0, 0)
    return _conv(x, w, auto_pad, dilations, group, pads, strides)


@op("QLinearConv")
def qlinear_conv(
    x: Any, x_scale: Any, x_zero: Any, w: Any, w_scale: Any, w_zero: Any, y_scale: Any, y_zero: Any, b: Any = None, *,
    auto_pad: str = "NOTSET", dilations: Any = None, group: int = 1, kernel_shape: Any = None, pads: Any = None,
    strides: Any = None,
) -> Any:  # fmt: skip
    left, right = _wide(x) - _wide(x_zero), _wide(w) - _spread(_wide(w_zero), w.shape, 0, 0)
    total = _conv(left, right, auto_pad, dilations, group, pads, strides)
    if b is not None:
        total = total + b.reshape((-1,) + (1,) * (w.ndim - 2))
    scale = x_scale.reshape(()) * _spread(w_scale, total.shape, 1, 0) / y_scale.reshape(())
    return saturated((total.float() * scale).round() + y_zero.reshape(()).float(), values.element_of(y_zero))
