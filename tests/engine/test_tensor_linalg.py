"""Products, einsum and decompositions of matrices against PyTorch."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from tests.engine.alike import Operand, agree, on_backends
from tests.engine.peer import draw, torch
from tinyengine import Tensor, jit

O = Operand

PRODUCTS = """
    x @ y
    x.matmul(y)
    x.linear(w) :: F.linear(x, w)
    x.linear(w, w[:, 0]) :: F.linear(x, w, w[:, 0])
"""
SHAPES: list[Any] = [
    ((3,), (3,)), ((2, 3), (3, 4)), ((3,), (3, 4)), ((2, 3), (3,)), ((5, 2, 3), (3, 4)), ((5, 1, 2, 3), (4, 3, 2)),
    ((0, 3), (3, 2)), ((2, 0), (0, 3)), ((2, 3), (4, 3)), ((), (3,)), ((3,), ()), ((2, 3), (2, 3, 4)), ((0,), (0,)),
    ((2, 2, 3), (3, 3, 4)),
]  # fmt: skip
FORMULAS = """
    ij,jk->ik   ij,jk   ij->ji   ij->   ij->j   ii->i   ii   ij,ij->ij   i,j->ij   ij,kj->ik   ...ij,...jk->...ik   ...i->...
    i...->...   ij,jk->ki   ij,jk->iik   ij->k   ij,jk,kl->il   bij,bjk->bik   ->   i1   ij,j->i   ij,ik,il->jkl
"""


@pytest.mark.parametrize("a, b", SHAPES, ids=str)
def test_products(a: Any, b: Any) -> None:
    for layout in ("plain", "transposed"):
        agree(PRODUCTS, [{"x": O(a, layout), "y": O(b, layout), "w": O((5, 3), layout)}], rtol=2e-5)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "int64"])
def test_products_of_one_dtype(dtype: str) -> None:
    agree("x @ y", [{"x": O((2, 3), dtype=dtype), "y": O((3, 4), dtype=dtype)}])


@pytest.mark.parametrize("formula", FORMULAS.split())
def test_einsum(formula: str) -> None:
    names = "xyz"[: formula.split("->")[0].count(",") + 1]
    form = f"T.einsum('{formula}', {', '.join(names)})"
    agree(form, [{n: O(s, l) for n in names} for s in ((3, 3), (2, 3, 3), (3,), ()) for l in ("plain", "transposed")], rtol=2e-5)


ON_BACKENDS = """
    x.permute(1, 2, 0) @ y[:, 0, :3].expand(2, 5, 3)
    x @ x.mT
    x.matmul(y)
    x.linear(w) :: F.linear(x, w)
    T.einsum('bij,bjk->ik', x, y)
    T.einsum('ii->i', y[:3, :, 1] @ w[:3].T)
"""


def test_on_all_backends() -> None:
    on_backends(ON_BACKENDS, {"x": O((5, 2, 3), "transposed"), "y": O((5, 3, 4), "reversed"), "w": O((4, 3), "strided")})


MATRICES = [(3, 3), (5, 3), (3, 5), (2, 4, 3), (2, 1, 3, 3), (1, 1), (0, 3), (3, 0), (0, 2, 2)]


@pytest.mark.parametrize("shape", MATRICES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_qr_is_lapacks(shape: Any, dtype: str) -> None:
    a = draw(shape, -1, 1, 3, dtype)
    for mode in ("reduced", "complete"):
        ours, theirs = Tensor(a).qr(mode), torch.linalg.qr(torch.tensor(a), mode)
        for name in "QR":
            got, want = getattr(ours, name), getattr(theirs, name).numpy()
            assert got.shape == want.shape and got.dtype.name == dtype
            np.testing.assert_allclose(got.numpy(), want, atol=2e-6)
        np.testing.assert_allclose((ours.Q @ ours.R).numpy(), a, atol=2e-6)
    np.testing.assert_allclose(Tensor(a).qr("r").R.numpy(), torch.linalg.qr(torch.tensor(a), "r").R.numpy(), atol=2e-6)


@pytest.mark.parametrize("shape", MATRICES, ids=str)
@pytest.mark.parametrize("full", [True, False])
def test_svd_takes_a_matrix_apart(shape: Any, full: bool) -> None:
    a = draw(shape, -1, 1, 4)
    ours, theirs = Tensor(a).svd(full), torch.linalg.svd(torch.tensor(a), full)
    for name in ("U", "S", "Vh"):
        assert getattr(ours, name).shape == tuple(getattr(theirs, name).shape)
    np.testing.assert_allclose(ours.S.numpy(), theirs.S.numpy(), atol=2e-6)
    k = min(shape[-2:])
    u, vh = ours.U[..., :k], ours.Vh[..., :k, :]
    np.testing.assert_allclose(((u * ours.S.unsqueeze(-2)) @ vh).numpy(), a, atol=3e-6)
    for m in (ours.U, ours.Vh.mT):
        np.testing.assert_allclose(
            (m.mT @ m).numpy(), np.broadcast_to(np.eye(m.shape[-1]), (*m.shape[:-2], *m.shape[-1:] * 2)), atol=3e-6
        )


def test_det() -> None:
    for shape in ((3, 3), (2, 4, 4), (0, 0)):
        a = draw(shape, -1, 1, 5)
        ours = Tensor(a).det()
        assert ours.shape == shape[:-2]
        np.testing.assert_allclose(ours.numpy(), torch.det(torch.tensor(a)).numpy(), atol=2e-6)
    for x in (Tensor(draw((2, 3), -1, 1, 5)), Tensor([1.0]), Tensor([[1]])):
        with pytest.raises(RuntimeError):
            x.det()


def test_decompositions_refuse_what_pytorch_refuses() -> None:
    for make, qr, svd in ((Tensor, Tensor.qr, Tensor.svd), (torch.tensor, torch.linalg.qr, torch.linalg.svd)):
        for a in (np.ones(3, np.float32), np.ones((2, 2), np.int32)):
            for f in (qr, svd):
                with pytest.raises(RuntimeError):
                    f(make(a))
        with pytest.raises(RuntimeError):
            qr(make(np.ones((2, 2), np.float32)), "whole")
        with pytest.raises(RuntimeError):
            svd(make(np.full((2, 2), np.nan, np.float32)))
        with pytest.raises(NotImplementedError):
            qr(make(np.ones((2, 2), np.float16)))


def test_a_gradient_of_a_decomposition_is_refused_and_not_zero() -> None:
    x = Tensor(draw((3, 3), -1, 1, 1), requires_grad=True)
    for f in (x.qr, x.svd, x.det):
        with pytest.raises(NotImplementedError, match=r"has no gradient here; use x\.detach\(\)"):
            f()
    with Tensor.no_grad():
        assert x.qr().Q.shape == x.detach().svd().U.shape == (3, 3)
    with pytest.raises(RuntimeError, match="inside jit"):
        jit(lambda y: y.qr().R)(Tensor(np.eye(2, dtype=np.float32)))


def test_memory_at_an_address() -> None:
    a = np.arange(6, dtype=np.float32)
    x = Tensor.from_blob(a.ctypes.data, (2, 3))
    whole = Tensor.from_blob(ctypes.addressof(ctypes.c_int16(-7)), (), "int16")
    a[:] = 0
    assert x.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]] and whole.shape == ()
    with pytest.raises(ValueError, match="from_blob: the address is 0"):
        Tensor.from_blob(0, (2,))
