"""Convolutions as products of matrices: where windows are copied beside each other, what that costs, and that the values stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.engine.test_clip import arrays, low
from tinyengine import Tensor, autograd
from tinyengine.pipeline import Lowered
from tinyengine.stages.primitives.apply import apply

torch = pytest.importorskip("torch")
F = torch.nn.functional


def gradients(x: tuple[int, ...], w: tuple[int, ...], **options: Any) -> list[Tensor]:
    """Of a convolution: that of the images, that of the weights."""
    a, b = (Tensor(t) for t in arrays(x, w))
    a.requires_grad = b.requires_grad = True
    y = a.conv2d(b, None, **options)
    out = autograd.grad(y, [a, b], Tensor(arrays(y.shape)[0]))
    return [g for g in out if g is not None]


def steps(c: Lowered) -> list[str]:
    (k,) = [k for k in c.scheduled if "conv" in k.name or "matmul" in k.name]
    (n,) = [n.kernel for n in c.nests if n.kernel.name == k.name]
    assert apply(n, k.schedule).text() == k.text(), "replayed from its own text"
    return list(k.schedule)


def reasons(c: Lowered, kind: str) -> list[Any]:
    return [d for d in (c.scheduled and c.decisions) if d.kind == kind]


# ---- counts


def test_few_pixels_become_full_vectors() -> None:
    """The weights of the last layers of a network: 8 pixels, 64 * 9 results for each of 64 rows, which lie together."""
    c = low(gradients((2, 64, 2, 2), (64, 64, 3, 3), padding=1)[1])
    (k,) = c.certificate.kernels
    assert any("by=(r, r_1, r_2, ji, k, l)" in s for s in steps(c)) and "merge(ji, k, l)" in steps(c)
    assert k.flops_issued == 2 * (64 * 64 * 9 * 8), "a padded term is a term"
    # the images once more for each tap and thread; results in registers, written as they lie
    assert k.bytes_issued < 8 * (64 * 64 * 9 * 4)


def test_windows_that_do_not_overlap_are_a_product_too() -> None:
    """Patch embedding, the gradient of its weights: columns of a row of a patch lie together."""
    c = low(gradients((4, 3, 160, 160), (192, 3, 16, 16), stride=16)[1])
    assert any("by=(r, r_1, r_2, ki, l)" in s for s in steps(c)) and "vectorize(kili, 16)" in steps(c)
    (k,) = c.certificate.kernels
    assert k.bytes_issued < k.flops, "each vector of patches serves several rows"


def test_too_few_rows_do_not_pay_for_a_copy() -> None:
    c = low(gradients((2, 8, 12, 12), (4, 8, 3, 3), padding=1)[1])
    assert not any("by=" in s for s in steps(c))


def test_what_costs_more_is_said() -> None:
    x, w = (Tensor(a) for a in arrays((2, 16, 14, 14), (32, 16, 3, 3)))
    c = low(x.conv2d(w, None, 1, 1))
    (d,) = reasons(c, "patches")
    assert d.verdict == "none" and d.numbers["cost"] < d.numbers["cost_of_copies"] and "costs more" in d.reason


def test_large_weights_are_copied_once_for_all_images() -> None:
    """The gradient of images under a stride: four phases, each with weights of its own; a panel of them serves both images."""
    c = low(gradients((2, 256, 6, 6), (256, 256, 3, 3), stride=2, padding=1)[0])
    s = steps(c)
    assert any("panels outside, images inside" in d.reason for d in reasons(c, "reorder"))
    k = next(k for k in c.certificate.kernels if k.flops)
    weights = 4 * 256 * 256 * 9
    assert k.bytes_issued < 26 * weights, s


def test_a_transposing_copy_of_weights_is_turned_in_blocks() -> None:
    """Rows of 3 taps fill no block, rows of all channels' taps do: 16 loads of vectors instead of 256 of elements."""
    x, w = (Tensor(a) for a in arrays((1, 64, 4, 4), (32, 64, 3, 3)))
    c = low(x.conv2d(w, None, 1, 1))
    (copied,) = [p for p in steps(c) if p.startswith("pack(") and p.endswith("axes=(1, 2, 3, 0))")]
    name = copied[len("pack(") :].partition(",")[0]
    row = f"{name}_1{name}_2{name}_3"
    assert f"unroll({row}i)" in steps(c) and f"tile({row}, 16)" in steps(c)


def test_blocks_leave_the_fewest_rows_over() -> None:
    """9 taps between the channels that become lanes: a block of 8 and one row, not 9 rows of 16 gathered elements."""
    c = low(gradients((1, 32, 4, 4), (64, 32, 3, 3), padding=1)[0])
    (copied,) = [p for p in steps(c) if p.startswith("pack(") and p.endswith("axes=(0, 2, 3, 1))")]
    name = copied[len("pack(") :].partition(",")[0]
    assert {f"merge({name}_2, {name}_3)", f"tile({name}_2{name}_3, 8)", f"vectorize({name}_1i, 8)"} <= set(steps(c))


# ---- values


@pytest.mark.parametrize(
    ("x", "w", "stride", "padding"),
    [((2, 64, 2, 2), (64, 64, 3, 3), 1, 1), ((2, 3, 12, 8), (48, 3, 4, 4), 4, 0), ((1, 16, 9, 6), (64, 16, 1, 1), 2, 0)],
)
def test_values_are_pytorchs(x: tuple[int, ...], w: tuple[int, ...], stride: int, padding: int) -> None:
    theirs = [torch.tensor(t, dtype=torch.float64, requires_grad=True) for t in arrays(x, w)]
    want = F.conv2d(*theirs, stride=stride, padding=padding)
    (g,) = arrays(tuple(want.shape))
    want.backward(torch.tensor(g, dtype=torch.float64))
    ours = [Tensor(t.detach().numpy().astype(np.float32)) for t in theirs]
    for t in ours:
        t.requires_grad = True
    y = ours[0].conv2d(ours[1], None, stride, padding)
    got = [y, *autograd.grad(y, ours, Tensor(g))]
    assert any("by=" in s for t in got if t is not None for k in low(t).scheduled for s in k.schedule)
    for mine, his in zip(got, [want.detach(), *(t.grad for t in theirs)], strict=True):
        assert mine is not None
        np.testing.assert_allclose(mine.numpy(), his.numpy(), rtol=1e-4, atol=1e-4 * float(his.abs().max()))
