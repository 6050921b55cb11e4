"""Padding costs no products: gradients of inputs, transposed and padded convolutions compute the terms that count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.engine import forms
from tests.engine.test_clip import arrays, low
from tinyengine import Tensor, backends
from tinyengine.choices import Choices
from tinyengine.counting import count
from tinyengine.loopnest import Accumulate, Alloc, Kernel, Loop, walk
from tinyengine.pipeline import Lowered
from tinyengine.stages.primitives.apply import apply
from tinyengine.stages.primitives.clip import clip
from tinyengine.stages.primitives.nest import ScheduleError

torch = pytest.importorskip("torch")
F = torch.nn.functional


def gradient(n: int, inner: int, outer: int, size: int, k: int, **options: Any) -> tuple[Tensor, Tensor]:
    """A convolution of n images and the gradient of its input."""
    x, w = (Tensor(a) for a in arrays((n, inner, size, size), (outer, inner, k, k)))
    x.requires_grad = True
    y = x.conv2d(w, None, **options)
    (y * Tensor(arrays(y.shape)[0])).sum().backward()
    assert x.grad is not None
    return y, x.grad


def said(c: Lowered, kind: str) -> list[Any]:
    return [d for d in (c.scheduled and c.decisions) if d.kind == kind]


# ---- counts


@pytest.mark.parametrize(("size", "k"), [(10, 3), (24, 5), (20, 3), (16, 3)])
def test_the_gradient_of_an_input_costs_what_the_convolution_costs(size: int, k: int) -> None:
    """A full correlation has size² * k² terms for each pair of channels; (size - k + 1)² * k² of them meet no padding."""
    c = low(gradient(2, 32, 32, size, k)[1])
    products = 2 * (2 * 32 * 32 * (size - k + 1) ** 2 * k**2)
    assert [k.flops for k in c.certificate.kernels] == [products]
    assert [k.flops_issued for k in c.certificate.kernels] == [products]
    if size < 12:  # every term, one by one
        assert [k.flops for k in count(c).kernels] == [products]


def test_padding_costs_nothing_forward() -> None:
    x, w = (Tensor(a) for a in arrays((2, 16, 8, 8), (32, 16, 3, 3)))
    c = low(x.conv2d(w, None, 1, 1))
    products = 2 * (2 * 16 * 32 * (3 * 8 - 2) ** 2)
    assert [(k.flops, k.flops_issued) for k in c.certificate.kernels] == [(products, products)]


def test_tiles_of_the_border_stand_apart_and_say_why() -> None:
    c = low(gradient(2, 32, 32, 24, 5)[1])
    one, two = said(c, "split")
    assert (one.verdict, two.verdict) == ("split(lo, 8)", "split(lo, 16)")
    assert one.numbers["share"] == pytest.approx((4 + 3 + 2 + 1) / (5 * 24)) and "border" in one.reason
    (k,), (n,) = c.scheduled, c.nests
    assert apply(n.kernel, k.schedule) == k
    assert all(d.numbers["terms"] < d.numbers["terms_before"] for d in said(c, "clip") if d.verdict.startswith("clip"))


def test_a_thin_border_stays_with_its_row() -> None:
    c = low(gradient(1, 16, 16, 120, 3)[1])
    refused = said(c, "split")
    assert {d.verdict for d in refused} == {"none"} and all(d.numbers["share"] < d.numbers["least_share"] for d in refused)
    assert any(p.startswith("clip(r_1") for p in c.scheduled[0].schedule), "its rows end where the image does"


def test_the_gradient_of_overlapping_windows_goes_by_phases() -> None:
    """The maximum of 3x3 windows at every second element: 9 terms belong to 4 elements, not 36, and the neighbours of a phase are
    lanes. Where they are laid between each other, nothing is added up."""
    (a,) = arrays((2, 8, 28, 28))
    x = Tensor(a, requires_grad=True)
    (x.max_pool2d(3, 2, 1) ** 2).sum().backward()
    assert x.grad is not None
    c = low(x.grad)
    k = next(k for k in c.scheduled if "sum" in k.name)
    assert [s.buf.shape for s in walk(k.body) if isinstance(s, Alloc) and s.buf.shape[:2] == (2, 2)] == [(2, 2, 15, 15)]
    sums = [s for s in walk(k.body) if isinstance(s, Accumulate) and s.op == "add"]
    assert sums and all(s.value.lanes > 1 for s in sums)
    assert [d.verdict[:7] for d in c.fusion.decisions if "divisions" in d.alternatives.get("inline", "")] == ["at loop"]
    t = torch.tensor(a, requires_grad=True)
    (F.max_pool2d(t, 3, 2, 1) ** 2).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), atol=1e-5)


# ---- the primitive


def _unrolled() -> Kernel:
    return apply(forms.banded(9, 12, 16, 2, 1), ["unroll(i)", "unroll(k)", "vectorize(j, 8)", "clip(k)"])


def test_an_unrolled_loop_ends_at_numbers() -> None:
    out = _unrolled()
    (r,) = [s for s in walk(out.body) if isinstance(s, Loop) and s.name == "k"]
    assert r.kind == "unroll" and r.first is not None and r.limit is not None
    forms.assert_same(forms.banded(9, 12, 16, 2, 1), out)


def test_ends_that_are_no_numbers_any_more_go() -> None:
    rolled = apply(forms.banded(9, 9, 16, 2, 1), ["clip(k)", "unroll(k)"])
    assert not any(s.ends for s in walk(rolled.body) if isinstance(s, Loop))
    forms.assert_same(forms.banded(9, 9, 16, 2, 1), rolled)
    with pytest.raises(ScheduleError, match="every iteration of k has terms that count"):
        clip(apply(forms.banded(9, 9, 16, 2, 1), ["unroll(k)"]), "k")


# ---- values

calm = settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
channels = st.sampled_from([1, 2, 3, 5, 8, 16, 17, 20])


@pytest.mark.usefixtures("opencl_unoptimised")
@pytest.mark.parametrize("backend", ["llvm", "reference", "opencl"])
@calm
@given(st.data())
def test_convolutions_and_their_gradients_are_pytorchs(backend: str, data: st.DataObject) -> None:
    try:
        backends.get(backend)
    except backends.BackendError as e:
        pytest.skip(str(e))
    draw = data.draw
    transposed, groups = draw(st.booleans()), draw(st.sampled_from([1, 1, 2]))
    n, a, b = draw(st.integers(1, 3)), groups * draw(channels), groups * draw(channels)
    k = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    stride, dilation = draw(st.sampled_from([1, 1, 1, 2, (1, 2), 3])), draw(st.sampled_from([1, 1, (2, 1), 2]))
    padding = draw(st.sampled_from([0, 0, 1, 2, (0, 1)]))
    most = 12 if backend == "reference" else 22
    size = [draw(st.integers(1, most)) + 2 * (e - 1) for e in k]
    x, w = arrays((n, a, *size), (a, b // groups, *k) if transposed else (b, a // groups, *k))
    extra = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    theirs = [torch.tensor(t, dtype=torch.float64, requires_grad=True) for t in (x, w)]
    try:
        want = (F.conv_transpose2d if transposed else F.conv2d)(*theirs, **extra)
    except RuntimeError:
        return  # nothing is left of the image
    (g,) = arrays(tuple(want.shape))
    (want * torch.tensor(g)).sum().backward()
    mine = [Tensor(t, requires_grad=True) for t in (x, w)]
    y = mine[0].conv_transpose2d(mine[1], **extra) if transposed else mine[0].conv2d(mine[1], **extra)
    (y * Tensor(g)).sum().backward()
    width = draw(st.sampled_from([None, None, 4, 8]))
    got = low(y, *(t.grad for t in mine if t.grad is not None), backend=backend, choices=Choices(vector_width=width)).run()
    for ours, other in zip(got, [want.detach(), *(t.grad for t in theirs)], strict=True):
        scale = max(1.0, float(other.abs().max()))
        np.testing.assert_allclose(ours, other.numpy(), rtol=2e-5, atol=2e-5 * scale)
