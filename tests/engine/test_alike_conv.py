"""Convolutions, pooling and interpolation: what PyTorch gives, at the edges too. See `alike` for how forms are read."""

from __future__ import annotations

import itertools

import pytest

from tests.engine.alike import EVERY, LAYOUTS, Operand, agree, forms_of, on_backends, outcomes
from tinyengine import Tensor

O = Operand

CONV = """
    x.conv2d(w) :: F.conv2d(x, w)
    x.conv2d(w, b) :: F.conv2d(x, w, b)
    x.conv2d(w, b, 2) :: F.conv2d(x, w, b, 2)
    x.conv2d(w, b, (2, 1), 1) :: F.conv2d(x, w, b, (2, 1), 1)
    x.conv2d(w, None, 1, (1, 0), 2) :: F.conv2d(x, w, None, 1, (1, 0), 2)
    x.conv2d(w, stride=2, padding=1, dilation=(1, 2)) :: F.conv2d(x, w, stride=2, padding=1, dilation=(1, 2))
    x.conv2d(w, padding='same') :: F.conv2d(x, w, padding='same')
    x.conv2d(w, padding='same', stride=2) :: F.conv2d(x, w, padding='same', stride=2)
    x.conv2d(w, padding='valid') :: F.conv2d(x, w, padding='valid')
    x.conv2d(w, padding='foo') :: F.conv2d(x, w, padding='foo')
    x.conv2d(w, groups=3) :: F.conv2d(x, w, groups=3)
    x.conv2d(w, stride=0) :: F.conv2d(x, w, stride=0)
    x.conv2d(w, padding=-1) :: F.conv2d(x, w, padding=-1)
    x.conv2d(w, dilation=0) :: F.conv2d(x, w, dilation=0)
    x.conv2d(w, dilation=5) :: F.conv2d(x, w, dilation=5)
    x.conv2d(w, b[:1]) :: F.conv2d(x, w, b[:1])
    x.conv2d(w, stride=(1, 2, 3)) :: F.conv2d(x, w, stride=(1, 2, 3))
"""
B = O((6,))
IMAGES = [
    *[{"x": O((2, 4, 6, 5), k), "w": O((6, 4, 3, 2), "transposed"), "b": B} for k in LAYOUTS],
    {"x": O((4, 6, 5)), "w": O((6, 4, 3, 2)), "b": B},
    {"x": O((0, 4, 6, 5)), "w": O((6, 4, 3, 2)), "b": B},
    {"x": O((2, 3, 6, 5)), "w": O((6, 4, 3, 2)), "b": B},
    {"x": O((2, 4, 2, 2)), "w": O((6, 4, 3, 3)), "b": B},
    {"x": O((6, 5)), "w": O((6, 4, 3, 2)), "b": B},
    {"x": O((2, 4, 6, 5), dtype="float64"), "w": O((6, 4, 3, 2), dtype="float64"), "b": O((6,), dtype="float64")},
]


@pytest.mark.parametrize("form", forms_of(CONV))
def test_convolution(form: str) -> None:
    # of no images PyTorch does not look at the dilation
    agree(form, [o for o in IMAGES if "dilation=0" not in form or o["x"].shape[0]], rtol=2e-5)


GROUPS = """
    x.conv2d(w, groups=2) :: F.conv2d(x, w, groups=2)
    x.conv2d(w, b, 2, 1, 1, 2) :: F.conv2d(x, w, b, 2, 1, 1, 2)
"""
ONE_AXIS = """
    x.conv1d(w) :: F.conv1d(x, w)
    x.conv1d(w, b, 2, 1, 2) :: F.conv1d(x, w, b, 2, 1, 2)
    x.conv2d(w) :: F.conv1d(x, w)
    x.conv_transpose2d(w.transpose(0,1)) :: F.conv_transpose1d(x, w.transpose(0,1))
    x.conv_transpose1d(w.transpose(0,1), b[:1], 2, 1, 1) :: F.conv_transpose1d(x, w.transpose(0,1), b[:1], 2, 1, 1)
"""
THREE_AXES = """
    x.conv2d(w, b, 1, 1) :: F.conv3d(x, w, b, 1, 1)
    x.conv_transpose2d(w.transpose(0,1), None, 2) :: F.conv_transpose3d(x, w.transpose(0,1), None, 2)
"""
TRANSPOSED = """
    x.conv_transpose2d(w) :: F.conv_transpose2d(x, w)
    x.conv_transpose2d(w, b, 2, 1, 1) :: F.conv_transpose2d(x, w, b, 2, 1, 1)
    x.conv_transpose2d(w, b, stride=2, dilation=2) :: F.conv_transpose2d(x, w, b, stride=2, dilation=2)
    x.conv_transpose2d(w, None, 2, 0, 2) :: F.conv_transpose2d(x, w, None, 2, 0, 2)
    x.conv_transpose2d(w, stride=(1,2), padding=(0,1)) :: F.conv_transpose2d(x, w, stride=(1,2), padding=(0,1))
    x.conv_transpose2d(w, padding=9) :: F.conv_transpose2d(x, w, padding=9)
    x.conv_transpose2d(w, groups=3) :: F.conv_transpose2d(x, w, groups=3)
    x.conv_transpose2d(w, groups=2) :: F.conv_transpose2d(x, w, groups=2)
"""


def test_convolution_in_groups_and_of_one_and_three_axes() -> None:
    agree(GROUPS, [{"x": O((2, 4, 6, 5)), "w": O((6, 2, 3, 2)), "b": B}], rtol=2e-5)
    agree(ONE_AXIS, [{"x": O(s), "w": O((6, 4, 3)), "b": B} for s in ((2, 4, 9), (4, 9))], rtol=2e-5)
    agree(THREE_AXES, [{"x": O((1, 2, 3, 4, 3)), "w": O((3, 2, 2, 2, 2)), "b": O((3,))}], rtol=2e-5)


@pytest.mark.parametrize("form", forms_of(TRANSPOSED))
def test_transposed_convolution(form: str) -> None:
    shapes = [(2, 4, 5, 4), (2, 3, 5, 4)]
    agree(form, [{"x": O(s, k), "w": O((4, 3, 3, 2)), "b": O((3,))} for s in shapes for k in LAYOUTS[:2]], rtol=2e-5)


KERNELS = ("2", "3", "(2, 3)", "(1, 2)", "0", "9", "(1, 2, 3)")
OPTIONS = (
    "", "stride=1", "stride=2, padding=1", "padding=1", "ceil_mode=True", "stride=3, ceil_mode=True, padding=1", "stride=0",
    "padding=2", "padding=-1",
)  # fmt: skip
POOLED = [
    O((2, 3, 6, 7), "transposed"), O((2, 3, 6, 7), "strided"), O((3, 6, 7)), O((0, 3, 6, 7)),
    O((1, 2, 6, 6), dtype="int32", low=0, high=3),
]  # fmt: skip
MORE_POOLING = """
    x.max_pool2d(2, dilation=2) :: F.max_pool2d(x, 2, dilation=2)
    x.max_pool2d(2, 1, 0, 2, True) :: F.max_pool2d(x, 2, 1, 0, 2, True)
    x.avg_pool2d(3, 2, 1, count_include_pad=False) :: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
    x.avg_pool2d(3, 2, 1, True, False) :: F.avg_pool2d(x, 3, 2, 1, True, False)
    x.avg_pool2d(3, 2, 1, True, True) :: F.avg_pool2d(x, 3, 2, 1, True, True)
"""


@pytest.mark.parametrize("kernel", KERNELS)
def test_pooling(kernel: str) -> None:
    args = [f"{kernel}, {o}" if o else kernel for o in OPTIONS]
    forms = [f"x.{n}({a}) :: F.{n}(x, {a})" for n, a in itertools.product(("max_pool2d", "avg_pool2d"), args)]
    forms += [f"x.max_pool2d({a}, return_indices=True) :: F.max_pool2d(x, {a}, return_indices=True)" for a in args]
    agree("\n".join(forms), [{"x": o} for o in POOLED])


def test_pooling_with_dilation_and_without_counting_the_rim() -> None:
    agree(MORE_POOLING, [{"x": o} for o in POOLED])


# not where windows overlap: of several values for one place PyTorch takes any, and gives the gradient to all
@pytest.mark.parametrize("args", ["2", "(2, 3)"])
@pytest.mark.parametrize("more", ["", ", output_size=x.shape", ", output_size=(99, 99)"])
def test_unpooling(args: str, more: str) -> None:
    ours = f"(lambda p: p[0].max_unpool2d(p[1], {args}{more}))(x.max_pool2d({args}, return_indices=True))"
    theirs = f"(lambda p: F.max_unpool2d(p[0], p[1], {args}{more}))(F.max_pool2d(x, {args}, return_indices=True))"
    agree(f"{ours} :: {theirs}", [{"x": O((2, 3, 6, 6), k)} for k in LAYOUTS] + [{"x": O((0, 3, 6, 6))}])


MODES = ("nearest", "nearest-exact", "bilinear", "bicubic", "area", "foo")
SIZES = (
    "size=(7, 3)", "scale_factor=2", "scale_factor=(2.0, 0.6)", "size=(9, 11), align_corners=True", "size=(1, 1)", "size=(6, 7)",
    "size=(9, 11), align_corners=False", "scale_factor=0.5", "size=4", "scale_factor=1.7, recompute_scale_factor=True",
    "size=(3, 3, 3)",
)  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_interpolation(mode: str) -> None:
    forms = "\n".join(f"x.interpolate({a}, mode='{mode}') :: F.interpolate(x, {a}, mode='{mode}')" for a in SIZES)
    agree(forms, [{"x": o} for o in (O((2, 3, 6, 7)), O((1, 2, 6, 7), "transposed"), O((0, 3, 6, 7)))], rtol=2e-5)
    agree(forms, [{"x": O((1, 1, 4, 4), dtype="float64")}], rtol=2e-6)  # positions are found in float32, theirs in float64


OTHER_AXES = """
    x.interpolate(8, mode='linear') :: F.interpolate(x, 8, mode='linear')
    x.interpolate(3) :: F.interpolate(x, 3)
    x.interpolate((3, 6, 4), mode='trilinear') :: F.interpolate(x, (3, 6, 4), mode='trilinear')
"""


@pytest.mark.parametrize("form", forms_of(OTHER_AXES))
def test_interpolation_of_one_and_three_axes(form: str) -> None:
    agree(form, [{"x": O((1, 2, 2, 3, 4) if "tri" in form else (2, 3, 5))}], rtol=2e-5)
    with pytest.raises(ValueError):
        Tensor.ones(1, 1, 2, 2).interpolate()


def test_on_all_backends() -> None:
    operands = {"x": O((2, 4, 6, 5), "transposed"), "w": O((6, 4, 3, 2)), "b": B}
    forms = [f for f in forms_of(CONV + MORE_POOLING) if outcomes(f, operands)[1].error is None]
    forms += [f"x.interpolate((7, 3), mode='{m}') :: F.interpolate(x, (7, 3), mode='{m}')" for m in MODES[:-1]]
    on_backends("\n".join(forms), operands)
    on_backends("x.conv2d(w, b, 2, 1) :: F.conv2d(x, w, b, 2, 1)\nx.max_pool2d(2) :: F.max_pool2d(x, 2)", operands, EVERY[2:])
