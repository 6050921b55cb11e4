"""Sums over pixels for each tap of a window: lanes along the pixels, the sums of all taps in registers."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.engine.test_clip import arrays
from tests.engine.test_registers import TARGETS, assembly, kernels, product_loops
from tinyengine import Tensor, autograd
from tinyengine.loopnest import Alloc, walk


def gradient(
    channels: int, size: int, taps: int, stride: int = 1, padding: int = 0, dilation: int = 1
) -> tuple[Tensor, np.ndarray]:  # fmt: skip
    """Of the weights of a depthwise convolution, and its exact value."""
    x, w = arrays((2, channels, size, size + 3), (channels, 1, taps, taps))
    weights = Tensor(w)
    weights.requires_grad = True
    y = Tensor(x).conv2d(weights, None, stride, padding, dilation, channels)
    (g,) = arrays(y.shape)
    (found,) = autograd.grad(y, [weights], Tensor(g))
    assert found is not None
    p = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    want = np.empty(w.shape)
    for i in range(taps):
        for j in range(taps):
            rows = slice(i * dilation, i * dilation + (y.shape[2] - 1) * stride + 1, stride)
            cols = slice(j * dilation, j * dilation + (y.shape[3] - 1) * stride + 1, stride)
            want[:, 0, i, j] = (p[:, :, rows, cols] * g).sum((0, 2, 3))
    return found, want


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("size", "taps", "dilation"), [(20, 3, 1), (37, 3, 2), (24, 5, 1), (33, 7, 1), (9, 2, 1)])
def test_the_gradient_of_depthwise_weights(size: int, taps: int, dilation: int, stride: int, padding: int) -> None:
    found, want = gradient(3, size, taps, stride, padding, dilation)
    np.testing.assert_allclose(found.numpy(), want, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", TARGETS)
def test_taps_share_what_stands_in_the_lanes(name: str, stride: int) -> None:
    """Nine sums, one vector of one operand for all of them, nothing spilled."""
    machine, target = TARGETS[name]
    found, _ = gradient(4, 56, 3, stride, 1)
    (k,) = kernels(found, machine)
    sums = [s.buf for s in walk(k.body) if isinstance(s, Alloc) and s.buf.space == "register"]
    assert max(b.size for b in sums) == 9 * machine.vector_bytes // 4, k.schedule
    body = max(product_loops(assembly(k, target)), key=lambda lines: sum("fmadd" in line for line in lines))
    products = [line for line in body if "fmadd" in line]
    assert len({line.split()[-1] for line in products}) >= 9 and len(products) % 9 == 0
    assert sum("(%" in line for line in body) <= (10 if stride == 1 else 18) * len(products) // 9
    assert not [line for line in body if re.search(r"%rsp", line)]
