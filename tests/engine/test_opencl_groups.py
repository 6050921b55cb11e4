"""Work-groups: the form of kernels for a GPU, on whatever OpenCL device there is, told that it is none of a CPU.

PoCL executes groups, local memory and barriers faithfully: a work-item runs up to a barrier before the next one starts, so a
barrier that is missing shows as a wrong number.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tests.engine import forms
from tests.engine.forms import arrays
from tests.engine.test_random_programs import build, programs
from tests.engine.test_schedule_random import nests
from tinyengine import Tensor, backends, dtypes, machine
from tinyengine.backends import opencl as backend
from tinyengine.backends import opencl_device as dev
from tinyengine.backends.graph_eval import evaluate
from tinyengine.backends.opencl import OpenCLBackend, OpenCLExecutable
from tinyengine.backends.opencl_device import Device
from tinyengine.backends.opencl_module import Function
from tinyengine.loopnest import Alloc, Buf, Check, Kernel, Let, Loop, Store, apply, const, index, load, name, var, walk
from tinyengine.node import Graph
from tinyengine.pipeline import Lowered, lower
from tinyengine.program import Call, Program, Slot
from tinyengine.runtime.buffer import Buffer
from tinyengine.stages import schedule
from tinyengine.stages.primitives.apply import ScheduleError, apply_one, parse, tidy
from tinyengine.stages.primitives.apply import apply as scheduled
from tinyviz import doctor

F = dtypes.float32
LOCAL_BYTES, ITEMS = 32 << 10, 32
PLAIN = "-cl-opt-disable"  # the driver's compiler is several times as fast without its optimiser


@pytest.fixture(scope="module")
def device() -> Device:
    """The device that is there, as if it were a GPU with little local memory and small groups."""
    found = dev.find().device
    if found is None:
        pytest.skip(dev.find().why)
    return replace(
        found, options=(PLAIN, *found.options), cpu=False, shared=False, local_bytes=LOCAL_BYTES, items=ITEMS, queues={}
    )


class GPU(OpenCLBackend):
    """The backend for one given device."""

    def __init__(self, given: Device) -> None:
        super().__init__()
        self.given = given

    def device(self) -> Device:
        return self.given


@pytest.fixture(autouse=True)
def gpu(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend 'opencl' computes on it."""
    monkeypatch.setitem(backends._made, "opencl", GPU(device))


def run(device: Device, *kernels: Kernel) -> tuple[OpenCLExecutable, list[dict[str, Any]]]:
    """Kernels as one program on their own memory; the executable, and each one's buffers afterwards."""
    program, memory = forms.several(kernels)
    e = OpenCLExecutable(program, device)
    e.run(memory)
    return e, [{p.name: memory[i].values.copy() for p, i in zip(c.kernel.params, c.slots, strict=True)} for c in program.calls]


def same(device: Device, *pairs: tuple[Kernel, Kernel]) -> OpenCLExecutable:
    """Each second kernel, in groups, leaves what the first one leaves on the reference."""
    e, got = run(device, *(k for _, k in pairs))
    for (before, after), values in zip(pairs, got, strict=True):
        slots = tuple(Slot(p.name, p.dtype, p.shape, "state") for p in before.params)
        memory = [Buffer.of(p.dtype.decode(arrays(before)[p.name]), p.dtype) for p in before.params]
        backends.get("reference").compile(Program("one", slots, (Call(before, tuple(range(len(slots)))),), 0)).run(memory)
        for p, b in zip(before.params, memory, strict=True):
            want = b.values.astype(np.float64)
            scale = max(1.0, float(np.abs(want).max(initial=0)))
            np.testing.assert_allclose(
                values[p.name].reshape(-1), want.reshape(-1), rtol=2e-4, atol=2e-4 * scale, err_msg=after.text()
            )
    return e


def only(e: OpenCLExecutable) -> Function:
    (source,) = e.sources
    (f,) = source.functions
    return f


# ---- the form: groups, local memory, barriers


def test_pieces_go_to_groups_and_their_iterations_to_work_items(device: Device) -> None:
    k = forms.FORMS["update"]
    e = same(device, (k, scheduled(k, "tile(i, 8); vectorize(ii, 4); parallel(io); parallel(ii)")))
    f, text = only(e), e.source(0)
    assert "get_group_id(0)" in text and "get_local_id(0)" in text and "get_global_id" not in text
    assert "vload4(" in text and "vstore4(" in text
    assert (f.items, f.local_bytes, f.barriers) == (2, 0, 0) and f.trips == -(-forms.FORMS["update"].params[0].size // 8)
    (step,) = e._steps
    assert step.local == (ITEMS,) and step.items == ITEMS * f.trips


def test_a_row_is_summed_by_a_tree_in_local_memory(device: Device) -> None:
    k = forms.FORMS["softmax"]  # rows of 37
    text = "accumulate(r, 8, memory=local); parallel(i); parallel(ra); parallel(rat); parallel(j)"
    e = same(device, (k, scheduled(k, text)))
    f = only(e)
    # barriers: before the first sums (of the filled memory), before each of 3 steps, before the result is read, before the
    # exponentials are; none between the sums of the main part and those of the rest, which are the same work-items'
    assert f.barriers == 6 == e.source(0).count("barrier(") - 1  # one more for the status word
    assert f.trips == 5 and f.items == 37
    room = 2 * 64  # lies around each array
    assert f.local_bytes == (64 + room) + (192 + room)  # 8 sums, 37 exponentials


def one_more(*shifts: int) -> Kernel:
    """Loops j, j1... over a local row: each reads the row `shift` further and writes the next one."""
    rows = [Buf(f"row{n}", F, (16,), "local") for n in range(len(shifts))]
    x, out = Buf("x", F, (3, 16)), Buf("out", F, (3, 16))
    i = var("i", 0, 2)
    body: list[Any] = [Alloc(r) for r in rows]
    for n, shift in enumerate(shifts):
        j = var(f"j{n}", 0, 15)
        source = load(x, (i, j))
        if n:
            further = apply("mod", (apply("add", (j, index(shift))), index(16)))
            source = load(rows[n - 1], (further if shift else j,))
        body.append(Loop(j, 0, 16, 1, (Store(rows[n], (j,), source),)))
    j = var("j", 0, 15)
    body.append(Loop(j, 0, 16, 1, (Store(out, (i, j), load(rows[-1], (j,))),)))
    return Kernel("rows", (x, out), (Loop(i, 0, 3, 1, tuple(body)),), ("out",))


@pytest.mark.parametrize(("shifts", "barriers"), [((0,), 0), ((0, 0, 0), 0), ((0, 1), 2), ((0, 1, 0), 2), ((0, 1, 1), 2)])
def test_barriers_stand_where_another_work_item_reads_what_one_wrote(
    device: Device, shifts: tuple[int, ...], barriers: int
) -> None:
    """None where each reads its own; one before what is shifted, and one where the next row begins, which writes what was read,
    where none in between has waited for that."""
    k = one_more(*shifts)
    names = "; ".join(f"parallel({s.name})" for s in walk(k.body) if isinstance(s, Loop))
    e = same(device, (k, scheduled(k, names)))
    assert only(e).barriers == barriers


def test_memory_that_is_too_large_for_a_group_is_global(device: Device) -> None:
    k = forms.softmax(3, LOCAL_BYTES // 4 + 5)
    e = same(device, (k, scheduled(k, "parallel(i); parallel(j)")))
    f = only(e)
    assert f.local_bytes == 0 and f.group_scratch >= LOCAL_BYTES and "CLK_GLOBAL_MEM_FENCE" in e.source(0)
    fits = same(device, (forms.softmax(3, 100), scheduled(forms.softmax(3, 100), "parallel(i); parallel(j)")))
    assert only(fits).group_scratch == 0 and "GLOBAL_MEM_FENCE" not in fits.source(0)


def test_a_barrier_waits_for_the_memory_that_is_concerned(device: Device) -> None:
    """An update in place that reads what the neighbour will write: of global memory, then."""
    p, x = Buf("p", F, (3, 16)), Buf("x", F, (3, 16))
    i, j, m, row = var("i", 0, 2), var("j", 0, 15), var("m", 0, 15), Buf("row", F, (16,), "local")
    back = load(p, (i, apply("sub", (index(15), j))))
    fill = Loop(j, 0, 16, 1, (Store(row, (j,), back),))
    update = Loop(m, 0, 16, 1, (Store(p, (i, m), apply("add", (load(row, (m,)), load(x, (i, m))))),))
    k = Kernel("mirror", (x, p), (Loop(i, 0, 3, 1, (Alloc(row), fill, update)),), ("p",))
    e = same(device, (k, scheduled(k, "parallel(i); parallel(j); parallel(m)")))
    # its own element of the row is each work-item's, and another row of p is another group's
    assert only(e).barriers == 1 and "barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE)" in e.source(0)


def test_any_number_of_groups_is_right(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """One group takes all iterations, of a loop and of its tail."""
    monkeypatch.setattr(backend, "GROUPS_PER_UNIT", 1)
    k = forms.matmul(11, 13, 7)
    text = "tile(i, 4); tile(j, 4); reorder(io, jo, ii, ji); pack(w, at=jo); parallel(io); parallel(ii)"
    e = same(replace(device, units=1, queues={}), (k, scheduled(k, text)))
    assert [s.items for s in e._steps] == [ITEMS] and only(e).trips == 6


def test_a_failed_check_lets_all_work_items_leave_together(device: Device) -> None:
    x, out, row = Buf("x", dtypes.int32, (4, 16)), Buf("out", dtypes.int32, (4, 16)), Buf("row", dtypes.int32, (16,), "local")
    i, j, m = var("i", 0, 3), var("j", 0, 15), var("m", 0, 15)
    first = (
        Let("v", load(x, (i, j))),
        Check(apply("lt", (name("v", dtypes.int32), const(9, dtypes.int32))), "all must be below 9"),
        Store(row, (j,), name("v", dtypes.int32)),
    )
    back = load(row, (apply("sub", (index(15), m)),))
    body = (Alloc(row), Loop(j, 0, 16, 1, first), Loop(m, 0, 16, 1, (Store(out, (i, m), back),)))
    k = scheduled(Kernel("turned", (x, out), (Loop(i, 0, 4, 1, body),), ("out",)), "parallel(i); parallel(j); parallel(m)")
    slots = (Slot("x", dtypes.int32, (4, 16), "input"), Slot("out", dtypes.int32, (4, 16), "output"))
    e = OpenCLExecutable(Program("p", slots, (Call(k, (0, 1)), Call(k, (0, 1))), 0), device)
    values = np.arange(64).reshape(4, 16) % 9
    memory = [Buffer.of(values, dtypes.int32), Buffer.of(np.zeros(64), dtypes.int32)]
    e.run(memory)
    np.testing.assert_array_equal(memory[1].array.reshape(4, 16), values[:, ::-1])
    memory[0].array[40] = 9
    with pytest.raises(IndexError, match="all must be below 9"):
        e.run(memory)


# ---- the machine, and the engine's own schedules


def test_the_machine_is_what_the_device_says(device: Device) -> None:
    m = backends.machine("opencl")
    assert (m.cores, m.threads, m.local_bytes, m.work_items) == (device.units, device.units, LOCAL_BYTES, ITEMS)
    assert m.vector_bytes == 16 and m.source == "estimated" and machine.Machine.from_json(m.to_json()) == m
    assert backends.machine("llvm") == machine.current() and "local_bytes" not in machine.current().to_json()
    found = dev.find().device
    assert found is not None and (OpenCLBackend().machine() == machine.current()) == found.cpu


def test_the_device_says_how_far_it_is_tested(device: Device) -> None:
    said = device.text()
    assert f"groups of up to {ITEMS} work-items with 32 KiB" in said and "tested on PoCL, not yet on GPU hardware" in said
    assert "a CPU: no work-groups" in replace(device, cpu=True, queues={}).text()
    (line,) = [about for _, what, about in doctor.backends() if what == "backend opencl"]
    assert line.endswith(said)


def compiled(*tensors: Tensor) -> Lowered:
    """Lowered for groups, run, and compared with the graph evaluator."""
    graph = Graph([t.node for t in tensors])
    c = lower(graph, backend="opencl")
    for got, want in zip(c.run(), evaluate(graph), strict=True):
        scale = max(1.0, float(np.abs(want).max(initial=0)))
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4 * scale)
    return c


def numbers(*shape: int) -> Tensor:
    return Tensor(np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32))


def functions(c: Lowered) -> list[Function]:
    e = c.executable
    assert isinstance(e, OpenCLExecutable)
    return [f for s in e.sources for f in s.functions]


def test_elementwise_kernels_are_pieces_of_vectors(device: Device) -> None:
    c = compiled(numbers(100, 70) * 2 + 1)
    (f,) = functions(c)
    assert f.items == ITEMS and f.trips == -(-7000 // (4 * ITEMS)) and f.barriers == 0 and f.local_bytes == 0
    assert "vload4(" in c.executable.source(0) and "vstore4(" in c.executable.source(0)
    said = [d for d in c.decisions if d.stage == "schedule"]
    assert {"merge", "vectorize", "tile", "parallel"} <= {d.kind for d in said} and all(d.reason for d in said)


def test_a_row_of_a_softmax_is_a_group(device: Device) -> None:
    c = compiled(numbers(9, 256).softmax(-1))
    (f,) = functions(c)
    assert f.trips == 9 and f.items == 64 and f.local_bytes <= LOCAL_BYTES and f.group_scratch == 0
    # the row, and twice 32 sums of 4 lanes
    assert f.local_bytes == (1024 + 128) + 2 * (512 + 128)
    assert c.executable.source(0).count("barrier(CLK_LOCAL_MEM_FENCE)") == f.barriers


def test_a_product_has_tiles_for_groups_and_packs_in_local_memory(device: Device) -> None:
    c = compiled((numbers(64, 48) @ numbers(48, 32) + numbers(32)).relu())
    (f,) = functions(c)
    assert f.trips == 4 * 2 and f.items == 64 and f.group_scratch == 0  # tiles of 16 x 16, copied by vectors of 4
    assert f.local_bytes == 3 * (16 * 16 * 4 + 128)  # the results and a step of each operand, with room around each
    # before the products of a step, before the copies of the next one, before the next tile
    assert f.barriers == 3
    text = c.executable.source(0)
    assert "vload4(0, t0 +" in text and "vstore4(" in text and text.count("muladd_float4") > 4
    said = [d for d in c.decisions if d.stage == "schedule"]
    assert {"tile", "reorder", "pack", "partial", "vectorize", "parallel"} <= {d.kind for d in said}


@pytest.mark.parametrize("shape", [(37, 50, 41), (70, 17, 16), (16, 16, 129)])
def test_products_of_odd_sizes_transposed_and_in_batches(device: Device, shape: tuple[int, int, int]) -> None:
    a, b, k = shape
    x, y = numbers(a, k), numbers(k, b)
    c = compiled(x @ y, numbers(k, a).T @ y, x @ numbers(b, k).T, numbers(2, a, k) @ numbers(2, k, b))
    assert [f.local_bytes > 0 for f in functions(c)] == 4 * [True]


def test_what_lies_across_is_turned_in_local_memory(device: Device) -> None:
    c = compiled(numbers(70, 96).T * 2.0, numbers(2, 33, 40).permute(0, 2, 1) + numbers(40, 33))
    for f in functions(c):
        assert f.local_bytes >= 32 * 32 * 4 and f.barriers >= 2
    assert functions(c)[0].trips == 3 * 3


def test_columns_are_summed_by_a_work_item_each_and_short_rows_too(device: Device) -> None:
    for c, iterations in ((compiled(numbers(40, 96).sum(0)), 96), (compiled(numbers(50, 5).softmax(-1)), 50)):
        assert [(f.trips, f.items, f.barriers) for f in functions(c)] == [(-(-iterations // ITEMS), ITEMS, 0)]
        assert any(d.verdict == "none" and d.kind == "groups" for d in c.decisions)


def test_the_drivers_optimiser_keeps_groups_right(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    optimised = replace(device, options=tuple(o for o in device.options if o != PLAIN), queues={})
    monkeypatch.setitem(backends._made, "opencl", GPU(optimised))
    x, y = numbers(37, 50), numbers(50, 41)
    compiled((x @ y).softmax(-1), numbers(33, 40).T + numbers(40, 33), numbers(40, 96).sum(0))


@settings(max_examples=12, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs, st.sampled_from([3, 17, 70]), st.booleans())
def test_random_programs(device: Device, steps: list[tuple[str, int, int]], n: int, backward: bool) -> None:
    graph = build(steps, n, backward)
    c = lower(graph, backend="opencl")
    for got, want in zip(c.run(), evaluate(graph), strict=True):
        scale = max(1.0, float(np.abs(want).max(initial=0)))
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4 * scale, err_msg=str(c.fusion))


@st.composite
def shared(draw: st.DrawFn) -> tuple[Kernel, Kernel]:
    """A nest, and the same after random primitives, as many of its loops parallel as may be."""
    before = k = draw(nests())
    for _ in range(draw(st.integers(0, 4))):
        names = [s.name for s in walk(k.body) if isinstance(s, Loop)]
        if names:
            loop, count = draw(st.sampled_from(names)), draw(st.integers(2, 9))
            buf = draw(st.sampled_from([p.name for p in k.params]))
            choices = [f"tile({loop}, {count})", f"vectorize({loop}, 4)", f"accumulate({loop}, {count}, memory=local)"]
            choices += [f"pack({buf}, at={loop})", f"reorder({', '.join(draw(st.permutations(names))[:3])}, memory=local)"]
            k = attempt(k, draw(st.sampled_from(choices)))
    order = list(dict.fromkeys(s.name for s in walk(k.body) if isinstance(s, Loop)))
    for loop in [*order[:1], *draw(st.permutations(order[1:]))]:
        k = attempt(k, f"parallel({loop})")
    return before, tidy(k)


def attempt(k: Kernel, text: str) -> Kernel:
    try:
        return apply_one(k, parse(text)[0])
    except ScheduleError:
        return k


@settings(max_examples=6, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(shared(), min_size=4, max_size=8))
def test_random_schedules(device: Device, pairs: list[tuple[Kernel, Kernel]]) -> None:
    note("\n".join(k.text() for _, k in pairs))
    same(device, *pairs)


@settings(max_examples=6, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(nests(), min_size=4, max_size=8))
def test_the_engines_own_schedules_of_random_nests(device: Device, kernels: list[Kernel]) -> None:
    m = backends.machine("opencl")
    same(device, *((k, schedule.run(k, schedule.Choices(), m)[0]) for k in kernels))
