"""The certificate against what an execution touches: distinct bytes and all accesses, counted by tracing every address."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine import graphs as g
from tinyengine import cost, dtypes, footprint
from tinyengine.backends.reference import trace
from tinyengine.choices import DEFAULT
from tinyengine.loopnest import (
    Accumulate,
    Alloc,
    Buf,
    Kernel,
    Let,
    Loop,
    Store,
    apply,
    const,
    index,
    load,
    name,
    ramp,
    splat,
    var,
)  # fmt: skip
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph, Node
from tinyengine.ops import OPS
from tinyengine.origin import here
from tinyengine.positions import LIMIT, Count, Set, distinct, union
from tinyengine.program import Call, Program, Slot
from tinyengine.stages import loops, schedule

F32, I32 = dtypes.float32, dtypes.int32


def kernels(*roots: Node, scheduled: bool = False) -> list[Kernel]:
    nests = [n.kernel for n in loops.run(g.fused(*roots))]
    return [schedule.run(k, DEFAULT, FIXTURE)[0] for k in nests] if scheduled else nests


def counted(kernel: Kernel) -> tuple[int, int, int]:
    """(distinct bytes read, distinct bytes written, bytes of all accesses), by running the kernel and tracing every address.
    An Accumulate reads what it writes."""
    rng = np.random.default_rng(0)
    arrays = {p.name: rng.integers(0, 3, p.shape).astype(p.dtype.numpy) for p in kernel.params}
    size = {p.name: p.dtype.itemsize for p in kernel.params}
    read: dict[str, set[int]] = {}
    written: dict[str, set[int]] = {}
    issued = 0
    for t in trace(kernel, arrays):
        both = t.write and isinstance(t.stmt, Accumulate)
        if not t.write or both:
            read.setdefault(t.buffer, set()).update(t.elements.tolist())
        if t.write:
            written.setdefault(t.buffer, set()).update(t.elements.tolist())
        issued += len(t.elements) * size[t.buffer] * (2 if both else 1)
    return sum(len(e) * size[b] for b, e in read.items()), sum(len(e) * size[b] for b, e in written.items()), issued


def arange(n: int, m: int, axis: int) -> Node:
    return Node("iota", I32, (n, m), (), axis, ())


def sliced(x: Node, *arg: tuple[int, int], shape: tuple[int, ...]) -> Node:
    return g.op("slice", shape, x, arg=arg)


def padded(x: Node, *arg: tuple[int, int, int]) -> Node:
    shape = tuple(lo + hi + d + i * (d - 1) for (lo, hi, i), d in zip(arg, x.shape, strict=True))
    return g.op("pad", shape, x, arg=arg)


X = g.buf("x", 12, 20)
PROGRAMS: dict[str, Node] = {
    "matmul": g.matmul(g.buf("x", 9, 21), g.buf("w", 21, 18)),
    "matmul of a transpose": g.matmul(g.permute(g.buf("x", 21, 9), 1, 0), g.buf("w", 21, 18)),
    "outer product": g.ew("mul", g.expand(g.buf("a", 7, 1), 7, 33), g.expand(g.buf("b", 1, 33), 7, 33)),
    "softmax": g.softmax(X),
    "layernorm": g.layernorm(X),
    "conv with padding": g.conv2d(g.buf("x", 2, 3, 6, 7), g.buf("w", 4, 3, 3, 3), 1),
    "conv without padding": g.conv2d(g.buf("x", 1, 2, 6, 7), g.buf("w", 3, 2, 3, 2), 0),
    "broadcast": g.ew("add", X, g.expand(g.buf("b", 1, 20), 12, 20)),
    "transpose": g.ew("add", g.permute(X, 1, 0), g.buf("y", 20, 12)),
    "a value and its transpose": g.ew("add", g.buf("s", 9, 9), g.permute(g.buf("t", 9, 9), 1, 0)),
    "reshape that splits rows": g.red("sum", g.reshape(X, 15, 16), 1),
    "strided slice": g.ew("exp", sliced(X, (1, 2), (2, 3), shape=(5, 6))),
    "two slices of one buffer": g.ew("sub", sliced(X, (0, 1), (1, 1), shape=(12, 19)), sliced(X, (0, 1), (0, 1), shape=(12, 19))),
    "pad with holes": padded(X, (1, 2, 1), (0, 3, 2)),
    "flip": g.ew("add", X, g.op("flip", X.shape, X, arg=(1,))),
    "causal mask": g.ew("where", g.ew("lt", arange(12, 20, 1), arange(12, 20, 0)), X, g.num(0.0, 12, 20)),
    "full sum": g.red("sum", X, 0, 1),
    "column maximum": g.red("max", X, 0),
    "integers": g.ew("add", g.buf("i", 50, dtype=dtypes.int16), g.num(1, 50, dtype=dtypes.int16)),
}  # fmt: skip


@pytest.mark.parametrize("scheduled", [False, True], ids=["as made", "scheduled"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_bytes_are_those_that_an_execution_touches(program: str, scheduled: bool) -> None:
    for k in kernels(PROGRAMS[program], scheduled=scheduled):
        c = cost.kernel_cost(k, FIXTURE)
        assert (c.bytes_read, c.bytes_written, c.bytes_issued) == counted(k), k
        assert c.exact and all(a.verdict == "static" and a.exact for a in c.addresses)


def test_known_numbers_of_a_matmul() -> None:
    (k,) = kernels(PROGRAMS["matmul"])
    c = cost.kernel_cost(k, FIXTURE)
    assert c.flops == 2 * 9 * 21 * 18
    assert c.bytes_read == 4 * (9 * 21 + 21 * 18) and c.bytes_written == 4 * 9 * 18
    assert c.bytes_issued == 4 * (2 * 9 * 21 * 18 + 9 * 18)


def asked(root: Node) -> int:
    """FLOPs of the graph by the op table, each node computed once."""
    return sum(OPS[n.op].flops * (n.src[0] if n.is_reduce else n).size for n in Graph([root]))


@pytest.mark.parametrize("program", [p for p in PROGRAMS if p != "layernorm"])
def test_flops_are_those_of_the_graph_when_nothing_is_computed_twice(program: str) -> None:
    assert sum(cost.flops(k) for k in kernels(PROGRAMS[program])) == asked(PROGRAMS[program])


def test_recomputation_counts() -> None:
    """layernorm's kernel computes x - mean for the variance and once more for the result: 12 * 20 subtractions."""
    (k,) = kernels(PROGRAMS["layernorm"])
    assert cost.flops(k) == asked(PROGRAMS["layernorm"]) + 12 * 20


def test_arithmetic_on_positions_is_no_flop() -> None:
    x = g.ew("exp", g.buf("x", 6, 7))
    (k,) = kernels(g.ew("neg", padded(x, (1, 1, 0), (2, 0, 1))))
    assert any(isinstance(s, Let) and s.value.op == "where" for s, _ in footprint.statements(k.body))
    assert cost.flops(k) == 2 * 8 * 15  # exp and neg; choosing by position moves, and computes nothing


def test_padded_lanes_are_issued_and_not_asked_for() -> None:
    (made,), (scheduled,) = kernels(PROGRAMS["matmul"]), kernels(PROGRAMS["matmul"], scheduled=True)
    c = cost.kernel_cost(scheduled, FIXTURE, made)
    assert c.flops == 2 * 9 * 21 * 18 <= c.flops_issued
    assert cost.kernel_cost(kernels(g.softmax(X))[0], FIXTURE).flops_expanded > cost.flops(kernels(g.softmax(X))[0])


def test_a_gather_is_flagged_and_bounded() -> None:
    index_ = g.expand(g.buf("at", 6, 1, dtype=I32), 6, 8)
    (k,) = kernels(Node("gather", F32, (6, 8), (g.buf("t", 10, 8), index_), 0, ()))
    c = cost.kernel_cost(k, FIXTURE)
    (dynamic,) = [a for a in c.addresses if a.verdict == "data-dependent"]
    assert dynamic.buffer == "t" and dynamic.reason == "the index reads at" and not c.exact
    assert dynamic.elements == 48  # how many is known, where is not
    read, written, _ = counted(k)
    assert read <= c.bytes_read == 4 * (6 * 8 + 6) and written == c.bytes_written
    certificate = cost.certify(program_of(k), FIXTURE)
    assert not certificate.static and "t, because the index reads at" in certificate.text() and "≤" in certificate.text()


def test_a_scatter_is_flagged_and_bounded() -> None:
    index_ = g.expand(g.buf("at", 6, 1, dtype=I32), 6, 8)
    (k,) = kernels(Node("scatter_add", F32, (10, 8), (g.num(0.0, 10, 8), index_, g.buf("v", 6, 8)), 0, ()))
    c = cost.kernel_cost(k, FIXTURE)
    read, written, issued = counted(k)
    assert c.bytes_written == written == 320 and c.bytes_issued == issued and read <= c.bytes_read
    assert {(a.buffer, a.write) for a in c.addresses if a.verdict != "static"} == {(k.outputs[0], False), (k.outputs[0], True)}


# ---- hand-written nests: unions, masks, vectors, bounds


def nest(*body: object, n: int = 100) -> Kernel:
    x, y = Buf("x", F32, (n,)), Buf("y", F32, (n,))
    return Kernel("k", (x, y), body, ("y",))  # type: ignore[arg-type]


def copy(i: object, n: int, lanes: int = 1, mask: object = None) -> Store:
    x, y = Buf("x", F32, (n,)), Buf("y", F32, (n,))
    return Store(y, (i,), load(x, (i,), mask), mask)  # type: ignore[arg-type]


def test_vectors_with_a_masked_tail() -> None:
    i = var("i", 0, 99)
    whole = Loop(i, 0, 96, 16, (copy(ramp(i, 16), 100),))
    at = ramp(index(96), 16)
    tail = copy(at, 100, 16, apply("lt", (at, splat(index(100), 16))))
    c = cost.kernel_cost(nest(whole, tail), FIXTURE)
    assert (c.bytes_read, c.bytes_written, c.bytes_issued, c.exact) == (400, 400, 800, True)
    assert counted(nest(whole, tail)) == (400, 400, 800)


def test_a_huge_elementwise_kernel_is_counted_in_closed_form() -> None:
    n = 1 << 26
    p, i = var("p", 0, 1023), var("i", 0, (1 << 16) - 1)
    at = apply("add", (apply("mul", (p, index(1 << 16))), i))
    body = Loop(p, 0, 1024, 1, (Loop(i, 0, 1 << 16, 16, (copy(ramp(at, 16), n),)),), "parallel")
    c = cost.kernel_cost(nest(body, n=n), FIXTURE)
    assert (c.bytes_read, c.bytes_written, c.bytes_issued, c.exact) == (4 * n, 4 * n, 8 * n, True)


def test_what_is_too_large_to_list_is_a_bound_and_says_so() -> None:
    n = LIMIT * 4
    i = var("i", 0, n - 1)
    scrambled = apply("mod", (apply("mul", (i, i)), index(n)))
    x, y = Buf("x", F32, (n,)), Buf("y", F32, (n,))
    k = Kernel("k", (x, y), (Loop(i, 0, n, 1, (Store(y, (i,), load(x, (scrambled,))),)),), ("y",))
    c = cost.kernel_cost(k, FIXTURE)
    assert c.bytes_read == 4 * n and c.bytes_written == 4 * n and not c.exact


def test_a_mask_that_never_holds_touches_nothing() -> None:
    i = var("i", 0, 9)
    k = nest(Loop(i, 0, 10, 1, (copy(i, 100, 1, apply("lt", (i, index(0)))),)))
    c = cost.kernel_cost(k, FIXTURE)
    assert (c.bytes_read, c.bytes_written, c.bytes_issued, c.exact) == (0, 0, 0, True)


def test_a_let_stands_in_for_its_position() -> None:
    i = var("i", 0, 9)
    body = (Let("at", apply("mul", (i, index(3)))), copy(name("at", i.dtype), 100))
    c = cost.kernel_cost(nest(Loop(i, 0, 10, 1, body)), FIXTURE)
    assert (c.bytes_read, c.bytes_issued, c.exact) == (40, 80, True) and c.flops == 0


def test_registers_and_local_memory_are_no_global_bytes() -> None:
    i = var("i", 0, 9)
    acc, row = Buf("acc", F32, (), "register"), Buf("row", F32, (10,), "local")
    x, y = Buf("x", F32, (100,)), Buf("y", F32, (100,))
    k = nest(
        Alloc(acc, 0.0), Alloc(row, None), Loop(i, 0, 10, 1, (Store(row, (i,), load(x, (i,))),)),
        Loop(i, 0, 10, 1, (Accumulate(acc, (), "add", load(row, (i,))),), "serial", True), Store(y, (index(0),), load(acc, ())),
    )  # fmt: skip
    c = cost.kernel_cost(k, FIXTURE)
    assert (c.bytes_read, c.bytes_written, c.bytes_issued, c.flops) == (40, 4, 44, 10)


@settings(max_examples=120, derandomize=True, deadline=None)
@given(st.data())
def test_distinct_positions_of_random_affine_accesses(data: st.DataObject) -> None:
    """Several loads of a two-dimensional buffer with random coefficients, starts and masks, against listing them all."""
    buf = Buf("x", F32, (40, 40))
    i, j = var("i", 0, 4), var("j", 0, 3)
    loops_ = (Loop(i, 0, 5, 1, ()), Loop(j, 0, 4, 1, ()))
    found, listed = [], set()
    for _ in range(data.draw(st.integers(1, 4))):
        c = [data.draw(st.integers(0, 4)) for _ in range(4)]
        start = [data.draw(st.integers(0, 3)) for _ in range(2)]
        limit = data.draw(st.one_of(st.none(), st.integers(0, 30)))
        times = [apply("mul", (v, index(c[k]))) for k, v in enumerate((i, j, i, j))]
        at = tuple(apply("add", (apply("add", (times[2 * k], times[2 * k + 1])), index(start[k]))) for k in range(2))
        mask = None if limit is None else apply("lt", (at[0], index(limit)))
        stmt = Let("v", load(buf, at, mask))
        found.append(footprint.Access(buf, False, at, mask, 1, loops_, stmt, ""))
        for a in range(5):
            for b in range(4):
                p = [c[2 * k] * a + c[2 * k + 1] * b + start[k] for k in range(2)]
                if limit is None or p[0] < limit:
                    listed.add(tuple(p))
    assert distinct(buf, [footprint.box(a) for a in found]) == Count(len(listed), True)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12), st.integers(1, 4)), min_size=2, max_size=4))
def test_unions_of_progressions(parts: list[tuple[int, int, int]]) -> None:
    sets = [range(a, a + n * s, s) for a, n, s in parts]
    whole: Set | None = range(0)
    for s in sets:
        assert whole is not None
        whole = union(whole, s)
    assert whole is not None and sorted(int(v) for v in whole) == sorted(set().union(*sets))


# ---- programs, time, shares


def program_of(*ks: Kernel, arena: int = 0) -> Program:
    slots: list[Slot] = []
    calls: list[Call] = []
    for k in ks:
        at = []
        for p in k.params:
            at.append(len(slots))
            slots.append(Slot(p.name, p.dtype, p.shape, "output" if p.name in k.outputs else "input"))
        calls.append(Call(k, tuple(at)))
    return Program("p", tuple(slots), tuple(calls), arena)


def test_a_program_adds_up_its_kernels() -> None:
    a, b = kernels(PROGRAMS["softmax"])[0], kernels(PROGRAMS["matmul"])[0]
    c = cost.certify(program_of(a, b, b, arena=4096), FIXTURE)
    one, two = cost.kernel_cost(a, FIXTURE), cost.kernel_cost(b, FIXTURE)
    assert c.launches == 3 and c.flops == one.flops + 2 * two.flops and c.bytes_read == one.bytes_read + 2 * two.bytes_read
    given_ = sum(p.nbytes for k in (a, b, b) for p in k.params)
    assert c.given_bytes == given_ and c.peak_bytes == given_ + 4096 and c.exact and c.static
    assert c.seconds == pytest.approx(FIXTURE.start_seconds + sum(k.seconds for k in c.kernels))
    assert a.name in c.text() and "every address is known before the run" in c.text() and "fixture peaks" in c.text()
    assert c.text() == cost.certify(program_of(a, b, b, arena=4096), FIXTURE).text()


def stream(n: int, kind: str, lanes: int = 16) -> Kernel:
    p, i = var("p", 0, 63), var("i", 0, n // 64 - 1)
    at = apply("add", (apply("mul", (p, index(n // 64))), i))
    return nest(Loop(p, 0, 64, 1, (Loop(i, 0, n // 64, lanes, (copy(ramp(at, lanes) if lanes > 1 else at, n),)),), kind), n=n)


def test_prediction_follows_the_machine() -> None:
    big = stream(1 << 26, "parallel")
    c = cost.kernel_cost(big, FIXTURE)
    assert c.bound == "memory" and c.seconds == pytest.approx(2**28 / 82e9 + 2**28 / 69e9, rel=0.01)
    half = {**FIXTURE.read_all, "dram": 41e9}
    slow = cost.kernel_cost(big, replace(FIXTURE, read_all=half, write_all=34.5e9))
    assert slow.seconds == pytest.approx(2 * c.seconds, rel=0.01)
    small = cost.kernel_cost(stream(1 << 10, "serial"), FIXTURE)
    assert small.seconds < 1e-6 and small.bound != "memory"
    scalar, vector = (cost.kernel_cost(stream(1 << 16, "serial", lanes), FIXTURE).limits["compute"] for lanes in (1, 16))
    assert scalar > 8 * vector


def test_a_loop_of_one_iteration_costs_nothing() -> None:
    i, one = var("i", 0, 1023), var("one", 0, 0)
    body = (copy(i, 1024),)
    plain = nest(Loop(i, 0, 1024, 1, body, "serial"), n=1024)
    inside = nest(Loop(i, 0, 1024, 1, (Loop(one, 0, 1, 1, body, "serial"),), "serial"), n=1024)
    assert cost.kernel_cost(inside, FIXTURE).limits == cost.kernel_cost(plain, FIXTURE).limits


def test_vectors_take_two_slots_where_a_core_does_them_in_halves() -> None:
    slots = {}
    for hertz in (0.0, 4e9, 8e9):  # of 256 GFLOP/s: 64 and 32 in a cycle
        m = replace(FIXTURE, hertz=hertz)
        scalar, vector = (cost.timing.core(stream(1 << 16, "serial", lanes), m).root.slots() for lanes in (1, 16))
        slots[hertz] = (m.unit_bytes, scalar, vector)
    assert slots[0.0] == slots[4e9] and slots[8e9][0] == 32
    assert slots[8e9][1] == slots[4e9][1] and slots[8e9][2] > 1.4 * slots[4e9][2]


def test_rows_that_data_pick_are_whole_lines() -> None:
    at, t = g.expand(g.buf("at", 512, 1, dtype=I32), 512, 32), g.buf("t", 4096, 32)
    (k,) = kernels(Node("gather", F32, (512, 32), (t, at), 0, ()))
    limits = cost.kernel_cost(k, FIXTURE).limits
    assert limits["L2"] < 512 * 32 * 1e-9 / 4  # two lines a row, not one for each element


def test_a_lone_accumulator_waits_for_itself() -> None:
    i = var("i", 0, 4095)
    x, y = Buf("x", F32, (4096,)), Buf("y", F32, (4096,))

    def total(accumulators: int) -> Kernel:
        acc = Buf("acc", F32, (accumulators,), "register")
        r = var("r", 0, accumulators - 1)
        at = ramp(apply("add", (i, apply("mul", (r, index(16))))), 16)
        body = Loop(r, 0, accumulators, 1, (Accumulate(acc, (r,), "add", load(x, (at,))),), "unroll")
        loop = Loop(i, 0, 4096, 16 * accumulators, (body,), "serial", True)
        return nest(Alloc(acc, 0.0), loop, Store(y, (index(0),), const(0.0, F32)), n=4096)

    one, four = (cost.kernel_cost(total(n), FIXTURE).limits["compute"] for n in (1, 4))
    assert one > 2.5 * four


def test_short_loops_turn_while_a_chain_waits() -> None:
    """Rows of two vectors, added into one register: the additions wait for each other, and the loops' own instructions do not
    add to that."""
    rows = 256
    x, y, acc = Buf("x", F32, (rows, 2, 16)), Buf("y", F32, (16,)), Buf("acc", F32, (16,), "register")
    r, v = var("r", 0, rows - 1), var("v", 0, 1)
    lanes = ramp(index(0), 16)
    inner = Loop(v, 0, 2, 1, (Accumulate(acc, (lanes,), "add", load(x, (r, v, lanes))),), "serial", True)
    k = nest(Alloc(acc, 0.0), Loop(r, 0, rows, 1, (inner,), "serial", True), Store(y, (lanes,), load(acc, (lanes,))), n=16)
    assert cost.timing.core(k, FIXTURE).root.cycles() < 1.1 * 2 * rows * cost.timing.LATENCY["add"]


def test_a_remainder_of_floats_is_counted_as_it_is_expanded() -> None:
    remainder, division = (cost.timing.instructions(op, F32) for op in ("mod", "div"))
    assert remainder > 4 * division  # four rounds, see `expand`
    assert cost.timing.instructions("mod", I32) < remainder


def test_error_bars_grow_with_what_is_unknown() -> None:
    (k,) = kernels(PROGRAMS["matmul"])
    index_ = g.expand(g.buf("at", 6, 1, dtype=I32), 6, 8)
    (gather,) = kernels(Node("gather", F32, (6, 8), (g.buf("t", 10, 8), index_), 0, ()))
    sure, unsure = cost.kernel_cost(k, FIXTURE).error, cost.kernel_cost(gather, FIXTURE).error
    assert 0 < sure < unsure and cost.kernel_cost(k, replace(FIXTURE, spread=0.6)).error > sure


def lined(root: Node, lines: dict[str, int]) -> Graph:
    """The graph with an origin per node, whose line is by op."""
    base = here()[0]
    new: dict[Node, Node] = {}
    for n in Graph([root]):
        o = base._replace(module=f"line{lines.get(n.op, 0)}")
        new[n] = n._replace(src=tuple(new[s] for s in n.src), origin=(o,))
    return Graph([new[root]])


def test_shares_add_up_to_one_and_go_to_those_who_compute() -> None:
    x, b = g.buf("x", 64, 64), g.buf("b", 64, 64)
    graph = lined(g.ew("exp", g.ew("add", g.matmul(x, g.buf("w", 64, 64)), b)), {"sum": 1, "mul": 1, "add": 2, "exp": 3})
    (made,) = [n.kernel for n in loops.run(g.fused(*graph.roots))]
    for k in (made, schedule.run(made, DEFAULT, FIXTURE)[0]):
        shares = cost.shares(k, graph.nodes, FIXTURE, lambda o: o.module)
        assert math.fsum(shares.values()) == pytest.approx(1.0)
        assert set(shares) == {"line1", "line2", "line3"}  # not line0, where the inputs were made
        assert shares["line1"] > shares["line3"] > shares["line2"] > 0
        assert sum(cost.node_weights(k, FIXTURE).values()) == pytest.approx(cost.kernel_cost(k, FIXTURE).seconds)


def test_a_united_node_is_split_over_its_lines_and_phases() -> None:
    x = g.buf("x", 64)
    graph = Graph([g.ew("exp", x)])
    o = here()[0]
    both = [o._replace(phase="forward"), o._replace(phase="backward"), o._replace(phase="forward", module="elsewhere")]
    nodes = [n._replace(origin=tuple(both)) for n in graph.nodes]
    (k,) = [n.kernel for n in loops.run(g.fused(*graph.roots))]
    shares = cost.shares(k, nodes, FIXTURE)
    assert shares == {(o.file, o.line, "forward"): 0.5, (o.file, o.line, "backward"): 0.5}
