"""Which index of a buffer a kernel uses: one for the axes that a view has joined, and of every other axis its own."""

from __future__ import annotations

from tests.engine.test_clip import arrays, low
from tinyengine import Tensor
from tinyengine.loopnest import load_index, stmt_exprs, subexprs, walk
from tinyengine.nn import functional as F
from tinyengine.node import Shape
from tinyengine.stages.loops import Nest


def shapes(nest: Nest) -> list[Shape]:
    """Of the memory that a kernel reads, as it reads it."""
    loads = [x for s in walk(nest.kernel.body) for e in stmt_exprs(s) for x in subexprs(e) if x.op == "load"]
    assert all(len(load_index(x)) == len(x.arg.shape) for x in loads)
    return [x.arg.shape for x in loads if x.arg.space == "global"]


def test_only_axes_that_a_view_joins_become_one() -> None:
    """[a, bc, d] of a value [a, b, c, d]: two divisions by axis, none with one position for b and c."""
    (x,) = (Tensor(a) for a in arrays((6, 4, 3, 5)))
    (nest,) = low(x.reshape(6, 12, 5).sum(1)).nests
    assert shapes(nest) == [(6, 12, 5)]


def test_without_divisions_every_axis_keeps_its_index() -> None:
    (x,) = (Tensor(a) for a in arrays((6, 4, 3, 5)))
    (nest,) = low(x.permute(0, 2, 3, 1).sum(1)).nests
    assert shapes(nest) == [(6, 4, 3, 5)]


def test_the_weights_below_a_group_norm_are_a_product_of_tiles() -> None:
    """Its gradient is of the shape [images, groups, channels of a group, ..], and is read by rows of pixels all the same: the
    panels of both operands are copied once, and not read anew for each of 9 * 16 results."""
    x, w, y = (Tensor(a) for a in arrays((4, 16, 16, 16), (16, 16, 3, 3), (4, 16, 16, 16)))
    w.requires_grad = True
    (F.silu(F.group_norm(x.conv2d(w, padding=1), 4)) * y).sum().backward()
    c = low(w.grad)
    k = next(k for k in c.certificate.kernels if k.name == "matmul_16x16x3x3")
    assert k.bytes_issued < 3 * k.bytes_moved
