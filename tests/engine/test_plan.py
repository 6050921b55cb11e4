"""plan: order, memory and updates in place; what is still needed is never overwritten."""

from __future__ import annotations

import numpy as np

from tinyengine.machine import FIXTURE
from tinyengine.node import Graph, Node
from tinyengine.origin import capture
from tinyengine.pipeline import Lowered, lower
from tinyengine.program import Program
from tinyengine.runtime.buffer import Buffer

from .graphs import F32, Array, ew, matmul, num, op, permute, red

rng = np.random.default_rng(0)
WHERE = (capture(),)


def held(a: Array) -> Node:
    """A buffer node over real memory that starts as `a`."""
    return Node("buffer", F32, a.shape, (), Buffer.of(a, F32), WHERE)


def traced(*roots: Node) -> Graph:
    """The graph with an origin on every node, as the front end makes them."""
    new: dict[Node, Node] = {}
    for n in Graph(roots).nodes:
        new[n] = n if n.op == "buffer" else n._replace(src=tuple(new[s] for s in n.src), origin=WHERE)
    return Graph(new[r] for r in roots)


def lowered(*roots: Node) -> Lowered:
    return lower(traced(*roots), machine=FIXTURE, backend="reference")


def overlaps(p: Program) -> list[tuple[str, str]]:
    """Pairs of temporaries that share bytes while both are alive."""
    alive: dict[int, list[int]] = {}
    for i, c in enumerate(p.calls):
        for s in c.slots:
            if p.slots[s].role == "temporary":
                alive.setdefault(s, [i, i])[1] = i
    bad = []
    for a, (f0, l0) in alive.items():
        for b, (f1, l1) in alive.items():
            sa, sb = p.slots[a], p.slots[b]
            if a < b and f0 <= l1 and f1 <= l0 and sa.offset < sb.offset + sb.nbytes and sb.offset < sa.offset + sa.nbytes:
                bad.append((sa.name, sb.name))
    return bad


def chain(n: int) -> tuple[Lowered, Array, list[Array]]:
    """A product of n matrices: every intermediate result is a temporary."""
    ms = [rng.standard_normal((12, 12)).astype(np.float32) / 4 for _ in range(n)]
    x = held(ms[0])
    want = ms[0]
    for m in ms[1:]:
        x = matmul(x, held(m))
        want = want @ m
    return lowered(x), want, ms


def test_temporaries_share_the_arena_by_lifetime() -> None:
    c, want, _ = chain(8)
    (got,) = c.run()
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    temporaries = [s for s in c.plan.slots if s.role == "temporary"]
    assert len(temporaries) == 6
    assert not overlaps(c.plan)
    assert c.plan.arena_bytes == 2 * -(-12 * 12 * 4 // 64) * 64, "two results are alive at a time, never three"
    assert all(s.offset % 64 == 0 for s in temporaries)


def test_update_in_place_runs_after_every_reader_of_the_old_content() -> None:
    a, b = rng.standard_normal((6, 6)).astype(np.float32), rng.standard_normal((6, 6)).astype(np.float32)
    w, x = held(a), held(b)
    update = op("assign", w.shape, w, ew("mul", w, num(2, 6, 6)))
    y = matmul(x, w)  # reads the old w
    c = lowered(update, y)
    new_w, got = c.run()
    np.testing.assert_allclose(got, b @ a, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(new_w, 2 * a)
    np.testing.assert_array_equal(w.arg.array.reshape(6, 6), a, err_msg="run() works on copies")
    assert next(s for s in c.plan.slots if s.role == "state")
    assert any(d.kind == "update" and d.verdict == "in place" for d in c.decisions)
    order = [d for d in c.decisions if d.kind == "order"]
    assert [(d.verdict, d.subject[0]) for d in order] == [(f"call {i}", x.kernel.name) for i, x in enumerate(c.plan.calls)]
    first, last = order
    assert first.alternatives == {last.subject[0]: f"it waits for {first.subject[0]}"} and not last.alternatives


def test_update_that_reads_elsewhere_is_copied() -> None:
    a = rng.standard_normal((5, 5)).astype(np.float32)
    w = held(a)
    c = lowered(op("assign", w.shape, w, permute(w, 1, 0)))
    (got,) = c.run()
    np.testing.assert_array_equal(got, a.T)
    assert any(d.kind == "update" and d.verdict == "copied" for d in c.decisions)


def test_old_content_is_saved_where_an_update_and_a_reader_wait_for_each_other() -> None:
    """Each is updated from a product with the other: whichever goes first destroys what the other needs."""
    a, b = rng.standard_normal((6, 6)).astype(np.float32), rng.standard_normal((6, 6)).astype(np.float32)
    w, v = held(a), held(b)
    new_w = op("assign", w.shape, w, ew("add", w, matmul(v, v)))
    new_v = op("assign", v.shape, v, ew("add", v, matmul(w, w)))
    c = lowered(new_w, new_v)
    got_w, got_v = c.run()
    np.testing.assert_allclose(got_w, a + b @ b, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got_v, b + a @ a, rtol=1e-4, atol=1e-5)
    assert any(d.verdict == "old content saved" for d in c.decisions)
    saves = next(d for d in c.decisions if d.kind == "order" and d.subject[0].startswith("save_"))
    assert "overwrites" in saves.reason and (saves.numbers["bytes_taken"], saves.numbers["bytes_freed"]) == (144, 0)


def test_reader_of_an_update_sees_the_new_content() -> None:
    a = rng.standard_normal((6, 6)).astype(np.float32)
    w = held(a)
    new_w = op("assign", w.shape, w, ew("mul", w, num(3, 6, 6)))
    total = red("sum", new_w, 0, 1)
    c = lowered(new_w, total)
    got_w, got = c.run()
    np.testing.assert_allclose(got_w, 3 * a, rtol=1e-6)
    np.testing.assert_allclose(got.reshape(()), (3 * a).sum(), rtol=1e-4)


def test_plan_is_pure() -> None:
    c, _, _ = chain(4)
    assert c.plan == lower(c.graph, machine=FIXTURE, backend="reference").plan
