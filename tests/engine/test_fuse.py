"""fuse and loops: how many kernels, what is kept where and why; and the nests compute what NumPy computes."""

from __future__ import annotations

import numpy as np
import pytest

from tinyengine import Tensor, jit
from tinyengine.choices import Choices
from tinyengine.machine import FIXTURE
from tinyengine.nn import functional as F
from tinyengine.node import Graph, Node
from tinyengine.pipeline import lower
from tinyengine.stages import loops
from tinyengine.stages.fusion.across import WHY, rows
from tinyengine.stages.fusion.cost import LAUNCH
from tinyengine.stages.fusion.groups import decision_text
from tinyengine.stages.keys import edge_keys

from .graphs import F32, buf, conv2d, ew, expand, fused, layernorm, matmul, num, op, permute, red, reshape, run_nests, softmax

rng = np.random.default_rng(0)


def rand(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def test_matmul_bias_relu_is_one_kernel() -> None:
    x, w, b = buf("x", 5, 7), buf("w", 7, 4), buf("b", 4)
    h = ew("maximum", ew("add", matmul(x, w), expand(reshape(b, 1, 4), 5, 4)), num(0, 5, 4))
    f = fused(h)
    assert len(f.groups) == 1
    a, c, d = rand(5, 7), rand(7, 4), rand(4)
    np.testing.assert_allclose(run_nests(f, x=a, w=c, b=d)[h], np.maximum(a @ c + d, 0), rtol=1e-5, atol=1e-6)


def test_softmax_is_one_kernel_with_a_row_in_cache() -> None:
    x = buf("x", 6, 33)
    y = softmax(x)
    f = fused(y)
    assert len(f.groups) == 1
    assert {v.op: f.groups[0].rows[v] for v in f.groups[0].at} == {"max": (), "exp": (1,), "sum": ()}
    (nest,) = loops.run(f)
    said = [(d.verdict, d.reason) for d in nest.decisions]
    assert [verdict for verdict, _ in said] == ["kept apart", "merged", "kept apart"]
    assert said[0][1] == said[2][1] == "the second needs what all iterations of the first give together"
    a = rand(6, 33)
    e = np.exp(a - a.max(1, keepdims=True))
    np.testing.assert_allclose(run_nests(f, x=a)[y], e / e.sum(1, keepdims=True), rtol=1e-5)


def test_layernorm_is_one_kernel() -> None:
    x = buf("x", 6, 33)
    y = layernorm(x)
    f = fused(y)
    assert len(f.groups) == 1
    a = rand(6, 33)
    np.testing.assert_allclose(
        run_nests(f, x=a)[y], (a - a.mean(1, keepdims=True)) / np.sqrt(a.var(1, keepdims=True) + 1e-5), rtol=1e-4, atol=1e-5
    )


def test_norm_over_the_leading_axis_puts_that_loop_inside() -> None:
    """Batch norm's shape: statistics per column."""
    x = buf("x", 40, 6)
    mean = ew("mul", red("sum", x, 0), num(1 / 40, 1, 6))
    y = ew("sub", x, expand(mean, 40, 6))
    f = fused(y)
    assert len(f.groups) == 1
    assert f.groups[0].order == (1, 0)
    a = rand(40, 6)
    np.testing.assert_allclose(run_nests(f, x=a)[y], a - a.mean(0), rtol=1e-5, atol=1e-6)


def test_padded_conv_masks_its_loads() -> None:
    x, w = buf("x", 2, 3, 6, 5), buf("w", 4, 3, 3, 3)
    y = conv2d(x, w, 1)
    f = fused(y)
    assert len(f.groups) == 1
    a, k = rand(2, 3, 6, 5), rand(4, 3, 3, 3)
    win = np.lib.stride_tricks.sliding_window_view(np.pad(a, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3))
    want = np.einsum("bchwij,ocij->bohw", win, k)
    got = run_nests(f, x=a, w=k)[f.groups[0].outputs[0]].reshape(want.shape)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_two_products_are_two_kernels_and_say_why() -> None:
    x, w, v = buf("x", 5, 7), buf("w", 7, 4), buf("v", 7, 4)
    f = fused(ew("add", matmul(x, w), matmul(x, v)))
    assert len(f.groups) == 2
    refused = [d for d in f.decisions if "a kernel holds one matrix product or convolution" in d.alternatives.values()]
    assert refused and refused[0].verdict.startswith("whole")


def test_one_update_kernel_for_a_parameter_and_its_state() -> None:
    """The shape of Adam: m and w are updated from one gradient, which is computed once."""
    x, g, m, w = buf("x", 7, 5), buf("g", 7, 4), buf("m", 5, 4), buf("w", 5, 4)
    grad = matmul(permute(x, 1, 0), g)
    m2 = ew("add", ew("mul", m, num(0.9, 5, 4)), ew("mul", grad, num(0.1, 5, 4)))
    w2 = ew("sub", w, ew("mul", m2, num(0.01, 5, 4)))
    f = fused(op("assign", (5, 4), m, m2), op("assign", (5, 4), w, w2))
    assert len(f.groups) == 1
    assert any(d.kind == "join" and d.verdict == "joined" for d in f.decisions)
    a, b, c, d = rand(7, 5), rand(7, 4), rand(5, 4), rand(5, 4)
    want_m = 0.9 * c + 0.1 * (a.T @ b)
    want_w = d - 0.01 * want_m
    run_nests(f, x=a, g=b, m=c, w=d)
    np.testing.assert_allclose(c, want_m, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(d, want_w, rtol=1e-4, atol=1e-5)


def test_reductions_over_the_same_rows_share_one_loop() -> None:
    x = buf("x", 6, 33)
    f = fused(red("sum", x, 1), red("max", x, 1))
    assert len(f.groups) == 1
    (nest,) = loops.run(f)
    assert nest.text().count("for reduce") == 1
    (merged,) = nest.decisions
    assert (merged.kind, merged.verdict) == ("merge", "merged")
    assert merged.numbers == {"iterations": 33, "reads": 2, "reads_shared": 1}
    a = rand(6, 33)
    got = {n.op: v for n, v in run_nests(f, x=a).items()}
    np.testing.assert_allclose(got["sum"][:, 0], a.sum(1), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(got["max"][:, 0], a.max(1))


def test_every_edge_has_a_decision_with_a_reason() -> None:
    x, w, b = buf("x", 5, 7), buf("w", 7, 4), buf("b", 4)
    y = softmax(ew("add", matmul(x, w), expand(reshape(b, 1, 4), 5, 4)))
    g = Graph([y])
    f = fused(y)
    decided = {d.subject for d in f.decisions if d.kind == "edge"}
    for n in g.nodes:
        for s in n.src:
            while s.is_movement:
                s = s.src[0]
            if s.op not in ("buffer", "const", "iota") and not n.is_movement:
                assert (f.graph.number[s], f.graph.number[n]) in decided
    assert all(d.reason for d in f.decisions)


@pytest.mark.parametrize("verdict", ["inline", "at loop", "whole"])
def test_a_choice_is_followed_or_refused_in_words(verdict: str) -> None:
    x = buf("x", 6, 33)
    y = softmax(x)
    e = y.src[0]
    f = fused(y, choices=Choices(fusion={edge_keys(e, fused(y).readers[e])[0]: verdict}))
    edge = next(d for d in f.decisions if d.subject[0] == f.graph.number[e])
    assert edge.verdict.startswith(verdict) and edge.reason == "chosen by hand"
    assert len(f.groups) == (2 if verdict == "whole" else 1), "whole by hand stands apart from its readers"
    a = rand(6, 33)
    ex = np.exp(a - a.max(1, keepdims=True))
    np.testing.assert_allclose(run_nests(f, x=a)[y], ex / ex.sum(1, keepdims=True), rtol=1e-5)


def test_an_illegal_choice_is_refused_with_its_reason() -> None:
    x = buf("x", 6, 33)
    y = softmax(x)
    s = y.src[1].src[0]
    f = fused(y, choices=Choices(fusion={edge_keys(s, fused(y).readers[s])[0]: "inline"}))
    edge = next(d for d in f.decisions if d.subject[0] == f.graph.number[s])
    assert not edge.verdict.startswith("inline") and "chosen by hand, but not legal" in edge.alternatives["inline"]


def test_gather_is_an_indexed_load_with_a_check() -> None:
    from tinyengine import dtypes

    table, idx = buf("table", 9, 4), buf("idx", 6, 4, dtype=dtypes.int32)
    y = op("gather", (6, 4), table, idx, arg=0)
    f = fused(y)
    (nest,) = loops.run(f)
    assert "check" in nest.text()
    t = rand(9, 4)
    i = rng.integers(0, 9, (6, 4)).astype(np.int32)
    np.testing.assert_array_equal(run_nests(f, table=t, idx=i)[y], np.take_along_axis(t, i, 0))
    i[2, 1] = 9
    with pytest.raises(IndexError, match="expected 0 <= index < 9"):
        run_nests(f, table=t, idx=i)


def test_scatter_add_accumulates_repeated_indices() -> None:
    from tinyengine import dtypes

    idx, v = buf("idx", 6, 4, dtype=dtypes.int32), buf("v", 6, 4)
    y = op("scatter_add", (3, 4), num(0, 3, 4), idx, v, arg=0, dtype=F32)
    f = fused(y)
    i, a = rng.integers(0, 3, (6, 4)).astype(np.int32), rand(6, 4)
    want = np.zeros((3, 4), np.float32)
    np.add.at(want, (i, np.arange(4)[None, :].repeat(6, 0)), a)
    np.testing.assert_allclose(run_nests(f, idx=i, v=a)[y], want, rtol=1e-5, atol=1e-6)


def test_an_update_that_reads_elsewhere_gets_memory_of_its_own() -> None:
    w = buf("w", 5, 5)
    f = fused(op("assign", (5, 5), w, permute(w, 1, 0)))
    (nest,) = loops.run(f)
    assert not nest.in_place and len(nest.kernel.params) == 2
    g = fused(op("assign", (5, 5), w, ew("mul", w, num(2, 5, 5))))
    (nest,) = loops.run(g)
    assert nest.in_place and len(nest.kernel.params) == 1


def test_constant_work_moves_out_of_the_loop() -> None:
    """A value that does not change in a loop is computed before it."""
    x, s = buf("x", 6, 33), buf("s", 1, 1)
    y = ew("mul", x, expand(ew("exp", s), 6, 33))
    f = fused(y)
    (nest,) = loops.run(f)
    lines = nest.text().splitlines()
    assert next(i for i, t in enumerate(lines) if "exp(" in t) < next(i for i, t in enumerate(lines) if "for i" in t)


def test_a_gather_does_not_stand_between_the_loops_of_a_product() -> None:
    """A residual that was gathered: stored first, so that the product keeps its register tile."""
    from tinyengine import dtypes

    table, idx = buf("table", 9, 4), buf("idx", 6, 4, dtype=dtypes.int32)
    x, w = buf("x", 6, 7), buf("w", 7, 4)
    gathered = op("gather", (6, 4), table, idx, arg=0)
    y = ew("add", gathered, matmul(x, w))
    f = fused(y)
    assert len(f.groups) == 2 and gathered in f.stored
    refused = next(d for d in f.decisions if d.kind == "edge" and d.subject[0] == f.graph.number[gathered])
    assert "data-dependent addresses" in refused.alternatives["inline"]
    t, i, a, b = rand(9, 4), rng.integers(0, 9, (6, 4)).astype(np.int32), rand(6, 7), rand(7, 4)
    want = a @ b + np.take_along_axis(t, i, 0)
    np.testing.assert_allclose(run_nests(f, table=t, idx=i, x=a, w=b)[y], want, rtol=1e-4, atol=1e-5)


def test_a_value_beside_padding_is_not_kept_in_loops_that_go_beyond_it() -> None:
    """Joined with others, a value has fewer rows than the kernel that joins them: computed or stored there at every row, it would
    be read and written outside of its memory."""
    a, b = buf("a", 6, 8), buf("b", 8, 5)
    y = ew("exp", ew("mul", matmul(a, b), num(0.1, 6, 5)))
    c = ew("mul", buf("c", 6, 5), num(3, 6, 5))
    upper, lower = (op("pad", (12, 5), x, arg=(w, (0, 0, 0))) for x, w in ((ew("exp", y), (0, 6, 0)), (c, (6, 0, 0))))
    z = ew("maximum", ew("add", upper, lower), num(0, 12, 5))
    f = fused(z, red("sum", y, 1))
    v, w, u = rand(6, 8), rand(8, 5), rand(6, 5)
    got = run_nests(f, a=v, b=w, c=u)
    want = np.exp(v @ w * 0.1)
    np.testing.assert_allclose(got[z], np.maximum(np.concatenate([np.exp(want), 3 * u]), 0), rtol=1e-5)
    np.testing.assert_allclose(got[f.graph.roots[1]].ravel(), want.sum(1), rtol=1e-5)


def test_a_sum_in_a_part_of_a_result_is_not_computed_beside_every_other_part() -> None:
    """Stacked sums: where a mask says 0 a load is left out, but the loops of a sum would run."""
    xs = [Tensor(np.ones((6, 40), np.float32)) for _ in range(3)]
    lowered = jit(lambda *xs: Tensor.stack([x.sum(1) for x in xs], dim=1)).lower(*xs)
    sums = sum(k.flops for k in lowered.certificate.kernels)
    assert len(lowered.kernels) == 1
    assert 3 * 6 * 40 <= sums < 2 * 3 * 6 * 40


def test_a_value_is_not_stored_by_a_kernel_that_goes_through_a_part_of_it() -> None:
    """Two rows at their own index, all rows in a product: what is stored has all rows."""
    y = buf("x", 40, 50)
    for _ in range(8):  # so dear that it is stored
        y = ew("exp", ew("mul", y, num(0.1, 40, 50)))
    part = ew("mul", op("slice", (20, 50), y, arg=((0, 1), (0, 1))), num(2, 20, 50))
    product = matmul(buf("w", 3, 40), y)
    f = fused(part, product)
    assert y in f.stored
    want = v = rand(40, 50)
    for _ in range(8):
        want = np.exp(want * np.float32(0.1))
    w = rand(3, 40)
    got = run_nests(f, x=v, w=w)
    np.testing.assert_allclose(got[part], 2 * want[:20], rtol=1e-5)
    np.testing.assert_allclose(got[product.src[0]].reshape(3, 50), w @ want, rtol=1e-4)


@pytest.mark.parametrize("read, stored", [(50, False), (30000, True)])
def test_of_a_computed_table_what_few_positions_read_is_computed_where_they_are(read: int, stored: bool) -> None:
    t, v, at = rand(40000, 6), rand(6), rng.integers(0, 40000, read).astype(np.int32)
    f = jit(lambda t, v, at: ((t * v).exp() - t.mean(1, keepdim=True))[at])
    xs = [Tensor(x) for x in (t, v, at)]
    lowered = f.lower(*xs)
    assert len(lowered.kernels) == 1 + stored
    bound = read * 6 * 25 + (40000 * 6 * 25 if stored else read * 12)
    assert lowered.certificate.flops <= bound
    want = (np.exp(t * v) - t.mean(1, keepdims=True))[at]
    np.testing.assert_allclose(f(*xs).numpy(), want, rtol=1e-5, atol=1e-6)


def test_the_loss_of_many_classes_reads_its_logits_and_stores_no_table() -> None:
    x, y = Tensor(rand(8, 30000)), Tensor(rng.integers(0, 30000, 8).astype(np.int32))
    lowered = jit(lambda x, y: x.cross_entropy(y)).lower(x, y)
    assert lowered.certificate.bytes_written < 200


def test_what_a_kept_row_is_computed_from_is_there_before_the_row() -> None:
    """The largest logit of each row is stored for the loss beside the sum of the exponentials, a row of which is kept."""
    x, y = Tensor(rand(512, 1000)), Tensor(rng.integers(0, 1000, 512).astype(np.int32))

    def step(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        w = x.detach().requires_grad_()
        loss = w.cross_entropy(y, ignore_index=-100)
        loss.backward()
        return loss, w.grad

    lowered = jit(step).lower(x, y)
    assert lowered.certificate.flops < 20 * x.numel(), "each largest one is found once, not for every element"
    loss, grad = jit(step)(x, y)
    at, a = y.numpy(), x.numpy().astype(np.float64)
    p = np.exp(a) / np.exp(a).sum(1, keepdims=True)
    np.testing.assert_allclose(loss.numpy(), -np.log(p[np.arange(512), at]).mean(), rtol=1e-5)
    np.testing.assert_allclose(grad.numpy(), (p - np.eye(1000)[at]) / 512, rtol=1e-4, atol=1e-8)


def test_what_comes_from_a_stored_activation_is_not_stored_beside_it() -> None:
    """Batch norm after a convolution, with gradients. The activation has several readers and a product below it, so it is stored
    whatever they do; the normalised values are a subtraction and a multiplication away from it, for the forward and the backward
    pass."""
    x, w, s = (Tensor(rand(*shape)) for shape in ((32, 8, 20, 20), (16, 8, 3, 3), (16,)))

    def step(x: Tensor, w: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        y = x.conv2d(w.requires_grad_(), padding=1).relu()
        mean, var = y.mean((0, 2, 3), keepdim=True), y.var((0, 2, 3), correction=0, keepdim=True)
        z = (y - mean) / (var + 1e-5).sqrt() * s.requires_grad_().reshape(1, 16, 1, 1)
        (z.max_pool2d(2) ** 2).sum().backward()
        assert w.grad is not None and s.grad is not None
        return w.grad, s.grad

    lowered = lower(jit(step).lower(x, w, s).graph, machine=FIXTURE, backend="reference")
    moved = lowered.certificate.bytes_read + lowered.certificate.bytes_written
    assert len(lowered.kernels) == 5 and moved < 9e6, "9 kernels move 16 MB where each value is priced as if it stood alone"
    f = lowered.fusion
    (activation,) = (n for n in f.stored if n.op == "maximum")
    said = f"from %{f.graph.number[activation]}, taken to be stored anyway"
    assert any(d.verdict == "inline" and said in d.reason for d in f.decisions)


def sums(n: int) -> tuple[np.ndarray, Node]:
    x = buf("x", n, n)
    return rand(n, n), ew("add", reshape(red("sum", x, 0), n), reshape(red("sum", x, 1), n))


@pytest.mark.parametrize("n, kernels", [(8, 1), (300, 2)])
def test_sums_of_rows_and_of_columns_share_a_kernel_only_where_they_are_small(n: int, kernels: int) -> None:
    """Vectors follow one of them; of the other each lane takes a line of memory."""
    x, y = sums(n)
    f = fused(y)
    assert len(f.groups) == kernels
    assert any(WHY in (d.reason, *d.alternatives.values()) or WHY in d.alternatives.get("inline", "") for d in f.decisions)
    np.testing.assert_allclose(run_nests(f, x=x)[y], x.sum(0) + x.sum(1), rtol=1e-4, atol=1e-4)


def test_small_kernels_are_kept_apart_with_what_one_launch_would_save() -> None:
    """Of kernels that take longer than their launch nothing is said."""
    small = [ew("add", buf(f"x{n}", n), num(1.0, n)) for n in (3, 5, 7)]
    f = fused(*small, ew("add", buf("x", 1 << 20), num(1.0, 1 << 20)))
    assert len(f.groups) == 4
    (said,) = (d for d in f.decisions if d.kind == "join")
    assert said.verdict == "kept apart" and said.subject == tuple(f.graph.number[n] for n in small)
    assert said.numbers == {"kernels": 3, "seconds_saved": 2 * LAUNCH} and "save at most 1 µs" in said.reason
    assert decision_text(said).startswith("%{}, %{}, %{}: kept apart".format(*said.subject)), "no arrows, which mean edges"
    alone = fused(small[0], ew("add", buf("x", 1 << 20), num(1.0, 1 << 20)))
    assert not [d for d in alone.decisions if d.kind == "join"]


def test_results_that_are_sums_of_rows_and_of_columns_are_kept_apart_in_words() -> None:
    x = buf("x", 300, 300)
    f = fused(red("sum", x, 0), red("sum", x, 1), red("max", x, 1))
    assert sorted(len(g.outputs) for g in f.groups) == [1, 2]
    (refused,) = (d for d in f.decisions if d.kind == "join" and d.verdict == "kept apart")
    assert refused.reason == WHY and refused.numbers["bytes_shared"] == 300 * 300 * 4


def test_what_is_computed_for_each_column_of_a_large_matrix_does_not_turn_its_loops() -> None:
    a, b = (np.random.default_rng(k).standard_normal(s).astype(np.float32) for k, s in enumerate([(512, 1024), (1024,)]))
    low = lower(Graph([(Tensor(a) + (Tensor(b) * 2).exp()).node]), machine=FIXTURE)
    columns, matrix = low.scheduled
    assert columns.params[-1].shape == (1024,) and matrix.schedule == ("parallel(i)", "vectorize(j, 16)")
    (said,) = [d for d in low.decisions if d.kind == "edge" and "walk down columns" in d.alternatives.get("at loop", "")]
    assert said.verdict == "whole" and said.numbers["seconds_whole"] < said.numbers["seconds_at_loop"]
    np.testing.assert_allclose(low.run()[0], a + np.exp(2 * b), rtol=1e-5, atol=1e-6)


def test_rows_are_not_stored_where_vectors_go_down_columns() -> None:
    """Contrastive loss: the gradient of the columns' softmax has a place for each label, whose sums want rows; the maximum and
    the sum of each column want vectors from one column to the next."""
    n = 512
    u, v = (Tensor(rand(n, 32), requires_grad=True) for _ in range(2))

    def step(labels: Tensor) -> list[Tensor | None]:
        z = u @ v.T
        loss = (F.cross_entropy(z, labels) + F.cross_entropy(z.T, labels)) / 2
        loss.backward()
        return [loss, u.grad, v.grad]

    low = lower(jit(step).lower(Tensor(np.arange(n, dtype=np.int32))).graph, machine=FIXTURE)
    stored = [g for g in low.fusion.groups if rows(g)]
    assert stored and not any(x.op == "max" for g in stored for x in g.values)
    assert WHY in {r for d in low.decisions for r in (d.reason, *d.alternatives.values())}
