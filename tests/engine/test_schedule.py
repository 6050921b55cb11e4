"""The schedule stage: the engine's own schedules keep the meaning and the spec, and say what was chosen and refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.engine import forms
from tests.engine.forms import arrays, assert_same, outputs
from tinyengine import Tensor, dtypes, spec
from tinyengine.backends.graph_eval import evaluate
from tinyengine.choices import DEFAULT, Choices
from tinyengine.loopnest import Accumulate, Alloc, Expr, Kernel, Let, Loop, Stmt, Store, load_mask, stmt_exprs, subexprs, walk
from tinyengine.machine import FIXTURE, Machine
from tinyengine.node import Graph
from tinyengine.pipeline import Lowered, lower
from tinyengine.stages import schedule
from tinyengine.stages.primitives.apply import apply
from tinyengine.stages.primitives.nest import ScheduleError, loops

NEON = replace(FIXTURE, name="neon", vector_bytes=16, threads=4)
AVX2 = replace(FIXTURE, name="avx2", vector_bytes=32, vector_registers=16)
LARGER: dict[str, Kernel] = {
    "matmul": forms.matmul(70, 150, 33),
    "matmul transposed": forms.matmul(40, 100, 30, True),
    "gram": forms.gram(70, 40),
    "narrow matmul": forms.matmul(96, 10, 40),
    "one row": forms.matmul(1, 200, 40),
    "softmax": forms.softmax(64, 300),
    "elementwise": forms.elementwise(64, 700),
    "bias": forms.elementwise(90, 130, True),
    "outer sum": forms.outer_sum(90, 300),
    "full sum": forms.full_sum(60, 90),
    "conv": forms.conv(4, 4, 8, 20),
    "wide conv": forms.conv(2, 3, 32, 13, 5, 2),
    "update": forms.update(40_000),
    "weights": forms.weight_gradient(6, 8, 32, 12, 3),
    "weights of groups": forms.weight_gradient(5, 4, 16, 10, 3, groups=3),
    "few weights": forms.weight_gradient(5, 1, 20, 10, 3),
    "gather": forms.gather(60, 64, 5),
    "scatter": forms.scatter(90, 7),
}


@pytest.mark.parametrize("machine", [FIXTURE, AVX2, NEON], ids=lambda m: m.name[:7])
@pytest.mark.parametrize("form", list(LARGER))
def test_the_engines_own_schedule_is_right(form: str, machine: object) -> None:
    k = LARGER[form]
    out, decisions = schedule.run(k, DEFAULT, machine)  # type: ignore[arg-type]
    spec.check("schedule", schedule.SPEC, out)
    assert_same(k, out)
    assert decisions and all(d.stage == "schedule" and d.subject[0] == k.name and d.reason for d in decisions)
    done = [d.verdict for d in decisions if d.verdict not in ("refused", "none", "undone")]
    assert done == list(out.schedule)


@pytest.mark.parametrize("form", list(forms.FORMS))
def test_small_kernels_too(form: str) -> None:
    k = forms.FORMS[form]
    out, _ = schedule.run(k, DEFAULT, FIXTURE)
    spec.check("schedule", schedule.SPEC, out)
    assert_same(k, out)
    assert out.parallel is None  # a second thread would cost more than it brings


@pytest.mark.parametrize("form", list(LARGER))
def test_the_readable_form_is_scalar(form: str) -> None:
    out, _ = schedule.run(LARGER[form], Choices(vector_width=1), FIXTURE)
    assert_same(LARGER[form], out)
    for s in walk(out.body):
        if isinstance(s, (Let, Store, Accumulate)):
            assert s.value.lanes == 1


def test_the_stage_is_pure() -> None:
    k = LARGER["conv"]
    assert schedule.run(k, DEFAULT, FIXTURE) == schedule.run(k, DEFAULT, FIXTURE)


def _unrolled(body: tuple[Stmt, ...]) -> int:
    """Statements in the machine code."""
    return sum((s.trips if s.kind == "unroll" else 1) * _unrolled(s.body) if isinstance(s, Loop) else 1 for s in body)


def test_code_stays_small() -> None:
    big = [
        forms.matmul(512, 512, 512),
        forms.matmul(509, 1000, 300, True),
        forms.conv(32, 32, 64, 32),
        forms.conv(8, 3, 32, 31, 5, 0),
    ]
    for k in [*big, *LARGER.values()]:
        out, _ = schedule.run(k, DEFAULT, FIXTURE)
        assert _unrolled(out.body) < 700, out.text()  # about 20 ms of code generation


def test_a_matrix_product_gets_the_register_tile() -> None:
    out, decisions = schedule.run(forms.matmul(480, 512, 256), DEFAULT, FIXTURE)
    acc = [s.buf for s in walk(out.body) if isinstance(s, Alloc) and s.buf.space == "register"]
    assert [b.shape for b in acc] == [(6, 64)]  # 6 rows of 4 vectors: 6 * 4 + 4 + 1 <= 32 registers
    assert out.parallel is not None and out.parallel.name == "jo" and out.parallel.trips == 8
    tile = next(d for d in decisions if d.kind == "register tile")
    assert tile.numbers["registers"] == 29 and tile.numbers["mr"] == 6 and tile.numbers["nv"] == 4
    out, _ = schedule.run(forms.matmul(480, 512, 256), DEFAULT, AVX2)
    acc = [s.buf for s in walk(out.body) if isinstance(s, Alloc) and s.buf.space == "register"]
    assert [b.shape for b in acc] == [(6, 16)]  # 6 * 2 + 2 + 1 <= 16


def test_operands_are_copied_where_it_pays() -> None:
    def packs(k: Kernel) -> list[str]:
        return [p for p in schedule.run(k, DEFAULT, FIXTURE)[0].schedule if p.startswith("pack")]

    assert packs(forms.matmul(512, 512, 512)) == ["pack(w, at=jo)"]
    assert packs(forms.matmul(512, 512, 512, True)) == ["pack(w, at=jo, axes=(1, 0))"]
    assert packs(forms.gram(512, 512)) == ["pack(x, at=jo, axes=(1, 0), of=ji)"]  # the rows are read as they lie
    assert packs(forms.matmul(64, 128, 64)) == []  # fits into the cache as it is
    assert packs(forms.matmul(4, 512, 512)) == []  # four rows do not pay for a copy
    assert packs(forms.conv(4, 16, 32, 32)) == ["pack(x, at=b)"]


def test_a_matrix_times_itself_has_a_copy_for_each_of_the_two() -> None:
    """x.T @ x: columns of pages apart for the rows of the result, pieces of rows for its vectors."""
    a = np.random.default_rng(0).standard_normal((640, 600)).astype(np.float32)
    x = Tensor(a)
    c = lower(Graph([(x.T @ x).node]), DEFAULT, FIXTURE, "llvm")
    of = [p.rpartition("=")[2] for p in c.scheduled[0].schedule if p.startswith("pack(")]
    assert len(of) == 2 and len(set(of)) == 2
    np.testing.assert_allclose(c.run()[0], a.T.astype(np.float64) @ a, rtol=2e-4, atol=2e-4 * 640)


def test_gradients_of_weights_go_image_by_image() -> None:
    out, decisions = schedule.run(forms.weight_gradient(128, 32, 64, 24, 5), DEFAULT, FIXTURE)
    assert "pack(g, at=b, axes=(0, 2, 3, 1))" in out.schedule and "partial(acc, at=b)" in out.schedule
    assert [s.buf.space for s in walk(out.body) if isinstance(s, Alloc) and s.buf.name == "acc"] == ["local"]
    assert next(d for d in decisions if d.kind == "outer sum").numbers["images"] == 128


def test_gradients_of_the_weights_of_groups_have_the_tile_of_one() -> None:
    alone, groups = (schedule.run(forms.weight_gradient(16, 16, 16, 28, 3, n), DEFAULT, FIXTURE)[0] for n in (1, 4))
    assert "pack(g, at=b, axes=(0, 2, 3, 1))" in groups.schedule and groups.schedule[-1] == "parallel(q)"

    def tiles(k: Kernel) -> list[tuple[int, ...]]:
        return sorted(s.buf.shape for s in walk(k.body) if isinstance(s, Alloc) and s.buf.space == "register")

    assert tiles(alone) == tiles(groups)


def test_gradients_of_weights_in_pieces_of_large_images_and_shared_by_lanes() -> None:
    def said(k: Kernel) -> tuple[str, ...]:
        return schedule.run(k, DEFAULT, FIXTURE)[0].schedule

    large = said(forms.weight_gradient(4, 64, 64, 58, 3))  # an image of both operands is larger than half of the cache
    assert any(p.startswith("tile(y, ") for p in large) and "partial(acc, at=yo)" in large
    few = said(forms.weight_gradient(4, 1, 32, 28, 5))  # one channel: all 25 taps in registers, the threads share the lanes
    assert "tile(cr, 16)" in few and few[-1] == "parallel(cro)"


def test_few_rows_share_what_is_read_of_a_large_transposed_operand() -> None:
    k = forms.matmul(4, 640, 512, True)
    out, decisions = schedule.run(k, DEFAULT, FIXTURE)
    assert out.parallel is not None and out.parallel.name == "jo"  # rows of the large operand: each is read once
    acc = [s.buf for s in walk(out.body) if isinstance(s, Alloc) and s.buf.space == "register"]
    assert max(b.size for b in acc) == 4 * 4 * 16  # 4 by 4 sums, each in 16 lanes
    assert next(d for d in decisions if d.kind == "register tile" and d.verdict.startswith("reorder")).numbers["side"] == 4
    assert_same(k, out)


def test_refusals_are_decisions_with_numbers() -> None:
    _, decisions = schedule.run(forms.FORMS["bias"], DEFAULT, FIXTURE)
    merge = next(d for d in decisions if d.kind == "merge")
    assert merge.verdict == "none" and "not contiguous" in merge.reason
    threads = next(d for d in decisions if d.kind == "parallel")
    assert threads.verdict == "none" and threads.numbers["cycles"] < threads.numbers["least_cycles"]
    _, decisions = schedule.run(forms.recurrence(50), DEFAULT, FIXTURE)
    vector = next(d for d in decisions if d.kind == "vectorize")
    assert vector.verdict == "none" and "may touch the same element of out" in vector.reason


def test_large_results_stream() -> None:
    out, decisions = schedule.run(forms.elementwise(4096, 4096), DEFAULT, FIXTURE)
    assert "streaming(out)" in out.schedule
    assert next(d for d in decisions if d.kind == "streaming").numbers["bytes"] == 4 * 4096**2
    assert "streaming(out)" not in schedule.run(forms.elementwise(64, 4096), DEFAULT, FIXTURE)[0].schedule


def test_the_only_operand_of_a_streaming_loop_is_fetched_ahead() -> None:
    small = replace(FIXTURE, l3_bytes=1 << 16)  # so that the interpreter has little to do
    k = forms.square(40_000)
    out, _ = schedule.run(k, DEFAULT, small)
    assert out.schedule == ("tile(i, 512)", "prefetch(x, io, at=ii)", "vectorize(ii, 16)", "streaming(out)")
    assert_same(k, out)
    two, decisions = schedule.run(forms.elementwise(4096, 4096), DEFAULT, FIXTURE)
    assert not any(p.startswith("prefetch") for p in two.schedule)
    assert [(d.verdict, d.numbers) for d in decisions if d.kind == "prefetch"] == [("none", {"operands": 2})]
    assert not any(p.startswith("prefetch") for p in schedule.run(forms.square(400_000), DEFAULT, FIXTURE)[0].schedule)


def test_a_chosen_schedule_is_taken_as_it_is() -> None:
    k = forms.FORMS["matmul"]
    choices = DEFAULT.with_schedule("matmul", "vectorize(j, 4)\nparallel(i)")
    out, decisions = schedule.run(k, choices, FIXTURE)
    assert out.schedule == ("vectorize(j, 4)", "parallel(i)")
    assert [d.verdict for d in decisions] == ["vectorize(j, 4); parallel(i)"]
    assert_same(k, out)
    out, _ = schedule.run(k, DEFAULT.with_schedule("matmul", ()), FIXTURE)
    assert out.schedule == () and out.body == k.body
    with pytest.raises(ScheduleError, match="no loop is called 'q'"):
        schedule.run(k, DEFAULT.with_schedule("matmul", "parallel(q)"), FIXTURE)


def test_special_values_survive() -> None:
    """Only the order of sums may change: NaN, infinities and the sign of zero stay."""
    k = forms.elementwise(8, 45)
    out, _ = schedule.run(k, DEFAULT, FIXTURE)
    a = arrays(k)
    a["x"].reshape(-1)[:6] = [np.nan, np.inf, -np.inf, -0.0, 1e-40, -1e-40]
    x, y = outputs(k, a)["out"], outputs(out, a)["out"]
    assert x.tobytes() == y.tobytes()
    k = forms.outer_sum(6, 40)
    a = arrays(k)
    a["x"][:] = -0.0
    a["x"][2, 3], a["x"][1, 4], a["x"][5, 4] = np.nan, np.inf, -np.inf
    out, _ = schedule.run(k, DEFAULT, FIXTURE)
    assert outputs(k, a)["out"].tobytes() == outputs(out, a)["out"].tobytes()
    for text in ("vectorize(r, 4)", "accumulate(r, 3)"):
        out, _ = schedule.run(k, DEFAULT.with_schedule("outer_sum", text), FIXTURE)
        x, y = outputs(k, a)["out"], outputs(out, a)["out"]
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(np.signbit(x[:3]), np.signbit(y[:3]))


def _of(y: Tensor) -> tuple[str, ...]:
    """The schedule of the only kernel below `y`."""
    (kernel,) = lower(Graph([y.node]), machine=FIXTURE).scheduled
    return tuple(map(str, kernel.schedule))


@pytest.mark.parametrize("width, taps, copied", [(56, 3, False), (200, 3, True), (30, 5, False), (14, 7, True)])
def test_padded_images_of_one_channel_are_copied_where_masks_are_worked_out_anew(width: int, taps: int, copied: bool) -> None:
    x, w = (np.ones(s, np.float32) for s in ((2, 8, width, width), (8, 1, taps, taps)))
    said = _of(Tensor(x).conv2d(Tensor(w), padding=taps // 2, groups=8))
    assert any(p.startswith("pack(") for p in said) == copied


def test_tiles_of_results_are_turned_in_blocks() -> None:
    x, w = (np.ones(s, np.float32) for s in ((4, 32, 28, 28), (64, 32, 3, 3)))
    said = _of(Tensor(x).conv2d(Tensor(w), padding=1, stride=2))
    (name,) = (p[len("unpack(") : p.index(",")] for p in said if p.startswith("unpack("))
    lines, block = next(p[len("tile(") : -1].split(", ") for p in said if p.startswith(f"tile({name}_"))
    assert f"unroll({lines}i)" in said
    assert any(p.startswith(f"vectorize({name}_") and p.endswith(f", {block})") for p in said)


def test_few_rows_are_shared_out_evenly_among_tiles() -> None:
    x, w = Tensor(np.ones((7, 800), np.float32)), Tensor(np.ones((500, 800), np.float32))
    assert "tile(i, 4)" in _of(x @ w.T)


def test_rows_that_are_woven_into_each_other_are_read_as_they_lie() -> None:
    x = Tensor(np.ones((4, 8, 6, 40), np.float32))
    said = _of(x.reshape(4, 4, 2, 6, 40).permute(0, 1, 3, 4, 2).contiguous())
    rows = next(p[len("vectorize(") : -1].split(", ") for p in said if p.startswith("vectorize("))
    assert rows[1] == "16" and said[-1].startswith("unroll("), said  # two stores with gaps fill each line


@pytest.mark.parametrize("machine", [FIXTURE, AVX2], ids=lambda m: m.name[:7])
@pytest.mark.parametrize("columns", [5, 10, 16])
def test_short_rows_lie_across_the_lanes_so_that_nothing_is_done_row_by_row(columns: int, machine: Machine) -> None:
    """A row of ten classes fills no vector, and its logarithm is one number: sixteen rows at a time fill them."""
    x = Tensor(np.random.default_rng(0).standard_normal((640, columns)).astype(np.float32))
    low = lower(Graph([x.log_softmax(-1).node]), machine=machine)
    (kernel,) = low.scheduled
    lanes = {e.lanes for s in walk(kernel.body) for r in stmt_exprs(s) for e in subexprs(r) if e.op in ("exp", "log")}
    assert lanes == {machine.vector_bytes // 4}
    assert {f"unroll({r.name})" for r in loops(kernel.body) if r.trips == columns} <= {*kernel.schedule}
    want = x.numpy() - np.log(np.exp(x.numpy().astype(np.float64)).sum(-1, keepdims=True))
    np.testing.assert_allclose(low.run()[0].reshape(640, columns), want, rtol=1e-4, atol=1e-6)


def test_lanes_do_not_all_fall_into_one_set_of_the_first_cache() -> None:
    x = Tensor(np.ones((64, 16, 8, 8), np.float32), requires_grad=True)  # images lie 4096 bytes apart, their channels 256
    x.relu().max_pool2d(2).sum().backward()
    assert x.grad is not None
    assert "vectorize(j, 16)" in _of(x.grad)


def _cat(parts: int, dim: int) -> Lowered:
    rng = np.random.default_rng(0)
    pieces = [Tensor(rng.standard_normal((40 + k, 64) if dim == 0 else (70, 70 + k)).astype(np.float32)) for k in range(parts)]
    return lower(Graph([Tensor.cat(pieces, dim=dim).node]), machine=FIXTURE)


@pytest.mark.parametrize("dim", [0, 1])
def test_the_pieces_of_a_concatenation_are_copied_one_by_one(dim: int) -> None:
    cat = _cat(8, dim)
    (kernel,) = cat.scheduled
    accesses = [x for s in walk(kernel.body) for e in stmt_exprs(s) for x in subexprs(e) if x.op == "load"]
    assert {x.arg.name for x in accesses} == {p.name for p in kernel.params} - set(kernel.outputs)
    tails = [x for x in accesses if load_mask(x) is not None]  # nothing but the end of a row that fills no vector
    assert not any(x.args[-1].op != "lt" for x in tails) and (dim == 1 or not tails)
    for part in [s for s in loops(kernel.body) if not any(isinstance(b, Loop) for b in s.body)]:
        assert len({x.arg for s in part.body for e in stmt_exprs(s) for x in subexprs(e) if x.op == "load"}) <= 1
    np.testing.assert_array_equal(cat.run()[0], evaluate(cat.graph)[0])


def test_what_a_scatter_adds_to_is_prepared_by_all_threads() -> None:
    at, rows = Tensor(np.arange(40, dtype=np.int32) * 7 % 33), Tensor(np.ones((40, 128), np.float32))
    low = lower(Graph([Tensor.zeros(4000, 128).scatter_add(0, at.reshape(40, 1).expand(40, 128), rows).node]), machine=FIXTURE)
    (kernel,) = low.scheduled
    shared, sums = [s for s in kernel.body if isinstance(s, Loop)]
    assert shared.kind == "parallel" and sums.kind == "serial" and any(isinstance(s, Accumulate) for s in walk((sums,)))
    want = np.zeros((4000, 128))
    np.add.at(want, at.numpy(), 1)
    np.testing.assert_array_equal(low.run()[0], want)


def test_what_must_keep_its_order_is_written_out_four_at_a_time() -> None:
    for k, done in ((forms.scatter(90, 7), True), (forms.scatter(30, 7), False), (forms.recurrence(100), True)):
        out, decisions = schedule.run(k, DEFAULT, FIXTURE)
        assert any(p.startswith("unroll(") and p.endswith(", 4)") for p in out.schedule) == done
        assert any(d.kind == "vectorize" and "may touch the same element" in d.reason for d in decisions)
        assert_same(k, out)


def test_a_sum_of_one_vector_has_lanes_and_several_accumulators() -> None:
    a = np.random.default_rng(0).standard_normal(4097).astype(np.float32)
    low = lower(Graph([Tensor(a).sum().node]), machine=FIXTURE)
    (kernel,) = low.scheduled
    assert kernel.schedule == ("vectorize(r, 16)", "accumulate(r, 4)")
    np.testing.assert_allclose(low.run()[0], a.sum(dtype=np.float64), rtol=1e-5)


def test_too_many_pieces_are_not_cut_and_that_is_said() -> None:
    _, decisions = schedule.run(_cat(40, 0).nests[0].kernel, DEFAULT, FIXTURE)
    cut = next(d for d in decisions if d.kind == "split")
    assert cut.verdict == "none" and cut.numbers["parts"] == 40 > cut.numbers["most_parts"]


def test_a_part_of_a_stack_reads_its_own_piece_alone() -> None:
    """Every part names its values as the others do: what one of them uses is no use in another."""
    low = lower(Graph([Tensor.stack([Tensor(np.full((8, 16), k, np.float32)) for k in range(20)]).exp().node]), machine=FIXTURE)
    (cost,) = low.certificate.kernels
    assert cost.bytes_issued == cost.bytes_moved == 2 * 20 * 8 * 16 * 4
    np.testing.assert_allclose(low.run()[0], evaluate(low.graph)[0], rtol=1e-6)


def test_what_one_part_alone_needs_stands_before_all_parts() -> None:
    """Parts that run on several cores are beside each other, which the spec asks for."""
    rows = [Tensor(np.full((2, 2048, 6), k, np.float32)) + Tensor(np.full(6, k, np.float32)) for k in range(5)]
    low = lower(Graph([Tensor.stack(rows).node]), machine=FIXTURE)
    (kernel,) = low.scheduled
    kinds = [s.kind for s in kernel.body if isinstance(s, Loop)]
    assert kinds == ["parallel"] * 5 and all(isinstance(s, Loop) for s in kernel.body[-5:])
    assert any(isinstance(s, Let) for s in kernel.body[:-5])
    np.testing.assert_array_equal(low.run()[0], evaluate(low.graph)[0])


def test_neighbours_that_are_split_are_merged_part_by_part() -> None:
    said = _of(Tensor.cat([Tensor(np.ones((n, 3), np.float32)) for n in (100, 60)], dim=0))
    assert said[:2] == ("split(i, 100)", "merge(i, j)"), said


def test_each_piece_of_a_streaming_concatenation_is_fetched_ahead() -> None:
    small = replace(FIXTURE, l3_bytes=1 << 16)
    cat = Tensor.cat([Tensor(np.ones((n, 1000), np.float32)) for n in (20, 30)], dim=0)
    (kernel,) = lower(Graph([cat.node]), machine=small).scheduled
    operands = {p.name for p in kernel.params} - set(kernel.outputs)
    assert {p[len("prefetch(") :].split(",")[0] for p in map(str, kernel.schedule) if p.startswith("prefetch")} == operands


@pytest.mark.parametrize("rows, columns, wide", [(300, 4103, True), (4200, 300, False), (60, 4103, False)])
def test_columns_of_wide_rows_are_added_up_in_the_cache(rows: int, columns: int, wide: bool) -> None:
    """A page of each row at a time, eight rows before a result is stored again. Narrow, or few, rows keep their results in
    registers."""
    x = np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)
    lowered = lower(Graph([Tensor(x).sum(0).node]), machine=FIXTURE, backend="llvm")
    (k,) = lowered.kernels
    assert any("memory=local" in line for line in k.schedule) == wide
    np.testing.assert_allclose(lowered.run()[0], x.sum(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch", [(), (3,)])
def test_weighted_rows_are_added_up_in_the_cache_too(batch: tuple[int, ...]) -> None:
    """x.T @ v; of several matrices, each thread takes whole ones."""
    rng = np.random.default_rng(0)
    x, v = rng.standard_normal((*batch, 300, 1540)).astype(np.float32), rng.standard_normal((*batch, 300, 1)).astype(np.float32)
    lowered = lower(Graph([(Tensor(x).transpose(-1, -2) @ Tensor(v)).node]), machine=FIXTURE, backend="llvm")
    (k,) = lowered.kernels
    assert any("memory=local" in line for line in k.schedule)
    assert sum(line.startswith("parallel(") for line in k.schedule) == 1
    np.testing.assert_allclose(lowered.run()[0], x.swapaxes(-1, -2) @ v, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rows", [2, 4, 9, 16])
@pytest.mark.parametrize("machine", [FIXTURE, AVX2], ids=lambda m: m.name[:7])
def test_a_few_rows_times_a_large_matrix_read_it_row_by_row(rows: int, machine: Machine) -> None:
    """Each row of the matrix from one end to the other, by all rows of the result at once; the results of a piece stay in the
    first cache. Of a matrix that the second cache holds, panels are read."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((rows, 301)).astype(np.float32), rng.standard_normal((301, 2100)).astype(np.float32)
    lowered = lower(Graph([(Tensor(a) @ Tensor(b)).node]), machine=machine, backend="llvm")
    (k,) = lowered.kernels
    assert any("memory=local" in line for line in k.schedule)
    own = [s.buf for s in walk(k.scheduled.body) if isinstance(s, Alloc) and s.buf.space == "local"]
    assert max(b.nbytes for b in own) <= 36 << 10
    np.testing.assert_allclose(lowered.run()[0], a @ b, rtol=1e-3, atol=1e-3)
    small, _ = schedule.run(forms.matmul(rows, 301, 600), DEFAULT, machine)
    assert not any("memory=local" in line for line in small.schedule)


def test_rows_of_a_tile_that_lie_pages_apart_leave_each_other_in_the_cache() -> None:
    """Rows of 4096 floats share one set of the first cache, of whose eight ways the vectors take one; rows of 4112 do not."""
    machine = replace(AVX2, l1_bytes=32 << 10)

    def rows(depth: int) -> float:
        _, decisions = schedule.run(forms.matmul(8, 4096, depth, True), DEFAULT, machine)
        return next(d.numbers["mr"] for d in decisions if d.kind == "register tile" and "mr" in d.numbers)

    assert rows(4096) <= 7 < rows(4112)


def test_results_are_not_stored_under_masks_where_these_are_slow() -> None:
    """Seven rows of a tile of results are no whole vectors; with registers for masks they are stored as a vector and a part."""
    narrow, _ = schedule.run(forms.matmul(8, 4096, 4096, True), DEFAULT, replace(AVX2, l1_bytes=32 << 10))
    assert not any(s.mask is not None for s in walk(narrow.body) if isinstance(s, Store))


@pytest.mark.parametrize("machine", [FIXTURE, AVX2], ids=lambda m: m.name[:7])
@pytest.mark.parametrize("alike", [True, False])
def test_long_sums_with_few_results_go_block_by_block(machine: Machine, alike: bool) -> None:
    """x.T @ x and x.T @ y of many rows: a block of rows that the first cache holds, for all results of a thread; nothing is
    copied."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((9001, 64)).astype(np.float32), rng.standard_normal((9001, 48)).astype(np.float32)
    right = x if alike else y
    a = Tensor(x)
    lowered = lower(Graph([(a.T @ (a if alike else Tensor(y))).node]), machine=machine, backend="llvm")
    k = next(k for k in lowered.kernels if "matmul" in k.name)
    assert not any(line.startswith("pack(") for line in k.schedule)
    numbers = next(d.numbers for d in k.decisions if d.kind == "register tile" and d.verdict.startswith("reorder"))
    assert 4 * numbers["rows"] * (64 + right.shape[1]) <= machine.l1_bytes // 2 + 4096
    np.testing.assert_allclose(lowered.run()[0], x.T.astype(np.float64) @ right, rtol=1e-3, atol=0.05)


@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16, dtypes.fp8e4m3], ids=str)
def test_halves_are_converted_once_where_many_tiles_read_them(dtype: dtypes.DType) -> None:
    """The loop of the products is that of float32; a few rows convert what they read as they go."""
    rng = np.random.default_rng(0)
    a, b = (Tensor(rng.standard_normal(s).astype(np.float32)).cast(dtype).realize() for s in ((96, 70), (70, 200)))
    machine = replace(AVX2, dots="")
    lowered = lower(Graph([(a @ b).node]), machine=machine, backend="llvm")
    (k,) = lowered.kernels
    assert sum("dtype=float32" in line for line in k.schedule) == 2
    inner = [s for s in walk(k.scheduled.body) if isinstance(s, Loop) and s.reduce]
    assert inner and not any(e.op == "cast" for r in inner for s in walk(r.body) if not isinstance(s, Loop) for e in casts(s))
    exact = a.float().numpy() @ b.float().numpy()
    np.testing.assert_allclose(Tensor(lowered.run()[0]).float().numpy().reshape(exact.shape), exact, rtol=0.13, atol=0.13)
    few = lower(Graph([(a[:4] @ b).node]), machine=machine).scheduled[0]
    assert not any("dtype=float32" in line for line in few.schedule)


def casts(s: Stmt) -> list[Expr]:
    return [e for root in stmt_exprs(s) for e in subexprs(root)]


def test_a_copy_of_another_dtype_needs_reads_that_are_converted_to_it() -> None:
    k = forms.matmul(16, 16, 16)
    with pytest.raises(ScheduleError, match="b is not always read as float64"):
        apply(k, ["pack(b, at=i, dtype=float64)"])
    with pytest.raises(ScheduleError, match="no meaning beside by="):
        apply(k, ["pack(b, at=i, by=(r,), dtype=float32)"])


@pytest.mark.parametrize("vector_bytes,dtype,lanes", [
    (32, "bfloat16", 16), (32, "float16", 16), (32, "fp8e5m2", 32), (32, "float32", 8), (64, "bfloat16", 16),
])  # fmt: skip
def test_stored_halves_fill_a_vector(vector_bytes: int, dtype: str, lanes: int) -> None:
    """Results of 8 float32 fill half a vector of 32 bytes; AVX-512 stores 16 of them narrower by one instruction."""
    machine = replace(FIXTURE, vector_bytes=vector_bytes)
    x = Tensor(np.ones(1 << 20, np.float32)).cast(dtype).realize()
    low = lower(Graph([(x * 1.5).cast(dtype).node]), DEFAULT, machine, "reference")
    (line,) = [str(p) for p in low.scheduled[0].schedule if str(p).startswith("vectorize")]
    assert line.endswith(f", {lanes})")


def test_columns_of_short_rows_are_columns_of_long_ones() -> None:
    """Over an axis in the middle: the axes behind it are one loop in lanes, and so are those before it where every access is
    contiguous over them too."""
    x = Tensor(np.ones((16, 20, 12, 12), np.float32))
    for axis, merges in ((0, ["merge(j, k)", "merge(i, jk)"]), (1, ["merge(j, k)"]), (3, [])):
        (kernel,) = lower(Graph([x.logsumexp(axis).node]), machine=FIXTURE).scheduled
        assert [str(p) for p in kernel.schedule if str(p).startswith("merge(")] == merges
    (kernel,) = lower(Graph([x.logsumexp(0).node]), machine=FIXTURE).scheduled
    lanes = FIXTURE.vector_bytes // 4
    assert f"vectorize(ijk, {4 * lanes})" in map(str, kernel.schedule)  # 16 rows, one below the other
