"""Movement, reductions, products and layers without state against PyTorch: values, dtypes and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.peer import Case, F, compare, draw, torch, value
from tinyengine import Tensor, cat, dtypes, stack
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph
from tinyengine.pipeline import lower

FEW = settings(max_examples=8, derandomize=True, deadline=None)

MOVEMENT = [
    Case("reshape", lambda x: x.reshape(4, 6), lambda x: x.reshape(4, 6)),
    Case("reshape -1", lambda x: x.reshape(2, -1, 2), lambda x: x.reshape(2, -1, 2)),
    Case("view", lambda x: x.view((24,)), lambda x: x.view(24)),
    Case("permute", lambda x: x.permute(2, 0, 1), lambda x: x.permute(2, 0, 1)),
    Case("transpose", lambda x: x.transpose(0, -1), lambda x: x.transpose(0, -1)),
    Case("mT", lambda x: x.mT, lambda x: x.mT),
    Case("flatten", lambda x: x.flatten(1), lambda x: x.flatten(1)),
    Case("unflatten", lambda x: x.unflatten(2, (2, 2)), lambda x: x.unflatten(2, (2, 2))),
    Case("unsqueeze expand", lambda x: x.unsqueeze(1).expand(-1, 5, -1, -1), lambda x: x.unsqueeze(1).expand(-1, 5, -1, -1)),
    Case("squeeze", lambda x: x.unsqueeze(0).unsqueeze(-1).squeeze(), lambda x: x.squeeze()),
    Case("flip", lambda x: x.flip(0, -1), lambda x: x.flip(0, -1)),
    Case("pad", lambda x: x.pad((1, 2, 0, 1)), lambda x: F.pad(x, (1, 2, 0, 1))),
    Case("pad value", lambda x: x.pad((1, 2), value=-3.5), lambda x: F.pad(x, (1, 2), value=-3.5)),
    Case("pad negative", lambda x: x.pad((-1, 2)), lambda x: F.pad(x, (-1, 2))),
    Case("split", lambda x: x.split(3, 2)[1], lambda x: x.split(3, 2)[1]),
    Case("chunk", lambda x: x.chunk(3, -1)[1], lambda x: x.chunk(3, -1)[1]),
    Case("repeat", lambda x: x.repeat(2, 1, 3, 2), lambda x: x.repeat(2, 1, 3, 2)),
    Case("repeat_interleave", lambda x: x.repeat_interleave(3, 1), lambda x: x.repeat_interleave(3, 1)),
    Case("roll", lambda x: x.roll((1, -2), (0, 2)), lambda x: x.roll((1, -2), (0, 2))),
    Case("roll flat", lambda x: x.roll(5), lambda x: x.roll(5)),
    Case("diagonal", lambda x: x.diagonal(1, 1, 2), lambda x: x.diagonal(1, 1, 2)),
    Case("diagonal below", lambda x: x.diagonal(-1, 1, 2), lambda x: x.diagonal(-1, 1, 2)),
    Case("diag", lambda x: x.flatten().diag(-2), lambda x: x.flatten().diag(-2)),
    Case("unfold", lambda x: x.unfold(2, 2, 1), lambda x: x.unfold(2, 2, 1)),
    Case("unfold step", lambda x: x.unfold(2, 2, 2), lambda x: x.unfold(2, 2, 2)),
    Case("tril", lambda x: x.tril(1), lambda x: x.tril(1)),
    Case("triu", lambda x: x.triu(-1), lambda x: x.triu(-1)),
    Case("cat", lambda x: cat([x, x * 2, x[:, :1]], 1), lambda x: torch.cat([x, x * 2, x[:, :1]], 1)),
    Case("stack", lambda x: stack([x, x * 2], -1), lambda x: torch.stack([x, x * 2], -1)),
    Case(
        "meshgrid",
        lambda x: Tensor.meshgrid(x[0, 0], x[0, :, 0])[1],
        lambda x: torch.meshgrid(x[0, 0], x[0, :, 0], indexing="ij")[1],
    ),
    Case(
        "rearrange",
        lambda x: x.rearrange("a b (c d) -> (a c) d b", c=2),
        lambda x: x.reshape(2, 3, 2, 2).permute(0, 2, 3, 1).reshape(4, 2, 3),
    ),
    Case("shrink_to", lambda x: x.shrink_to(1, None, 2), lambda x: x[:1, :, :2]),
    Case("pad_to", lambda x: x.pad_to(2, 5, None), lambda x: F.pad(x, (0, 0, 0, 2))),
    Case("contiguous", lambda x: x.T.contiguous(), lambda x: x.permute(2, 1, 0).contiguous()),
]


@pytest.mark.parametrize("case", MOVEMENT, ids=lambda c: c.name)
def test_movement(case: Case) -> None:
    compare(case, draw((2, 3, 4), -2, 2, 1))


def _bits(dtype: dtypes.DType) -> np.ndarray[Any, Any]:
    """uint8[4, 8 * bytes]: first -0.0, then anything, NaN of several payloads among it."""
    bits = np.random.default_rng(0).integers(0, 2 if dtype is dtypes.bool_ else 256, (4, 8 * dtype.itemsize), np.uint8)
    if dtype.is_float:
        bits[0] = ([0] * (dtype.itemsize - 1) + [0x80]) * 8
    return bits


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=str)
def test_what_is_joined_keeps_every_bit(dtype: dtypes.DType) -> None:
    bits = _bits(dtype)
    as_bits = Tensor.bitcast if dtype is not dtypes.bool_ else Tensor.cast
    x = as_bits(Tensor(bits), dtype).realize()
    y = cat([x[:, :3], x], 1).realize()
    np.testing.assert_array_equal(as_bits(y, dtypes.uint8).numpy(), np.concatenate([bits[:, : 3 * dtype.itemsize], bits], 1))


def test_what_is_joined_is_not_computed_with() -> None:
    x = Tensor(np.full((4, 3), -0.0, np.float32))
    for y in (cat([x, x[:1], x[2:]]), stack([x, x], 1), x.roll(1, 0), x.roll((1, 2), (0, 1))):
        assert [k.flops for k in lower(Graph([y.node]), machine=FIXTURE).certificate.kernels] == [0]
        assert np.signbit(y.numpy()).all()


def test_the_gradient_of_cat_is_a_slice_of_what_comes_back() -> None:
    xs = [Tensor(np.ones((n, 3), np.float32), requires_grad=True) for n in (2, 1, 4)]
    back = np.array([[-0.0, np.inf, np.nan]] * 7, np.float32)
    g = Tensor(back)
    grads = cat(xs).gradient(*xs, gradient=g)
    low = lower(Graph([x.node for x in grads]), machine=FIXTURE)
    assert {n.op for n in low.simplified if not n.src} == {"buffer"} and {n.op for n in low.simplified if n.src} == {"slice"}
    for got, at in zip(grads, ((0, 2), (2, 3), (3, 7)), strict=True):
        assert got.numpy().tobytes() == back[slice(*at)].tobytes()


@pytest.mark.parametrize(
    "formula", ["a b -> a b", "a b c -> a b", "(a b) c -> a b c", "a a c -> a c", "a b (c d) -> a b c d", "a b c"]
)
def test_wrong_formulas_are_refused(formula: str) -> None:
    with pytest.raises(RuntimeError, match="rearrange"):
        Tensor.ones(2, 3, 4).rearrange(formula)


REDUCE_SHAPES = st.sampled_from(
    [((3,), 0), ((2, 3), 1), ((2, 3), (0, 1)), ((2, 3, 4), (0, 2)), ((2, 3, 4), -2), ((1, 1), 0), ((2, 3), None)]
)
REDUCTIONS = [
    Case("sum", lambda x, d, k: x.sum(d, k), lambda x, d, k: x.sum(d, k)),
    Case("mean", lambda x, d, k: x.mean(d, k), lambda x, d, k: x.mean(d, k)),
    Case("amax", lambda x, d, k: x.amax(d, k), lambda x, d, k: x.amax(d if d is not None else (), k)),
    Case("amin", lambda x, d, k: x.amin(d, k), lambda x, d, k: x.amin(d if d is not None else (), k)),
    Case("var biased", lambda x, d, k: x.var(d, False, k), lambda x, d, k: x.var(d, unbiased=False, keepdim=k)),
    Case("logsumexp", lambda x, d, k: x.logsumexp(d, k), lambda x, d, k: x.logsumexp(d if d is not None else (0, 1), k)),
    Case("any", lambda x, d, k: (x > 1).any(d, k), lambda x, d, k: (x > 1).any(d, k) if d is not None else (x > 1).any()),
    Case("all", lambda x, d, k: (x > -1).all(d, k), lambda x, d, k: (x > -1).all(d, k) if d is not None else (x > -1).all()),
]


@pytest.mark.parametrize("case", REDUCTIONS, ids=lambda c: c.name)
@FEW
@given(where=REDUCE_SHAPES, keep=st.booleans(), seed=st.integers(0, 3))
def test_reductions(case: Case, where: Any, keep: bool, seed: int) -> None:
    shape, dim = where
    keep = keep and dim is not None
    compare(Case(case.name, lambda x: case.ours(x, dim, keep), lambda x: case.theirs(x, dim, keep)), draw(shape, -2, 2, seed))


ALONG = [
    *[
        Case(n, lambda x, d, n=n: getattr(x, n)(d), lambda x, d, n=n: getattr(x, n)(d))
        for n in ("softmax", "log_softmax", "cumsum", "cumprod", "argmax", "argmin", "prod", "std", "var")
    ],
    Case("cummax", lambda x, d: x.cummax(d).values, lambda x, d: x.cummax(d).values),
    Case("cummin", lambda x, d: x.cummin(d).values, lambda x, d: x.cummin(d).values),
]


@pytest.mark.parametrize("case", ALONG, ids=lambda c: c.name)
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_along_an_axis(case: Case, dim: int) -> None:
    compare(Case(case.name, lambda x: case.ours(x, dim), lambda x: case.theirs(x, dim)), draw((3, 4, 5), -2, 2, 3))


def test_reductions_of_ints_and_of_nothing() -> None:
    a = draw((3, 4), -5, 5, 1, "int8")
    assert Tensor(a).sum().dtype is dtypes.int32 and value(Tensor(a).sum()) == a.sum()
    assert Tensor(a > 0).sum(0).dtype is dtypes.int32
    assert Tensor(a.astype(np.int64)).prod().dtype is dtypes.int64
    empty = Tensor(np.zeros((0, 3), np.float32))
    np.testing.assert_array_equal(value(empty.sum(0)), [0, 0, 0])
    np.testing.assert_array_equal(value(empty.prod(0)), [1, 1, 1])
    assert np.isnan(value(empty.mean())) and value(empty.sum()) == 0
    with pytest.raises(IndexError, match="empty along"):
        empty.max(0)
    with pytest.raises(RuntimeError, match="cast it to a float"):
        Tensor(a).mean()


def test_argmax_takes_the_first_of_equals_and_any_nan() -> None:
    a = np.array([[1, 3, 3, 0], [2, 2, 2, 2], [np.nan, 5, np.nan, 1]], np.float32)
    np.testing.assert_array_equal(value(Tensor(a).argmax(1)), torch.tensor(a).argmax(1).numpy())
    assert Tensor(a).argmax().dtype is dtypes.int32 and Tensor(np.float32(3)).argmax().shape == ()
    np.testing.assert_array_equal(value(Tensor(a).argmax(0, keepdim=True)).shape, (1, 4))


def test_gradient_of_prod_beside_zeros_and_of_tied_maxima() -> None:
    for row in ([2.0, 3.0, 4.0], [2.0, 0.0, 4.0], [0.0, 0.0, 4.0]):
        compare(Case("prod", lambda x: x.prod(1), lambda x: x.prod(1)), np.array([row, [1, 2, 3]], np.float32))
    a = np.array([[1, 3, 3], [2, 2, 2]], np.float32)
    compare(Case("amax", lambda x: x.max(axis=1), lambda x: x.amax(1)), a)
    compare(Case("max", lambda x: x.max(1)[0], lambda x: x.max(1)[0]), a)


MATMUL = st.sampled_from(
    [
        ((3,), (3,)),
        ((2, 3), (3, 4)),
        ((3,), (3, 4)),
        ((2, 3), (3,)),
        ((5, 2, 3), (3, 4)),
        ((5, 1, 2, 3), (4, 3, 2)),
        ((0, 3), (3, 2)),
        ((2, 0), (0, 3)),
    ]
)


@FEW
@given(shapes=MATMUL, seed=st.integers(0, 3))
def test_matmul(shapes: Any, seed: int) -> None:
    compare(
        Case("matmul", lambda a, b: a @ b, lambda a, b: a @ b), draw(shapes[0], -1, 1, seed), draw(shapes[1], -1, 1, seed + 1)
    )


@pytest.mark.parametrize(
    "formula, shapes",
    [
        ("ij,jk->ik", ((2, 3), (3, 4))),
        ("bij,bjk->bik", ((2, 2, 3), (2, 3, 2))),
        ("ij->ji", ((2, 3),)),
        ("ij->", ((2, 3),)),
        ("i,j->ij", ((2,), (3,))),
        ("ij,kj", ((2, 3), (4, 3))),
    ],
)
def test_einsum(formula: str, shapes: Any) -> None:
    arrays = [draw(s, -1, 1, i) for i, s in enumerate(shapes)]
    compare(Case(formula, lambda *x: Tensor.einsum(formula, *x), lambda *x: torch.einsum(formula, *x)), *arrays)


CONV = st.fixed_dictionaries(
    {
        "n": st.integers(1, 2),
        "channels": st.sampled_from([(1, 1, 1), (2, 3, 1), (4, 4, 2), (3, 3, 3)]),
        "k": st.sampled_from([(1, 1), (3, 3), (2, 3)]),
        "stride": st.sampled_from([1, 2, (2, 1)]),
        "padding": st.sampled_from([0, 1, (1, 2)]),
        "dilation": st.sampled_from([1, 2]),
        "size": st.sampled_from([(7, 6), (8, 8)]),
    }
)


@settings(max_examples=25, derandomize=True, deadline=None)
@given(c=CONV)
def test_conv2d(c: Any) -> None:
    cin, cout, groups = c["channels"]
    options = {"stride": c["stride"], "padding": c["padding"], "dilation": c["dilation"], "groups": groups}
    compare(
        Case("conv2d", lambda x, w, b: x.conv2d(w, b, **options), lambda x, w, b: F.conv2d(x, w, b, **options), atol=5e-6),
        draw((c["n"], cin, *c["size"]), -1, 1, 1),
        draw((cout, cin // groups, *c["k"]), -1, 1, 2),
        draw((cout,), -1, 1, 3),
    )


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_conv_of_one_axis_and_same_padding() -> None:
    compare(
        Case("conv1d", lambda x, w: x.conv1d(w, padding=1), lambda x, w: F.conv1d(x, w, padding=1)),
        draw((2, 3, 9), -1, 1, 1),
        draw((4, 3, 3), -1, 1, 2),
    )
    compare(
        Case("same", lambda x, w: x.conv2d(w, padding="same"), lambda x, w: F.conv2d(x, w, padding="same")),
        draw((1, 2, 5, 5), -1, 1, 1),
        draw((3, 2, 2, 3), -1, 1, 2),
    )


def test_the_gradient_of_conv_is_one_sum_over_what_was_placed() -> None:
    """So that it can be computed directly: no sum lies between the product and the placing."""
    x, w = Tensor(draw((2, 3, 8, 8), -1, 1, 1), requires_grad=True), Tensor(draw((4, 3, 3, 3), -1, 1, 2), requires_grad=True)
    gx, gw = x.conv2d(w, padding=1, stride=2).square().sum().gradient(x, w)
    backward = [n for n in record_nodes(gx) if n.phase == "backward"]
    sums = [n for n in backward if n.op == "sum" and len(n.arg) == 3]
    assert [n.op for n in backward].count("place") == 2 and len(sums) == 1
    chain = sums[0].src[0]
    assert chain.op == "place" and chain.src[0].op == "place" and chain.src[0].src[0].op == "mul"
    assert [len(n.arg) for n in record_nodes(gw) if n.op == "sum" and n.phase == "backward"] == [
        3
    ]  # over images and both positions


def record_nodes(t: Tensor) -> Any:
    from tinyengine.node import toposort

    return toposort([t.node])


@pytest.mark.parametrize("k, s, p", [(2, None, 0), (3, 1, 1), (3, 2, 1), ((2, 3), (1, 2), 0)])
def test_pooling(k: Any, s: Any, p: Any) -> None:
    x = draw((2, 3, 7, 6), -1, 1, 4)
    compare(Case("max", lambda x: x.max_pool2d(k, s, p), lambda x: F.max_pool2d(x, k, s, p)), x)
    compare(Case("avg", lambda x: x.avg_pool2d(k, s, p), lambda x: F.avg_pool2d(x, k, s, p)), x)
    without = {"count_include_pad": False}
    compare(Case("avg", lambda x: x.avg_pool2d(k, s, p, **without), lambda x: F.avg_pool2d(x, k, s, p, **without)), x)


def test_attention_layernorm_normalize() -> None:
    q, k, v = (draw((2, 3, n, 4), -1, 1, i) for i, n in enumerate((5, 6, 6)))
    compare(Case("plain", lambda a, b, c: a.scaled_dot_product_attention(b, c), F.scaled_dot_product_attention), q, k, v)
    compare(
        Case(
            "causal",
            lambda a: a.scaled_dot_product_attention(a, a, is_causal=True),
            lambda a: F.scaled_dot_product_attention(a, a, a, is_causal=True),
        ),
        q,
    )
    mask = draw((5, 6), 0, 1, 4, "bool") | np.eye(5, 6, dtype=bool)
    compare(
        Case(
            "mask",
            lambda a, b, c: a.scaled_dot_product_attention(b, c, Tensor(mask)),
            lambda a, b, c: F.scaled_dot_product_attention(a, b, c, torch.tensor(mask)),
        ),
        q,
        k,
        v,
    )
    compare(Case("layernorm", lambda a: a.layernorm((-2, -1)), lambda a: F.layer_norm(a, a.shape[-2:]), atol=1e-5), q)
    compare(Case("normalize", lambda a: a.normalize(dim=-1), lambda a: F.normalize(a, dim=-1)), q)


CREATION = [
    (lambda: Tensor.arange(5), lambda: torch.arange(5)),
    (lambda: Tensor.arange(2, 9, 3), lambda: torch.arange(2, 9, 3)),
    (lambda: Tensor.arange(5, 0, -2), lambda: torch.arange(5, 0, -2)),
    (lambda: Tensor.arange(0.0, 1.0, 0.25), lambda: torch.arange(0.0, 1.0, 0.25)),
    (lambda: Tensor.linspace(-1, 2, 7), lambda: torch.linspace(-1, 2, 7)),
    (lambda: Tensor.eye(3), lambda: torch.eye(3)),
    (lambda: Tensor.eye(2, 4), lambda: torch.eye(2, 4)),
    (lambda: Tensor.full((2, 3), 7), lambda: torch.full((2, 3), 7)),
    (lambda: Tensor.zeros(2, 3), lambda: torch.zeros(2, 3)),
    (lambda: Tensor.ones((0, 2)), lambda: torch.ones((0, 2))),
    (lambda: Tensor.arange(3, dtype="uint8"), lambda: torch.arange(3, dtype=torch.uint8)),
    (lambda: Tensor([[1, 2], [3, 4]]), lambda: torch.tensor([[1, 2], [3, 4]])),
    (lambda: Tensor(2.5), lambda: torch.tensor(2.5)),
    (lambda: Tensor(True), lambda: torch.tensor(True)),
    (lambda: Tensor([]), lambda: torch.tensor([])),
]


@pytest.mark.parametrize("number", range(len(CREATION)))
def test_creation(number: int) -> None:
    ours, theirs = (f() for f in CREATION[number])
    expected = theirs.numpy()
    assert ours.shape == expected.shape and ours.dtype.name == {"int64": "int32"}.get(str(expected.dtype), str(expected.dtype))
    np.testing.assert_allclose(value(ours), expected, rtol=1e-6)
