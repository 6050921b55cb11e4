"""Products inside rows: chains of product, function of the rows, product are one kernel, whatever they are called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tinyengine import Tensor, backends
from tinyengine.backends.graph_eval import evaluate
from tinyengine.choices import DEFAULT, Choices
from tinyengine.loopnest import Alloc, walk
from tinyengine.machine import FIXTURE
from tinyengine.nn import functional as F
from tinyengine.node import Graph
from tinyengine.pipeline import Lowered, lower
from tinyengine.stages.fusion.blocks import block_rows
from tinyengine.stages.primitives.apply import apply

rng = np.random.default_rng(0)


def tensor(*shape: int, grad: bool = False) -> Tensor:
    return Tensor(rng.standard_normal(shape).astype(np.float32), requires_grad=grad)


def low(*roots: Tensor, backend: str = "llvm", choices: Choices = DEFAULT) -> Lowered:
    return lower(Graph([t.node for t in roots]), choices, FIXTURE, backend)


def refused(c: Lowered) -> str:
    return "\n".join(a for d in c.fusion.decisions for a in d.alternatives.values())


# ---- counts


def attention(b: int, h: int, t: int, d: int, grad: bool = False, **options: Any) -> tuple[Tensor, list[Tensor]]:
    given_ = [tensor(b, h, t, d, grad=grad) for _ in range(3)]
    return given_[0].scaled_dot_product_attention(given_[1], given_[2], **options), given_


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_one_kernel_and_the_scores_never_reach_memory(causal: bool) -> None:
    c = low(attention(2, 3, 128, 64, is_causal=causal)[0])
    (k,) = c.certificate.kernels
    one = 4 * 2 * 3 * 128 * 64
    assert (k.bytes_read, k.bytes_written) == (3 * one, one) and k.exact
    assert c.certificate.peak_bytes == 4 * one, "q, k, v and the result: no scores"
    products = 2 * 2 * (2 * 3 * (128 * 129 // 2 if causal else 128 * 128) * 64)
    assert products < k.flops < 1.08 * products
    kept = [s.buf for s in walk(c.scheduled[0].body) if isinstance(s, Alloc) and s.buf.space == "local"]
    assert max(b.nbytes for b in kept) <= FIXTURE.l2_bytes // 4


def test_sums_of_what_one_row_alone_reads_are_no_block() -> None:
    """Group norm: mean and variance of each image's groups. Nothing is copied, each sum runs in four chains of vectors."""
    x = tensor(8, 32, 14, 14)
    c = low(F.group_norm(x, 4))
    (k,) = c.scheduled
    assert not any(p.startswith(("fission", "pack")) for p in k.schedule)
    assert sum(p.startswith("accumulate") for p in k.schedule) == 2
    (cost,) = c.certificate.kernels
    assert cost.bytes_issued <= 4.1 * x.node.nbytes, "read for each sum and for the result, which is written"


def test_both_products_have_register_tiles() -> None:
    (k,) = low(attention(4, 8, 256, 64)[0]).scheduled
    tiles = [s.buf for s in walk(k.body) if isinstance(s, Alloc) and s.buf.space == "register" and s.buf.size >= 256]
    assert {b.shape for b in tiles} >= {(6, 64)} and len({b.name for b in tiles}) == 2
    assert any(p.startswith("fission(") for p in k.schedule) and k.parallel is not None


def test_the_schedule_is_replayed_from_its_text() -> None:
    c = low(attention(2, 2, 77, 32)[0])
    (k,), (n,) = c.scheduled, c.nests
    assert apply(n.kernel, k.schedule) == k


def test_training_stores_the_scores_once_and_computes_them_once() -> None:
    """Stored from the kernel that has them anyway: on a CPU a byte costs less than the arithmetic of a score."""
    t, d = 64, 32
    y, given_ = attention(4, 4, t, d, grad=True)
    (y * tensor(4, 4, t, d)).sum().backward()
    c = low(y, *(x.grad for x in given_ if x.grad is not None))
    assert len(c.kernels) == 4
    product = 2 * 4 * 4 * t * t * d
    assert 6 * product < c.certificate.flops < 6.5 * product, "two products forward, four backward: nothing twice"
    again = [a for a in refused(c).split("\n") if "3 kernels use it: computed again in 2 of them" in a]
    assert again and all("µs of arithmetic, more than the" in a for a in again)
    forward = c.certificate.kernels[0]
    assert forward.bytes_written == 4 * 4 * 4 * (2 * t * d + t * t), "the result, the gradient over the sums, the scores"


def test_a_product_and_a_function_of_its_rows_are_one_kernel() -> None:
    x, w = tensor(400, 24), tensor(24, 70)
    assert len(low((x @ w).softmax(-1)).kernels) == 1
    assert len(low((x @ w).layernorm()).kernels) == 1


# ---- refusals


def test_refusals_say_what_stands_in_the_way() -> None:
    few = low(tensor(2, 4, 32).scaled_dot_product_attention(tensor(2, 40, 32), tensor(2, 40, 32)))
    assert len(few.kernels) > 1 and "4 rows share too little" in refused(few)
    narrow = low((tensor(40, 24) @ tensor(24, 5)).softmax(-1) @ tensor(5, 40))
    assert "its rows of 5 elements fill no vector" in refused(narrow)
    q, k, v = tensor(64, 16), tensor(200_000, 16), tensor(200_000, 16)
    long = low(q.scaled_dot_product_attention(k, v))
    assert len(long.kernels) > 1 and "12 of its rows of 200000 elements" in refused(long)
    x = tensor(2, 3, 12, 12)
    conv = low(x.conv2d(tensor(16, 3, 3, 3)).relu().reshape(2, 16, 100) @ tensor(100, 32))
    assert len(conv.kernels) == 2
    three = low(((tensor(400, 32) @ tensor(32, 32)).relu() @ tensor(32, 32)).relu() @ tensor(32, 32))
    assert len(three.kernels) == 2 and "at most 2 matrix products" in refused(three)


def test_scores_of_long_rows_never_reach_memory() -> None:
    """Of 16,384 positions 1 GiB; a block of two register tiles lies in the last cache."""
    t = 16_384
    c = low(tensor(t, 64).scaled_dot_product_attention(tensor(t, 64), tensor(t, 64)))
    assert len(c.kernels) == 1 and c.certificate.peak_bytes == 4 * t * 64 * 4
    assert any(s.startswith("tile(") and s.endswith(", 24)") for s in c.kernels[0].schedule)


def test_long_rows_are_pytorchs() -> None:
    q, k, v = tensor(300, 16), tensor(12_001, 16), tensor(12_001, 16)
    c = low(q.scaled_dot_product_attention(k, v))
    assert len(c.kernels) == 1
    want = torch.nn.functional.scaled_dot_product_attention(*(torch.from_numpy(x.numpy().copy()).double() for x in (q, k, v)))
    np.testing.assert_allclose(c.run()[0], want.numpy(), rtol=2e-5, atol=2e-6)


def test_weights_that_each_thread_would_copy_cost_more_than_the_rows_save() -> None:
    x = tensor(64, 784)
    c = low((x @ tensor(512, 784).T).relu() @ tensor(16, 512).T)
    assert len(c.kernels) == 2


@pytest.mark.parametrize(("rows", "row_bytes", "expected"), [
    (64, 256, 64), (256, 1024, 96), (128, 512, 72), (1024, 4096, 60), (5, 100, 5),
    (1000, 1 << 20, 12), (1000, 1 << 16, 24), (97, 64, 60),
])  # fmt: skip
def test_rows_of_a_block(rows: int, row_bytes: int, expected: int) -> None:
    assert block_rows(FIXTURE, rows, row_bytes) == expected


# ---- values

CHAINS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "softmax": lambda q, k, v: q.scaled_dot_product_attention(k, v),
    "softmax of the scores": lambda q, k, v: ((q @ k.mT) / 3.0).softmax(-1) @ v,
    "raw": lambda q, k, v: (q @ k.mT) * 0.1 @ v,
    "relu": lambda q, k, v: (q @ k.mT).relu() @ v * 0.1,
    "additive": lambda q, k, v: q.scaled_dot_product_attention(k, v, (q @ k.mT).detach().sign()),
    "norm": lambda q, k, v: (q @ k.mT).layernorm() @ v,
    "linear": lambda q, k, v: ((q @ k.mT).square() / ((q @ k.mT).square().sum(-1, keepdim=True) + 1)) @ v,
    "twice": lambda q, k, v: ((q @ k.mT).tanh() @ v).gelu() + 1,
    "rows only": lambda q, k, v: (q @ k.mT).softmax(-1) - 0.5,
}  # fmt: skip
SIZE = st.sampled_from([1, 2, 7, 8, 13, 16, 21, 33, 50])
calm = settings(
    max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)  # shrinking compiles hundreds of programs


def check(roots: list[Tensor], backend: str, width: int | None) -> None:
    graph = Graph([t.node for t in roots])
    c = lower(graph, Choices(vector_width=width), FIXTURE, backend)
    for got, want in zip(c.run(), evaluate(graph), strict=True):
        scale = max(1.0, float(np.abs(want).max(initial=0)))
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=1e-4 * scale, err_msg=str(c.fusion))


@pytest.mark.parametrize("backend", ["llvm", "reference", "opencl"])
@calm
@given(st.data())
def test_random_chains(backend: str, data: st.DataObject) -> None:
    try:
        backends.get(backend)
    except backends.BackendError as e:
        pytest.skip(str(e))
    name = data.draw(st.sampled_from(sorted(CHAINS)))
    batch = data.draw(st.sampled_from([(), (2,), (1, 3), (2, 2), (5,)]))
    rows, keys, depth, width = (data.draw(SIZE) for _ in range(4))
    grad = data.draw(st.booleans())
    q, k, v = (tensor(*batch, *s, grad=grad) for s in ((rows, depth), (keys, depth), (keys, width)))
    y = CHAINS[name](q, k, v)
    roots = [y]
    if grad:
        (y * y).sum().backward()
        roots += [x.grad for x in (q, k, v) if x.grad is not None]
    check(roots, backend, data.draw(st.sampled_from([None, None, 1, 4])))


@pytest.mark.parametrize("backend", ["llvm", "opencl"])
@pytest.mark.parametrize("kind", ["causal", "mask", "mask that keeps nothing", "grouped", "one buffer", "one head", "head of 80"])
def test_masks_heads_and_layouts(kind: str, backend: str) -> None:
    try:
        backends.get(backend)
    except backends.BackendError as e:
        pytest.skip(str(e))
    t, d = 200 if kind == "one head" else 45, 80 if kind == "head of 80" else 32
    q = tensor(2, 4, t, d)
    k, v = (tensor(2, 2 if kind == "grouped" else 4, t, d) for _ in range(2))
    options: dict[str, Any] = {"causal": {"is_causal": True}, "grouped": {"enable_gqa": True}}.get(kind, {})
    if kind.startswith("mask"):
        keep = rng.random((t, t)) < 0.6
        keep[3] = kind == "mask"
        options = {"attn_mask": Tensor(keep)}
    if kind == "one buffer":
        q, k, v = tensor(2, t, 3 * 4 * d).reshape(2, t, 3, 4, d).permute(2, 0, 3, 1, 4)
    if kind == "one head":
        q, k, v = q[0, 0], k[0, 0], v[0, 0]
    y = q.scaled_dot_product_attention(k, v, **options)
    assert len(low(y).kernels) == 1
    check([y], backend, None)


@pytest.mark.slow
@pytest.mark.parametrize(("t", "s"), [(1000, 333), (130, 1000), (97, 4000)])
def test_long_rows(t: int, s: int) -> None:
    y = tensor(2, t, 32).scaled_dot_product_attention(tensor(2, s, 32), tensor(2, s, 32))
    assert len(low(y).kernels) == 1
    check([y], "llvm", None)


def test_a_variance_of_each_row_is_no_product_of_a_block() -> None:
    """Group norm: the squares that are summed up are in memory of one row, which no other row shares; its loops become one."""
    c = low(F.group_norm(tensor(8, 32, 14, 14), 4, tensor(32), tensor(32)))
    (k,) = c.scheduled
    assert not any(s.startswith("fission") for s in k.schedule), k.schedule
    assert sum(s.startswith("accumulate") for s in k.schedule) == 2, "the mean and the variance"
