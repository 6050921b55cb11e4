"""The certificate of a whole training step: what it predicts is what a traced execution counts."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine.test_cost import counted
from tinyengine import cost, pipeline, timing
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph
from tinyengine.ops import OPS
from tinyengine.pipeline import Lowered
from tinyengine.tensor import Tensor

BATCH, INPUTS, HIDDEN, CLASSES = 32, 64, 48, 10


@pytest.fixture(scope="module")
def step() -> Lowered:
    """Forward, backward and SGD of a two-layer network on images of digits' size."""
    rng = np.random.default_rng(0)
    weights = [
        Tensor((rng.standard_normal(s) * 0.1).astype(np.float32), requires_grad=True)
        for s in ((INPUTS, HIDDEN), (HIDDEN,), (HIDDEN, CLASSES), (CLASSES,))
    ]
    x, y = Tensor(rng.random((BATCH, INPUTS)).astype(np.float32)), Tensor(rng.integers(0, CLASSES, BATCH).astype(np.int32))
    hidden = (x @ weights[0] + weights[1]).relu()
    loss = (hidden @ weights[2] + weights[3]).cross_entropy(y)
    loss.backward()
    roots = [loss.node]
    for w in weights:
        assert w.grad is not None
        roots.append((w - w.grad * 0.1).node)
    return pipeline.lower(Graph(roots), machine=FIXTURE, backend="reference")


def test_bytes_predicted_are_bytes_counted(step: Lowered) -> None:
    bounded = 0
    for call, k in zip(step.plan.calls, step.certificate.kernels, strict=True):
        read, written, issued = counted(call.kernel)
        if k.exact:
            assert (k.bytes_read, k.bytes_written, k.bytes_issued) == (read, written, issued), call.kernel
        else:
            bounded += 1
            assert all(a.exact or a.verdict == "data-dependent" for a in k.addresses)
            assert k.bytes_read >= read and k.bytes_written >= written and k.bytes_issued == issued
    assert bounded <= 1  # the kernel that picks the label's probability
    assert step.certificate.exact == (bounded == 0)


def test_flops_are_the_products_and_little_else(step: Lowered) -> None:
    products = 2 * BATCH * (INPUTS * HIDDEN * 2 + HIDDEN * CLASSES * 3)  # no gradient of the input is asked for
    nodes = sum(OPS[n.op].flops * (n.src[0] if n.is_reduce else n).size for n in step.simplified)
    assert products < nodes <= step.certificate.flops < 1.1 * products


def test_memory_is_what_the_plan_says(step: Lowered) -> None:
    c, p = step.certificate, step.plan
    assert c.peak_bytes == sum(s.nbytes for s in p.slots[: p.given]) + p.arena_bytes and c.launches == len(p.calls)


def test_every_kernel_serves_lines_of_this_file(step: Lowered) -> None:
    phases = set()
    for call in step.plan.calls:
        shares = cost.shares(call.kernel, step.simplified.nodes, FIXTURE)
        assert sum(shares.values()) == pytest.approx(1.0) and all(s > 0 for s in shares.values())
        assert {file for file, _, _ in shares} == {__file__}
        phases |= {phase for _, _, phase in shares}
    assert {"forward", "backward"} <= phases


def test_what_a_kernel_has_just_written_is_near_however_much_the_program_touches() -> None:
    big, small = (Tensor(np.ones(n, np.float32)) for n in (1 << 20, 64))
    plan = pipeline.lower(Graph([(small * (big.sum() * 0.5).contiguous()).node]), machine=FIXTURE, backend="null").plan
    since = cost.reuse(plan)
    last, call = since[-1], plan.calls[-1]
    read = [p.name for p in call.kernel.params if p.name not in call.kernel.outputs]
    assert sorted(last[n] == 0 for n in read) == [False, True]  # the number is new, `small` was read before all of `big`
    assert max(last.values()) >= 4 << 20
    far, near = (
        timing.predict(call.kernel, FIXTURE, 8 << 20, since=s).limits["L3"] for s in (None, dict.fromkeys(last, 0))
    )  # fmt: skip
    assert far > near == 0
