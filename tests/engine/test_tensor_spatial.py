"""Transposed convolution, interpolate, pad modes, einsum, bitcast against PyTorch and NumPy."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.peer import Case, F, compare, draw, torch, value
from tinyengine import Tensor, dtypes, jit

FEW = settings(max_examples=15, derandomize=True, deadline=None)


@FEW
@given(
    k=st.integers(1, 3), s=st.integers(1, 3), p=st.integers(0, 2), extra=st.integers(0, 2), d=st.integers(1, 2),
    groups=st.sampled_from([1, 2]), axes=st.sampled_from([1, 2]),
)  # fmt: skip
def test_transposed_convolution(k: int, s: int, p: int, extra: int, d: int, groups: int, axes: int) -> None:
    theirs = {1: F.conv_transpose1d, 2: F.conv_transpose2d}[axes]
    x, w, b = draw((2, 4, 5, 4)[: 2 + axes], -1, 1, 1), draw((4, 3, k, 2)[: 2 + axes], -1, 1, 2), draw((3 * groups,), -1, 1, 3)
    arg = (s, p, extra, groups, d)
    try:
        theirs(torch.tensor(x), torch.tensor(w), None, *arg)
    except RuntimeError:
        with pytest.raises(RuntimeError):
            Tensor(x).conv_transpose2d(Tensor(w), None, *arg).realize()
        return
    compare(
        Case("transposed", lambda x, w, b: x.conv_transpose2d(w, b, *arg), lambda x, w, b: theirs(x, w, b, *arg), atol=1e-5),
        x,
        w,
        b,
    )


def test_transposed_convolution_is_the_adjoint_of_convolution() -> None:
    x, w = Tensor(draw((1, 2, 9, 8), -1, 1, 1)), Tensor(draw((3, 2, 3, 2), -1, 1, 2))
    y = x.conv2d(w, stride=2, padding=1)
    g = Tensor(draw(y.shape, -1, 1, 3))
    (back,) = (y * g).sum().gradient(x)
    np.testing.assert_allclose(value(g.conv_transpose2d(w, None, 2, 1, output_padding=(0, 0))), value(back), atol=1e-5)
    with pytest.raises(RuntimeError, match=r"x of shape \[1, 3, 5, 5\] does not fit weights of shape \[2, 2, 3, 3\]"):
        Tensor.ones(1, 3, 5, 5).conv_transpose2d(Tensor.ones(2, 2, 3, 3))


RESIZE = [
    ("nearest", {"size": (7, 3)}),
    ("nearest", {"scale_factor": 2}),
    ("nearest-exact", {"size": (7, 3)}),
    ("bilinear", {"size": (7, 3)}),
    ("bilinear", {"size": (9, 11), "align_corners": True}),
    ("bilinear", {"scale_factor": (2.0, 0.6)}),
    ("bilinear", {"size": (1, 1), "align_corners": True}),
    ("area", {"size": (2, 4)}),
    ("area", {"scale_factor": 2}),
]


@pytest.mark.parametrize("mode, given_", RESIZE, ids=str)
def test_interpolate(mode: str, given_: dict[str, Any]) -> None:
    a = draw((2, 3, 4, 6), -1, 1, 1)
    compare(
        Case(mode, lambda x: x.interpolate(mode=mode, **given_), lambda x: F.interpolate(x, mode=mode, **given_), atol=1e-5), a
    )


def test_interpolate_one_axis_and_errors() -> None:
    a = draw((2, 3, 5), -1, 1, 1)
    compare(Case("linear", lambda x: x.interpolate(8, mode="linear"), lambda x: F.interpolate(x, 8, mode="linear"), atol=1e-5), a)
    for x, f in ((Tensor(a), Tensor.interpolate), (torch.tensor(a), F.interpolate)):
        for wrong, error in (
            ({}, ValueError), ({"size": 3, "scale_factor": 2}, ValueError), ({"size": (2, 3)}, ValueError),
            ({"size": 3, "align_corners": True}, ValueError), ({"size": 3, "mode": "bilinear"}, NotImplementedError),
            ({"size": 3, "mode": "bicubic"}, NotImplementedError), ({"size": 0}, RuntimeError),
        ):  # fmt: skip
            with pytest.raises(error):
                f(x, **wrong)


@FEW
@given(
    mode=st.sampled_from(["reflect", "replicate", "circular"]),
    left=st.integers(0, 3),
    right=st.integers(-1, 3),
    top=st.integers(0, 2),
)
def test_pad_modes(mode: str, left: int, right: int, top: int) -> None:
    a = draw((2, 3, 4, 5), -1, 1, 1)
    if right >= 0:
        widths = (left, right, top, 0)
        compare(Case(mode, lambda x: x.pad(widths, mode), lambda x: F.pad(x, widths, mode)), a)
    name = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    one = np.pad(a[0, 0, :, :4] if right < 0 else a[0, 0], ((top, 0), (left, max(right, 0))), name)  # type: ignore[call-overload]
    np.testing.assert_array_equal(value(Tensor(a[0, 0]).pad((left, right, top, 0), mode)), one)


def test_pad_errors() -> None:
    a = draw((1, 2, 3), -1, 1, 1)
    for x, f in ((Tensor(a), Tensor.pad), (torch.tensor(a), F.pad)):
        for widths, mode, error in (
            ((3, 0), "reflect", RuntimeError),
            ((0, 4), "circular", RuntimeError),
            ((1, 1), "mirror", NotImplementedError),
        ):
            with pytest.raises(error):
                f(x, widths, mode)
    assert Tensor(a).pad((0, 0), "reflect").shape == a.shape


FORMULAS = [
    ("ij,jk->ik", (3, 4), (4, 5)),
    ("ij,jk", (3, 4), (4, 5)),
    ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
    ("...ij,...jk->...ik", (2, 6, 3, 4), (4, 5)),
    ("...ij,jk", (2, 3, 4), (4, 5)),
    ("i...,i...->...", (3, 2), (3, 2)),
    ("ii->i", (4, 4)),
    ("ii", (4, 4)),
    ("iji->j", (4, 2, 4)),
    ("ij->ji", (3, 4)),
    ("ba", (3, 4)),
    ("i,j->ij", (3,), (4,)),
    ("i,i,i->", (3,), (3,), (3,)),
    ("bij,bjk,k->bi", (2, 3, 4), (2, 4, 5), (5,)),
    ("...i,ij,jk,...k->...", (2, 3), (3, 4), (4, 5), (2, 5)),
    ("i,j,k->ikj", (3,), (4,), (1,)),
    ("ab,cd,bc,e,ea,f->df", (3, 4), (5, 2), (4, 5), (3,), (3, 3), (2,)),
    ("ij,ij->ij", (3, 1), (1, 4)),
    (",i->i", (), (3,)),
    ("ij->", (0, 3)),
    ("bhqd, bhkd -> bhqk", (2, 2, 3, 4), (2, 2, 5, 4)),
]


@pytest.mark.parametrize("case", FORMULAS, ids=lambda c: c[0])
def test_einsum(case: Any) -> None:
    formula, *shapes = case
    arrays = [draw(s, -1, 1, i) for i, s in enumerate(shapes)]
    compare(Case(formula, lambda *xs: Tensor.einsum(formula, *xs), lambda *xs: torch.einsum(formula, *xs), atol=1e-5), *arrays)


def test_einsum_of_three_takes_the_cheap_order() -> None:
    xs = [Tensor(draw(s, -1, 1, i)) for i, s in enumerate(((2, 30, 40), (2, 40, 50), (50,)))]
    flops = jit(lambda *xs: Tensor.einsum("bij,bjk,k->bi", *xs)).lower(*xs).certificate.flops
    assert flops == 2 * (2 * 40 * 50 + 2 * 30 * 40)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "float64"])
def test_einsum_keeps_the_dtype(dtype: str) -> None:
    a = draw((3, 3), 0, 9, 1, dtype)
    ours = Tensor.einsum("ij,jk->ik", Tensor(a), Tensor(a))
    theirs = torch.einsum("ij,jk->ik", torch.tensor(a), torch.tensor(a))
    assert ours.dtype.name == dtype
    np.testing.assert_allclose(value(ours), theirs.numpy())


@pytest.mark.parametrize(
    "formula, shapes",
    [("ij,jk->ik", [(3, 4)]), ("ij->ik", [(3, 4)]), ("ij->ii", [(3, 4)]), ("ijk->i", [(3, 4)]), ("ij,jk->ik", [(3, 4), (5, 6)]),
     ("i?->i", [(3, 4)]), ("ii->i", [(3, 4)]), ("i......->i", [(3, 4)])],
)  # fmt: skip
def test_einsum_refuses_what_pytorch_refuses(formula: str, shapes: Any) -> None:
    for make, f in ((Tensor, Tensor.einsum), (torch.tensor, torch.einsum)):
        with pytest.raises(RuntimeError):
            f(formula, *[make(draw(s, -1, 1, 1)) for s in shapes])


@pytest.mark.parametrize("source", ["uint8", "int16", "float16", "int32", "float32", "int64", "float64"])
@pytest.mark.parametrize("target", ["int8", "uint16", "float16", "uint32", "float32", "uint64", "float64"])
def test_bitcast_to_another_size(source: str, target: str) -> None:
    a = np.random.default_rng(1).integers(0, 255, (3, 16), np.uint8).view(source)
    got = Tensor(a).bitcast(target)
    assert got.dtype is dtypes.by_name(target)
    np.testing.assert_array_equal(value(got).view(np.uint8), a.view(target).view(np.uint8))


def test_bitcast_refuses_what_does_not_divide() -> None:
    for a, target in ((np.zeros((2, 3), np.uint8), "int32"), (np.zeros((), np.float32), "uint8")):
        with pytest.raises(RuntimeError, match="the last axis must exist and its bytes divide"):
            Tensor(a).bitcast(target)


def test_small_names() -> None:
    x = Tensor([1.5, 2.5], requires_grad=True)
    assert x.is_param and not (x * 2).is_param and not Tensor([1.0]).is_param
    (x.contiguous_backward() * 3).sum().backward()
    assert x.grad is not None
    np.testing.assert_array_equal(value(x.grad), [3, 3])
    y = Tensor([1.5, 2.5])
    assert y.to_("float16") is y and y.dtype is dtypes.float16 and value(y).tolist() == [1.5, 2.5]
    for ours, theirs in zip(x.std_mean(), torch.std_mean(torch.tensor([1.5, 2.5])), strict=True):
        np.testing.assert_allclose(value(ours), theirs.numpy(), rtol=1e-6)


IN_PLACE = {
    "//=": operator.ifloordiv, "%=": operator.imod, "**=": operator.ipow, "@=": operator.imatmul, "+=": operator.iadd,
    "-=": operator.isub, "*=": operator.imul, "/=": operator.itruediv,
}  # fmt: skip
IN_PLACE_BITS = {"&=": operator.iand, "|=": operator.ior, "^=": operator.ixor, "<<=": operator.ilshift, ">>=": operator.irshift}


@pytest.mark.parametrize("name", [*IN_PLACE, *IN_PLACE_BITS])
def test_in_place_forms_keep_the_tensor_and_its_memory(name: str) -> None:
    f, dtype = (IN_PLACE[name], "float32") if name in IN_PLACE else (IN_PLACE_BITS[name], "int32")
    a, b = draw((3, 3), 1, 3, 1, dtype), draw((3, 3), 1, 3, 2, dtype)
    x, t = Tensor(a), torch.tensor(a)
    memory = x.node.arg
    if name == "@=":
        t = torch.tensor(a) @ torch.tensor(b)
    else:
        f(t, torch.tensor(b))
    assert f(x, Tensor(b)) is x
    np.testing.assert_allclose(x.numpy(), t.numpy(), rtol=1e-5)
    assert x.node.arg is memory


def test_in_place_results_must_fit() -> None:
    for make in (Tensor, torch.tensor):
        with pytest.raises(RuntimeError):
            x = make(np.array([1, 2], np.int32))
            x += 1.5
        with pytest.raises(RuntimeError):
            x = make(np.array([1.0, 2.0], np.float32))
            x += make(np.ones((3, 2), np.float32))
    assert (1 << Tensor([1, 2])).tolist() == [2, 4] and (16 >> Tensor([1, 2])).tolist() == [8, 4]


@FEW
@given(
    k=st.tuples(st.integers(1, 3), st.integers(1, 3)), apart=st.booleans(), p=st.integers(0, 1), d=st.integers(1, 2),
    ceil=st.booleans(), size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
)  # fmt: skip
def test_of_equal_maxima_the_first_takes_the_gradient(
    k: tuple[int, int], apart: bool, p: int, d: int, ceil: bool, size: tuple[int, int]
) -> None:
    arg = (k, None if apart else 1, p if min(k) > 1 else 0, d, ceil)
    x = np.random.default_rng(sum(size)).integers(0, 3, (2, 3, *size)).astype(np.float32)
    try:
        F.max_pool2d(torch.tensor(x), *arg)
    except RuntimeError:
        with pytest.raises(RuntimeError):
            Tensor(x).max_pool2d(*arg)
        return
    compare(Case("max_pool2d", lambda x: x.max_pool2d(*arg), lambda x: F.max_pool2d(x, *arg)), x)


def test_gradients_of_convolutions_and_pooling_lie_as_the_image_does() -> None:
    """No axis changes places on the way, so every kernel reads and writes along rows."""

    def step(x: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor | None, ...]:
        (x.conv2d(v).relu().max_pool2d(2).conv2d(w).avg_pool2d(2) ** 2).sum().backward()
        return x.grad, v.grad, w.grad

    shapes = ((2, 3, 14, 14), (8, 3, 3, 3), (4, 8, 3, 3))
    lowered = jit(step).lower(*(Tensor(draw(s, -1, 1, i), requires_grad=True) for i, s in enumerate(shapes)))
    moved = {n.shape for n in lowered.simplified.nodes if n.op == "permute"}
    assert not moved, moved


@pytest.mark.parametrize("window", [(2,), (2, 1), (3, 1, 1)])
def test_of_several_nans_in_a_window_the_last_takes_the_gradient(window: tuple[int, ...]) -> None:
    a = np.arange(48, dtype=np.float32).reshape(1, 2, 4, 6) % 7
    a[0, 0, 1, 1] = a[0, 0, 0, 4] = a[0, 0, 1, 4] = a[0, 1, 3, 3] = np.nan
    t, x = torch.tensor(a, requires_grad=True), Tensor(a, requires_grad=True)
    theirs, at = F.max_pool2d(t, *window, return_indices=True)
    ours, mine = x.max_pool2d(*window, return_indices=True)
    weights = np.arange(theirs.numel(), dtype=np.float32).reshape(theirs.shape)
    (theirs * torch.tensor(weights)).sum().backward()
    (ours * Tensor(weights)).sum().backward()
    assert x.grad is not None and t.grad is not None
    np.testing.assert_array_equal(ours.numpy(), theirs.detach().numpy())
    np.testing.assert_array_equal(mine.numpy(), at.numpy())
    np.testing.assert_array_equal(x.grad.numpy(), t.grad.numpy())


def test_on_llvm() -> None:
    a, w = draw((2, 4, 6, 5), -1, 1, 1), draw((4, 3, 3, 3), -1, 1, 2)
    x, t, v, u = Tensor(a), torch.tensor(a), Tensor(w), torch.tensor(w)
    bits = np.random.default_rng(1).integers(0, 255, (3, 16), np.uint8)
    ours = [
        x.conv_transpose2d(v, None, 2, 1, 1), x.interpolate((9, 7), mode="bilinear"), x.interpolate((4, 8)),
        x.pad((2, 1, 1, 2), "reflect"), x.pad((2, 1), "circular"), Tensor.einsum("...ij,kj->...ki", x, x[0, 0]),
        x.max_pool2d(3, 2, 1, return_indices=True)[1],
        Tensor(bits).bitcast("uint32"), Tensor(bits.view(np.uint64)).bitcast("uint8"),
    ]  # fmt: skip
    theirs = [
        F.conv_transpose2d(t, u, None, 2, 1, 1), F.interpolate(t, (9, 7), mode="bilinear"), F.interpolate(t, (4, 8)),
        F.pad(t, (2, 1, 1, 2), "reflect"), F.pad(t, (2, 1, 0, 0), "circular"), torch.einsum("...ij,kj->...ki", t, t[0, 0]),
        F.max_pool2d(t, 3, 2, 1, return_indices=True)[1],
    ]  # fmt: skip
    ours[0].realize(*ours[1:])
    for p, q in zip(ours, theirs, strict=False):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(ours[-2].numpy(), bits.view(np.uint32))
    np.testing.assert_array_equal(ours[-1].numpy(), bits)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear"])
@pytest.mark.parametrize("factor", [2, 3, (4, 2)])
def test_whole_factors_have_static_addresses_forward_and_backward(mode: str, factor: Any) -> None:
    a = draw((2, 3, 6, 5), -1, 1, 5)

    def resized(x: Any) -> Any:
        return x.interpolate(scale_factor=factor, mode=mode)

    compare(Case(mode, resized, lambda x: F.interpolate(x, scale_factor=factor, mode=mode)), a)
    lowered = jit(lambda x: (resized(x) * resized(x)).gradient(x, gradient=resized(x) * 0 + 1)[0]).lower(Tensor(a))
    assert not {n.op for n in lowered.graph.nodes} & {"gather", "scatter_add"}
