"""Masks that compare positions: terms that they make 0 are not computed, forward and backward, and the certificate knows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.engine import forms
from tests.engine.test_cost import counted
from tinyengine import Tensor, backends, dtypes
from tinyengine.choices import DEFAULT, Choices
from tinyengine.counting import count
from tinyengine.index import add
from tinyengine.loopnest import Accumulate, Loop, index, walk
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph
from tinyengine.pipeline import Lowered, lower
from tinyengine.stages.primitives.apply import apply
from tinyengine.stages.primitives.clip import clip, clippable, terms
from tinyengine.stages.primitives.nest import ScheduleError

torch = pytest.importorskip("torch")
F = torch.nn.functional
rng = np.random.default_rng(0)


def arrays(*shapes: tuple[int, ...]) -> list[Any]:
    return [rng.standard_normal(s).astype(np.float32) for s in shapes]


def low(*roots: Tensor, backend: str = "llvm", choices: Choices = DEFAULT) -> Lowered:
    return lower(Graph([t.node for t in roots]), choices, FIXTURE, backend)


def attention(t: int, s: int, d: int, batch: tuple[int, ...] = (2,), **options: Any) -> list[Tensor]:
    """The result, and the gradients of q, k and v."""
    q, k, v, g = (Tensor(x) for x in arrays((*batch, t, d), (*batch, s, d), (*batch, s, d), (*batch, t, d)))
    for x in (q, k, v):
        x.requires_grad = True
    y = q.scaled_dot_product_attention(k, v, **options)
    (y * g).sum().backward()
    return [y, *(x.grad for x in (q, k, v) if x.grad is not None)]


def window(t: int, s: int, below: int, above: int = 0) -> Tensor:
    i, j = Tensor.arange(t).reshape(t, 1), Tensor.arange(s).reshape(1, s)
    return (j <= i + above) & (j > i - below)


# ---- counts


def test_six_products_of_a_causal_attention_count_half_their_terms() -> None:
    t, d = 128, 64
    c = low(*attention(t, t, d, is_causal=True))
    half = 2 * 2 * (t * (t + 1) // 2) * d  # FLOPs of one product that computes no masked score
    assert len(c.kernels) == 4
    assert 6 * half < c.certificate.flops < 6.5 * half
    done = sum(k.flops_issued for k in c.certificate.kernels)
    assert done < 1.35 * c.certificate.flops, "tiles of rows and panels go a little beyond the diagonal"


def test_a_window_costs_what_it_is_wide() -> None:
    t, d, wide = 300, 32, 20
    c = low(attention(t, t, d, attn_mask=window(t, t, wide))[0])
    products = 2 * 2 * 2 * d * sum(min(i + 1, wide) for i in range(t))  # two of them, for two heads
    assert products < c.certificate.flops < products + 2 * 10 * t * t


@pytest.mark.parametrize("causal", [True, False])
def test_the_certificate_says_what_runs(causal: bool) -> None:
    c = low(*attention(40, 40, 16, is_causal=causal, attn_mask=None if causal else window(40, 40, 7)))
    for said, ran, k in zip(c.certificate.kernels, count(c).kernels, c.kernels, strict=True):
        assert said.flops == ran.flops
        assert (said.bytes_read, said.bytes_written, said.bytes_issued) == counted(k.scheduled)


def test_decisions_tell_what_is_left_out_and_what_is_not() -> None:
    c = low(attention(128, 128, 64, is_causal=True)[0])
    found = {d.subject[1]: d for d in (c.scheduled and c.decisions) if d.kind == "clip"}
    kept = [d for d in found.values() if d.verdict not in ("refused", "none")]
    assert len(kept) >= 3 and all(d.numbers["terms"] < d.numbers["terms_before"] for d in kept)
    assert any("does more than to add" in d.reason for d in found.values() if d.verdict == "refused")


def test_masks_that_are_data_leave_everything() -> None:
    mask = Tensor(np.tril(np.ones((40, 40), bool)))
    c = low(attention(40, 40, 16, attn_mask=mask)[0])
    assert not any(isinstance(s, Loop) and s.ends for k in c.scheduled for s in walk(k.body))


def test_a_value_that_something_else_reads_is_whole() -> None:
    """Scores that are a result too: their sum is computed where the mask hides them."""
    q, k, v = (Tensor(x) for x in arrays((40, 16), (40, 16), (40, 16)))
    scores = q @ k.T
    hidden = Tensor.arange(40).reshape(1, 40) <= Tensor.arange(40).reshape(40, 1)
    y = Tensor.where(hidden, scores, -math.inf).softmax(-1) @ v
    c = low(y, scores)
    got, raw = c.run()
    np.testing.assert_allclose(raw, q.numpy() @ k.numpy().T, rtol=1e-4, atol=1e-5)
    assert np.isfinite(got).all()


def test_a_triangular_operand_halves_a_product() -> None:
    x, w = (Tensor(a) for a in arrays((64, 64), (64, 48)))
    c = low(x.tril() @ w)
    assert c.certificate.kernels[-1].flops == 2 * 48 * (64 * 65 // 2)
    np.testing.assert_allclose(c.run()[0], np.tril(x.numpy()) @ w.numpy(), rtol=1e-4, atol=1e-5)


def test_the_schedule_says_it_and_is_replayed() -> None:
    c = low(attention(77, 77, 32, is_causal=True)[0])
    (k,), (n,) = c.scheduled, c.nests
    assert apply(n.kernel, k.schedule) == k and any(p.startswith("clip(") for p in k.schedule)


# ---- the primitive


def test_ends_of_a_band() -> None:
    nest = forms.banded(20, 30, 8, 3, 2)
    assert clippable(nest) == ["k"]
    out = clip(nest, "k")
    (r,) = [s for s in walk(out.body) if isinstance(s, Loop) and s.reduce]
    i = next(s.var for s in walk(out.body) if isinstance(s, Loop))
    assert (r.first, r.limit) == (add(i, index(-3)), add(i, index(3)))
    assert terms(out) == 8 * sum(len(range(max(0, n - 3), min(30, n + 3))) for n in range(20)) < terms(nest)
    forms.assert_same(nest, out)


def test_a_tile_ends_where_its_last_row_does_and_begins_at_whole_vectors() -> None:
    nest = forms.banded(24, 40, 8, 3, 2)
    out = apply(nest, ["tile(i, 6)", "reorder(j, ii)", "reorder(k, ii)", "vectorize(j, 8)", "unroll(k, 4)", "clip(ko)"])
    (r,) = [s for s in walk(out.body) if isinstance(s, Loop) and s.name == "ko"]
    assert r.first is not None and r.limit is not None
    forms.assert_same(nest, out)


def test_what_comes_after_drops_ends_that_do_not_hold() -> None:
    nest = clip(forms.banded(20, 30, 8, 3, 2), "k")
    for line in ("reorder(k, i, j)", "vectorize(k, 4)", "accumulate(k, 4)", "unroll(k)", "tile(i, 4)", "tile(k, 4)"):
        forms.assert_same(nest, apply(nest, [line]))


def test_refusals() -> None:
    with pytest.raises(ScheduleError, match="does more than to add"):
        clip(forms.banded(20, 30, 8, 3, 2), "i")
    with pytest.raises(ScheduleError, match="every iteration of k has terms that count"):
        clip(forms.banded(20, 30, 8, 40, 40), "k")
    with pytest.raises(ScheduleError, match="no loop is called"):
        clip(forms.banded(20, 30, 8, 3, 2), "z")
    plain = forms.matmul(4, 5, 6)
    assert clippable(plain) == [] and not any(isinstance(s, Accumulate) and s.only for s in walk(plain.body))


# ---- values

calm = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)


def compared(t: int, s: int, d: int, batch: tuple[int, ...], kind: str, backend: str, tolerance: float, half: bool) -> None:
    q, k, v, g = arrays((*batch, t, d), (*batch, s, d), (*batch, s, d), (*batch, t, d))
    of = [Tensor(x).cast(dtypes.float16) if half else Tensor(x) for x in (q, k, v)]
    of = [x.detach() for x in of]
    for x in of:
        x.requires_grad = True
    mask, causal = None, kind == "causal"
    if kind == "window":
        mask = window(t, s, 5)
    elif kind == "band":
        mask = window(t, s, 3, 4)
    elif kind == "upper":
        mask = Tensor.arange(s).reshape(1, s) >= Tensor.arange(t).reshape(t, 1)
    elif kind == "padding":
        mask = (Tensor.arange(s) < max(1, s - 3)).reshape(1, s).expand(t, s)
    elif kind == "tril":
        mask = Tensor.ones(t, s).tril() > 0
    y = of[0].scaled_dot_product_attention(of[1], of[2], attn_mask=mask, is_causal=causal)
    (y * Tensor(g)).sum().backward()
    got = low(y, *(x.grad for x in of if x.grad is not None), backend=backend).run()
    like = [torch.tensor(x.detach().cast(dtypes.float32).numpy(), dtype=torch.float64, requires_grad=True) for x in of]
    keep = None if mask is None else torch.tensor(mask.numpy())
    scores = like[0] @ like[1].mT / math.sqrt(d)
    if causal:
        keep = torch.ones(t, s, dtype=torch.bool).tril()
    hidden = scores if keep is None else scores.masked_fill(~keep, -math.inf)
    weights = hidden.softmax(-1)
    weights = torch.where(hidden.isneginf().all(-1, keepdim=True), torch.zeros_like(weights), weights)
    out = weights @ like[2]
    (out * torch.tensor(g, dtype=torch.float64)).sum().backward()
    for mine, theirs in zip(got, [out.detach(), *(x.grad for x in like)], strict=True):
        want = theirs.nan_to_num().numpy()
        scale = max(1.0, float(np.abs(want).max()))
        np.testing.assert_allclose(np.asarray(mine, np.float64), want, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.usefixtures("opencl_unoptimised")
@pytest.mark.parametrize("backend", ["llvm", "reference", "opencl"])
@calm
@given(st.data())
def test_masked_attention_is_pytorchs(backend: str, data: st.DataObject) -> None:
    try:
        backends.get(backend)
    except backends.BackendError as e:
        pytest.skip(str(e))
    size = st.sampled_from([1, 8, 13, 16, 33, 50] if backend == "reference" else [1, 8, 13, 16, 33, 64, 97])
    kind = data.draw(st.sampled_from(["causal", "window", "band", "padding", "tril"]))
    t = data.draw(size)
    s = t if kind in ("window", "band") else data.draw(size)  # rows that see nothing are the next test
    batch = data.draw(st.sampled_from([(), (1,), (2, 3)]))
    compared(t, s, data.draw(st.sampled_from([4, 16, 32])), batch, kind, backend, 2e-5, False)


@pytest.mark.parametrize("kind", ["causal", "window", "padding"])
def test_777_positions(kind: str) -> None:
    compared(777, 777, 64, (1, 1), kind, "llvm", 2e-5, False)


@pytest.mark.parametrize(("t", "s"), [(64, 64), (130, 65), (65, 130)])
def test_halves(t: int, s: int) -> None:
    compared(t, s, 32, (2,), "causal", "llvm", 4e-3, True)


@pytest.mark.parametrize("kind", ["window", "upper"])
def test_rows_that_see_nothing_are_zeros(kind: str) -> None:
    """With fewer keys than rows, the last rows see none."""
    t, s, d = 50, 20, 16
    q, k, v = (Tensor(x) for x in arrays((t, d), (s, d), (s, d)))
    mask = window(t, s, 5) if kind == "window" else Tensor.arange(s).reshape(1, s) >= Tensor.arange(t).reshape(t, 1)
    (got,) = low(q.scaled_dot_product_attention(k, v, attn_mask=mask)).run()
    want = F.scaled_dot_product_attention(*(torch.tensor(x.numpy()) for x in (q, k, v)), attn_mask=torch.tensor(mask.numpy()))
    np.testing.assert_allclose(got, want.nan_to_num().numpy(), rtol=2e-5, atol=2e-5)
    assert not got[-1].any()


def test_nan_is_seen_by_the_rows_that_look_at_it() -> None:
    t, d = 64, 32
    q, k, v = arrays((t, d), (t, d), (t, d))
    v[40], k[50] = np.nan, np.nan
    (got,) = low(Tensor(q).scaled_dot_product_attention(Tensor(k), Tensor(v), is_causal=True)).run()
    assert np.isnan(got[40:]).all() and np.isfinite(got[:24]).all(), "a tile of rows may look at what its last row sees"
