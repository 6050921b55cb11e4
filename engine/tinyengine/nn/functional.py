"""Layers without state, by the names and arguments of torch.nn.functional: `from tinyengine.nn import functional as F`. Most are
methods of Tensor; those that have another name or other arguments there are below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tinyengine.origin import user_line
from tinyengine.size import Size
from tinyengine.tensor import Tensor
from tinyengine.tensor.core import no_grad
from tinyengine.tensor.elementwise import choose
from tinyengine.tensor.linalg import couple
from tinyengine.tensor.losses import reduced
from tinyengine.tensor.resize import area

relu, sigmoid, tanh, silu, mish = Tensor.relu, Tensor.sigmoid, Tensor.tanh, Tensor.silu, Tensor.mish
gelu, elu, celu, selu, relu6, softsign = Tensor.gelu, Tensor.elu, Tensor.celu, Tensor.selu, Tensor.relu6, Tensor.softsign
leaky_relu, hardtanh, hardswish, hardsigmoid = Tensor.leaky_relu, Tensor.hardtanh, Tensor.hardswish, Tensor.hardsigmoid
logsigmoid, softplus, normalize, one_hot = Tensor.logsigmoid, Tensor.softplus, Tensor.normalize, Tensor.one_hot
softmax, log_softmax, softmin, pad = Tensor.softmax, Tensor.log_softmax, Tensor.softmin, Tensor.pad
linear, interpolate, max_unpool2d = Tensor.linear, Tensor.interpolate, Tensor.max_unpool2d
conv1d, conv2d, conv3d = Tensor.conv1d, Tensor.conv2d, Tensor.conv2d
conv_transpose1d = conv_transpose2d = conv_transpose3d = Tensor.conv_transpose2d
max_pool2d, avg_pool2d = Tensor.max_pool2d, Tensor.avg_pool2d
mse_loss, l1_loss = Tensor.mse_loss, Tensor.l1_loss
scaled_dot_product_attention = Tensor.scaled_dot_product_attention


def dropout(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """`Tensor.dropout`, on unless told otherwise."""
    return input.dropout(p, training)


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """Rows of weight (count, width): ints of shape S -> S + (width,). The row `padding_idx` gets no gradient. IndexError, when it
    runs, for a row that there is not."""
    if not input.dtype.is_int:
        raise RuntimeError(f"an embedding is indexed by ints, not {input.dtype}\n  at {user_line()}")
    rows = weight.take(input.flatten(), 0).reshape((*input.shape, *weight.shape[1:]))
    if padding_idx is None or not rows.requires_grad:
        return rows
    stopped: Tensor = (input == padding_idx % weight.shape[0]).unsqueeze(-1)
    return stopped.where(rows.detach(), rows)


def embedding_bag(
    input: Tensor, weight: Tensor, offsets: Tensor | None = None, *, mode: str = "mean", per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False, padding_idx: int | None = None,
) -> Tensor:  # fmt: skip
    """Each bag's 'sum', 'mean' or 'max' of rows of weight (count, width): ints (B, N), each row a bag, -> (B, width); or ints
    (N,) with `offsets` (B,), ascending from 0: where each bag begins, and where the last ends with include_last_offset.
    per_sample_weights (of input's shape): factors of the rows, for 'sum'. Rows `padding_idx` do not count; a bag of none gives
    zeros. ValueError for what does not fit; IndexError, when it runs, for rows before the first bag."""
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f"embedding_bag: mode is 'sum', 'mean' or 'max', not {mode!r}\n  at {user_line()}")
    if input.ndim not in (1, 2) or (offsets is not None) != (input.ndim == 1) or (offsets is not None and offsets.ndim != 1):
        given = "no offsets" if offsets is None else f"offsets {list(offsets.shape)}"
        given = f"shape {list(input.shape)} and {given}"
        raise ValueError(f"embedding_bag takes (B, N), or (N,) with offsets (B,), got {given}\n  at {user_line()}")
    if per_sample_weights is not None and mode != "sum":
        raise NotImplementedError(f"embedding_bag: per_sample_weights go with mode 'sum', not {mode!r}\n  at {user_line()}")
    if per_sample_weights is not None and per_sample_weights.shape != input.shape:
        given = f"{list(per_sample_weights.shape)}, expected {list(input.shape)}"
        raise ValueError(f"embedding_bag: per_sample_weights have shape {given}\n  at {user_line()}")
    rows: Any = embedding(input, weight, padding_idx)
    there: Any = input == input if padding_idx is None else input != padding_idx % weight.shape[0]
    there = there.unsqueeze(-1)
    rows = rows if per_sample_weights is None else rows * per_sample_weights.unsqueeze(-1)
    if offsets is None:
        bag, bags = None, input.shape[0]
    else:
        at = Tensor.arange(input.shape[0], dtype=offsets.dtype)
        bag, bags = (offsets.searchsorted(at, right=True) - 1).unsqueeze(-1), offsets.shape[0] - include_last_offset

    def gathered(x: Any, reduce: str, empty: float) -> Any:
        if bag is None:
            return x.sum(1) if reduce == "sum" else x.amax(1)
        table = Tensor.full((bags, x.shape[-1]), empty, dtype=x.dtype)
        return table.scatter_reduce(0, bag.expand(x.shape), x, reduce)

    if mode == "sum" and padding_idx is None:
        return gathered(rows, "sum", 0.0)  # type: ignore[no-any-return]
    count = gathered(there.cast(rows.dtype), "sum", 0.0)
    if mode == "max":
        most = gathered(choose(there, rows, -math.inf), "amax", -math.inf)
        return choose(count > 0, most, 0.0)
    total = gathered(choose(there, rows, 0.0), "sum", 0.0)
    return total / count.maximum(1.0) if mode == "mean" else total  # type: ignore[no-any-return]


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """In training each channel, (..., H, W) of (N, C, ...), is 0 with probability p, else divided by 1 - p. RuntimeError for
    fewer than two axes, ValueError when p is no probability."""
    if input.ndim < 2:
        raise RuntimeError(f"dropout2d takes (N, C, ...), got shape {list(input.shape)}\n  at {user_line()}")
    if not training or p == 0:
        return input.dropout(p, training)
    return input * Tensor.ones(*input.shape[:2], *(1,) * (input.ndim - 2), dtype=input.dtype).dropout(p, training)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where x > 0, else weight * x; weight () or (1,), or (C,) for the channels, axis 1. RuntimeError for other shapes."""
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.ndim > 1 or weight.numel() not in (1, channels):
        raise RuntimeError(
            f"prelu: a weight of shape {list(weight.shape)} is neither one slope nor one for each of {channels} channels of shape"
            f" {list(input.shape)}\n  at {user_line()}"
        )
    slope: Any = weight.reshape([-1 if d == 1 else 1 for d in range(input.ndim)] if weight.numel() > 1 else ())
    return choose(input > 0, input, input * slope)


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(..., C r r, H, W) -> (..., C, H r, W r) for r = upscale_factor: channel c r r + i r + j is pixel (i, j) of each square
    (Shi et al. 2016). RuntimeError when the channels do not divide."""
    r = upscale_factor
    if input.ndim < 3 or not isinstance(r, int) or r < 1 or input.shape[-3] % (r * r):
        given = f"{r!r} of shape {list(input.shape)}"
        raise RuntimeError(f"pixel_shuffle takes r > 0 and (..., C r r, H, W), got {given}\n  at {user_line()}")
    *lead, c, h, w = input.shape
    k = len(lead)
    x = input.reshape(*lead, c // (r * r), r, r, h, w)
    return x.permute(*range(k + 1), k + 3, k + 1, k + 4, k + 2).reshape(*lead, c // (r * r), h * r, w * r)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """The inverse: (..., C, H r, W r) -> (..., C r r, H, W). RuntimeError when height or width does not divide."""
    r = downscale_factor
    if input.ndim < 3 or not isinstance(r, int) or r < 1 or input.shape[-2] % r or input.shape[-1] % r:
        given = f"{r!r} of shape {list(input.shape)}"
        raise RuntimeError(f"pixel_unshuffle takes r > 0 and (..., C, H r, W r), got {given}\n  at {user_line()}")
    *lead, c, h, w = input.shape
    k = len(lead)
    x = input.reshape(*lead, c, h // r, r, w // r, r)
    return x.permute(*range(k + 1), k + 2, k + 4, k + 1, k + 3).reshape(*lead, c * r * r, h // r, w // r)


def max_pool1d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """`Tensor.max_pool2d` over one axis: (..., L) -> (..., OL), and with `return_indices` where the maxima are."""
    k, s, p = _along("max_pool1d", input, kernel_size, stride, padding)
    d = (1, couple(dilation, 1, "dilation")[0])
    out = input.unsqueeze(-2).max_pool2d(k, s, p, d, ceil_mode, return_indices)
    return tuple([t.squeeze(-2) for t in out]) if return_indices else out.squeeze(-2)


def avg_pool1d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True
) -> Tensor:
    """`Tensor.avg_pool2d` over one axis: (..., L) -> (..., OL)."""
    k, s, p = _along("avg_pool1d", input, kernel_size, stride, padding)
    return input.unsqueeze(-2).avg_pool2d(k, s, p, ceil_mode, count_include_pad).squeeze(-2)


def _along(what: str, input: Tensor, kernel_size: Any, stride: Any, padding: Any) -> Any:
    """Kernel, stride and padding of one axis, as of two."""
    if not input.ndim:
        raise RuntimeError(f"{what} takes (..., L), got shape []\n  at {user_line()}")
    k = couple(kernel_size, 1, "kernel_size")[0]
    s = k if stride is None else couple(stride, 1, "stride")[0]
    return (1, k), (1, s), (0, couple(padding, 1, "padding")[0])


def layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axes, whose shape is `normalized_shape`. RuntimeError
    when it is not."""
    k = len(normalized_shape)
    if not k or input.shape[max(input.ndim - k, 0) :] != tuple(normalized_shape):
        raise RuntimeError(f"layer norm over {list(normalized_shape)} got shape {list(input.shape)}\n  at {user_line()}")
    y: Any = input.layernorm(tuple(range(-k, 0)), eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias  # type: ignore[no-any-return]


def group_norm(input: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    """Layer norm over each of `num_groups` groups of channels (axis 1), then one weight and bias per channel. RuntimeError when
    the channels do not divide."""
    if input.ndim < 2 or num_groups < 1 or input.shape[1] % num_groups:
        raise RuntimeError(f"{num_groups} groups of shape {list(input.shape)} do not divide its channels\n  at {user_line()}")
    n, c = input.shape[:2]
    y: Any = input.reshape(n, num_groups, c // num_groups, *input.shape[2:])
    y = y.layernorm(tuple(range(2, y.ndim)), eps).reshape(input.shape)
    shape = [-1 if d == 1 else 1 for d in range(input.ndim)]
    y = y if weight is None else y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)  # type: ignore[no-any-return]


def batch_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Per channel (axis 1): (x - mean) / sqrt(var + eps) * weight + bias. In training with the batch's mean and biased variance,
    and the running ones, if given, move by `momentum` toward the batch's (unbiased) ones, in place; else with the running ones.
    ValueError for one value per channel in training."""
    if not training and running_mean is not None and running_var is not None:
        return input.batchnorm(weight, bias, running_mean, (running_var + eps).rsqrt())
    axes = (0, *range(2, input.ndim))
    count = input.numel() // max(input.shape[1], 1)
    if count < 2 and training:
        raise ValueError(
            f"batch norm in training needs more than one value per channel, got shape {list(input.shape)}\n  at {user_line()}"
        )
    mean = input.mean(axes)
    d = input - mean.reshape([-1 if a == 1 else 1 for a in range(input.ndim)])
    var = (d * d).mean(axes)
    if training and running_mean is not None and running_var is not None:
        with no_grad():
            running_mean.assign(running_mean * (1 - momentum) + mean * momentum)
            n: Any = Tensor([0.0]).sum() + count if isinstance(count, Size) else count  # a symbolic count is known when it runs
            running_var.assign(running_var * (1 - momentum) + var * (momentum * n / (n - 1)))
    return input.batchnorm(weight, bias, mean, (var + eps).rsqrt())


def instance_norm(input: Tensor, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    """Each channel of each element of the batch by its own mean and variance; then one weight and bias per channel."""
    return group_norm(input, input.shape[1], weight, bias, eps)


def rms_norm(input: Tensor, normalized_shape: Sequence[int], weight: Any = None, eps: float | None = None) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axes; eps None: the dtype's."""
    if input.shape[input.ndim - len(normalized_shape) :] != tuple(normalized_shape):
        raise RuntimeError(f"RMS norm over {list(normalized_shape)} got shape {list(input.shape)}\n  at {user_line()}")
    axes = tuple(range(-len(normalized_shape), 0))
    tiny = 2.0 ** (1 - input.dtype.digits) if eps is None else eps
    y: Any = input * ((input * input).mean(axes, keepdim=True) + tiny).rsqrt()
    return y if weight is None else y * weight  # type: ignore[no-any-return]


def cross_entropy(
    input: Tensor, target: Any, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """`Tensor.cross_entropy`, where labels of -100 do not count unless told otherwise."""
    return input.cross_entropy(target, weight, ignore_index, reduction, label_smoothing)


def nll_loss(input: Tensor, target: Any, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean") -> Tensor:
    """`Tensor.nll_loss`, where labels of -100 do not count unless told otherwise."""
    return input.nll_loss(target, weight, ignore_index, reduction)


def binary_cross_entropy(input: Tensor, target: Any, weight: Any = None, *, reduction: str = "mean") -> Tensor:
    """`Tensor.binary_crossentropy`; `weight`: a factor of each loss."""
    loss = input.binary_crossentropy(target, "none" if weight is not None else reduction)
    return _weighted(loss, weight, reduction)


def binary_cross_entropy_with_logits(
    input: Tensor, target: Any, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None
) -> Tensor:
    """`Tensor.binary_crossentropy_logits`; `weight`: a factor of each loss."""
    loss = input.binary_crossentropy_logits(target, "none" if weight is not None else reduction, pos_weight)
    return _weighted(loss, weight, reduction)


def _weighted(loss: Tensor, weight: Any, reduction: str) -> Tensor:
    return loss if weight is None else reduced(loss * weight, reduction)


def smooth_l1_loss(input: Tensor, target: Any, *, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """d^2 / (2 beta) where |d| < beta, else |d| - beta / 2, for d = input - target; beta 0: `l1_loss`."""
    d = input - target
    size = d.abs()
    return reduced(size if beta == 0 else choose(size < beta, d * d * (0.5 / beta), size - 0.5 * beta), reduction)


def huber_loss(input: Tensor, target: Any, *, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """d^2 / 2 where |d| < delta, else delta (|d| - delta / 2), for d = input - target (Huber 1964)."""
    d = input - target
    size = d.abs()
    return reduced(choose(size < delta, d * d * 0.5, (size - 0.5 * delta) * delta), reduction)


def kl_div(input: Tensor, target: Tensor, *, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target * (log(target) - input) for log-probabilities `input`, 0 where target is 0; with log_target exp(target) * (target -
    input). reduction 'batchmean': the sum over the first extent, which is the divergence."""
    if log_target:
        loss = target.exp() * (target - input)
    else:
        some = target > 0
        loss = choose(some, target * choose(some, target, 1.0).log(), 0.0) - target * input
    return loss.sum() / input.shape[0] if reduction == "batchmean" and input.ndim else reduced(loss, reduction)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The sum of x1 * x2 along `dim` over the product of their lengths, each at least eps."""
    a, b = (choose(t > 0, choose(t > 0, t, 1.0).sqrt(), 0.0).maximum(eps) for t in ((x * x).sum(dim) for x in (x1, x2)))
    return (x1 * x2).sum(dim) / (a * b)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Means of windows so that (..., H, W) becomes (..., *output_size); None keeps an extent. Window i is floor(i H / n) to
    ceil((i + 1) H / n)."""
    pair = (output_size, output_size) if isinstance(output_size, int) or output_size is None else tuple(output_size)
    for d, size in zip((-2, -1), pair, strict=True):
        input = area(input, input.ndim + d, input.shape[d] if size is None else size)
    return input


__all__ = [
    "adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d", "batch_norm", "binary_cross_entropy",
    "binary_cross_entropy_with_logits", "celu", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "cosine_similarity", "cross_entropy", "dropout", "dropout2d", "elu", "embedding", "embedding_bag",
    "gelu", "group_norm", "hardsigmoid", "hardswish", "hardtanh", "huber_loss", "instance_norm", "interpolate", "kl_div",
    "l1_loss", "layer_norm", "leaky_relu", "linear", "log_softmax", "logsigmoid", "max_pool1d", "max_pool2d", "max_unpool2d",
    "mish", "mse_loss", "nll_loss", "normalize", "one_hot", "pad", "pixel_shuffle", "pixel_unshuffle", "prelu", "relu",
    "relu6", "rms_norm", "scaled_dot_product_attention", "selu", "sigmoid", "silu", "smooth_l1_loss", "softmax", "softmin",
    "softplus", "softsign", "tanh",
]  # fmt: skip
