"""The llvm backend against NumPy: every statement and every form of access of the kernel IR."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.engine import nests
from tests.engine.nests import W, add, below, mul, run, times
from tinyengine import dtypes
from tinyengine.backends.llvm import LLVMBackend
from tinyengine.dtypes import bool_, float16, float32, float64, int8, int32, int64, uint8, uint32
from tinyengine.loopnest import (
    Accumulate,
    Alloc,
    Buf,
    Check,
    Kernel,
    Let,
    Loop,
    Prefetch,
    Store,
    apply,
    const,
    index,
    kernel_lines,
    lanes_reduce,
    load,
    name,
    ramp,
    splat,
    var,
)

rng = np.random.default_rng(7)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


# ---- whole kernels


@pytest.mark.parametrize("lanes", [1, 4, 16])
@pytest.mark.parametrize("n", [1, 16, 37, 4096])
def test_chain(n, lanes):
    x = normal(n)
    assert np.array_equal(run(nests.chain(n, lanes), x=x)["y"], np.maximum(x * 2 + 1, 0))


@pytest.mark.parametrize("shape", [(1, 1), (3, 16), (5, 37), (64, 1000)])
def test_softmax(shape):
    x = normal(*shape) * 10
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    np.testing.assert_allclose(run(nests.softmax(*shape), x=x)["y"], e / e.sum(1, keepdims=True), rtol=2e-6, atol=1e-12)


def test_softmax_of_a_row_with_nan_is_nan():
    x = normal(3, 37)
    x[1, 20] = np.nan
    y = run(nests.softmax(3, 37), x=x)["y"]
    assert np.isnan(y[1]).all() and not np.isnan(y[[0, 2]]).any()


@pytest.mark.parametrize("shape", [(1, 64, 1), (6, 64, 8), (13, 128, 37), (96, 192, 100)])
def test_packed_matmul(shape):
    M, N, K = shape
    a, b, bias = normal(M, K), normal(K, N), normal(N)
    want = np.maximum(a.astype(np.float64) @ b + bias, 0)
    np.testing.assert_allclose(run(nests.matmul(M, N, K), A=a, B=b, bias=bias)["C"], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [5, 16, 19])
def test_padded_conv(size):
    x, w = normal(2, 3, size, size), normal(4, 3, 3, 3)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    want = np.einsum("nchwij,ocij->nohw", windows, w)
    np.testing.assert_allclose(run(nests.conv(2, size, 3, 4), x=x, w=w)["y"], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", [nests.chain(1000), nests.softmax(5, 37), nests.matmul(13, 64, 19)], ids=lambda k: k.name)
def test_llvms_own_o3_computes_the_same(kernel):
    arrays = {p.name: normal(*p.shape) for p in kernel.params}
    mine, theirs = run(kernel, **arrays), run(kernel, passes=3, **arrays)
    for o in kernel.outputs:
        np.testing.assert_allclose(mine[o], theirs[o], rtol=1e-6)


# ---- accesses


def gather(n: int, table: int, lanes: int, guarded: bool = True) -> Kernel:
    """y[i] = table[idx[i]], and 0 where idx is out of range (the Check says so too)."""
    t, idx, y = Buf("table", float32, (table,)), Buf("idx", int32, (n,)), Buf("y", float32, (n,))
    i = var("i", 0, (n - 1) // lanes * lanes)
    at = ramp(i, lanes) if lanes > 1 else i
    mask = below(at, n) if n % lanes else const(True, bool_, lanes)
    j = apply("cast", (load(idx, (at,), mask),), int64)
    inside = apply("and", (apply("lt", (const(-1, int64), j)), apply("lt", (j, const(table, int64)))))
    body: tuple = (Let("inside", inside),)
    if guarded:
        body += (Check(name("inside", bool_, lanes), "index out of range"),)
    value = load(t, (j,), apply("and", (mask, name("inside", bool_, lanes))))
    return Kernel("gather", (t, idx, y), (Loop(i, 0, n, lanes, (*body, Store(y, (at,), value, mask)), "parallel"),), ("y",))


@pytest.mark.parametrize("lanes", [1, 16])
def test_guarded_gather(lanes):
    table, idx = normal(100), rng.integers(0, 100, 53)
    assert np.array_equal(run(gather(53, 100, lanes), table=table, idx=idx)["y"], table[idx])


@pytest.mark.parametrize("lanes", [1, 16])
@pytest.mark.parametrize("bad", [-1, 100, 2**31 - 1, -(2**31)])
def test_a_failed_check_raises_index_error_and_touches_nothing_outside(lanes, bad):
    table, idx = normal(100), rng.integers(0, 100, 53)
    idx[29] = bad
    with pytest.raises(IndexError, match="index out of range"):
        run(gather(53, 100, lanes), table=table, idx=idx)
    y = run(gather(53, 100, lanes, guarded=False), table=table, idx=idx)["y"]
    assert y[29] == 0 and np.array_equal(np.delete(y, 29), table[np.delete(idx, 29)])


def test_the_status_of_one_run_does_not_stay_for_the_next():
    p = nests.program(gather(16, 100, 16))
    e = LLVMBackend().compile(p)
    bad = nests.buffers(p, {"table": normal(100), "idx": np.full(16, 100)})
    good = nests.buffers(p, {"table": normal(100), "idx": np.full(16, 99)})
    with pytest.raises(IndexError):
        e.run(bad)
    e.run(good)
    assert (good[2].array == good[0].array[99]).all()


@pytest.mark.parametrize("step", [2, 3, -1, -2, 0])
def test_strided_reversed_and_constant_lanes(step):
    n = 16 * max(abs(step), 1)
    x, y = Buf("x", float32, (n,)), Buf("y", float32, (16,))
    start = index(n - 1 if step < 0 else 0)
    at = ramp(start, 16, step) if step else splat(start, 16)
    body = (Store(y, (ramp(index(0), 16),), apply("add", (load(x, (at,)), const(1.0, float32)))),)
    data = normal(n)
    want = data[[(n - 1 if step < 0 else 0) + step * k for k in range(16)]] + 1
    assert np.array_equal(run(Kernel("strided", (x, y), body, ("y",)), x=data)["y"], want)


@pytest.mark.parametrize("dtype", [bool_, int8, float16, int32, float64])
def test_gather_by_computed_lanes_and_scatter(dtype):
    """y[(5 i) mod 16] = x[(3 i) div 2] with lanes that are not evenly spaced."""
    x, y = Buf("x", dtype, (32,)), Buf("y", dtype, (16,))
    i = ramp(index(0), 16)
    src = apply("floordiv", (apply("mul", (i, const(3, int64, 16))), const(2, int64, 16)))
    dst = apply("mod", (apply("mul", (i, const(5, int64, 16))), const(16, int64, 16)))
    data = rng.integers(0, 2, 32).astype(dtype.numpy)
    k = np.arange(16)
    want = np.empty(16, dtype.numpy)
    want[(5 * k) % 16] = data[3 * k // 2]
    assert np.array_equal(run(Kernel("permute", (x, y), (Store(y, (dst,), load(x, (src,))),), ("y",)), x=data)["y"], want)


def test_masked_off_lanes_load_zero_and_store_nothing():
    x, y = Buf("x", float32, (16,)), Buf("y", float32, (16,))
    at = ramp(index(0), 16)
    data = normal(16)
    value = apply("add", (load(x, (at,), below(at, 5)), const(1.0, float32)))
    out = run(Kernel("masked", (x, y), (Store(y, (at,), value, below(at, 9)),), ("y",)), x=data)["y"]
    assert np.array_equal(out, np.r_[data[:5] + 1, np.ones(4), np.full(7, 77)].astype(np.float32))


def test_a_masked_off_scalar_load_may_have_any_address():
    x, y = Buf("x", float32, (4,)), Buf("y", float32, (8,))
    i = var("i", 0, 7)
    far = apply("mul", (i, index(1 << 40)))
    value = load(x, (apply("where", (below(i, 4), i, far)),), below(i, 4))
    out = run(Kernel("far", (x, y), (Loop(i, 0, 8, 1, (Store(y, (i,), value),)),), ("y",)), x=normal(4))
    assert np.array_equal(out["y"], np.r_[out["x"], np.zeros(4, np.float32)])


def test_scalar_mask_on_a_store_and_an_accumulation():
    x, y = Buf("x", float32, (9,)), Buf("y", float32, (9,))
    i = var("i", 0, 8)
    big = apply("lt", (const(0.0, float32), load(x, (i,))))
    body = (Store(y, (i,), const(1.0, float32), big), Accumulate(y, (i,), "add", load(x, (i,)), big))
    data = normal(9)
    out = run(Kernel("masked", (x, y), (Loop(i, 0, 9, 1, body),), ("y",)), x=data)["y"]
    assert np.array_equal(out, np.where(data > 0, 1 + data, 77).astype(np.float32))


def test_streaming_stores_are_aligned_and_non_temporal():
    x, y = Buf("x", float32, (64,)), Buf("y", float32, (64,))
    i = var("i", 0, 48)
    at = ramp(i, 16)
    k = Kernel("copy", (x, y), (Loop(i, 0, 64, 16, (Store(y, (at,), load(x, (at,)), hint="stream"),)),), ("y",))
    assert "!nontemporal" in LLVMBackend().compile(nests.program(k)).source(0)
    data = normal(64)
    assert np.array_equal(run(k, x=data)["y"], data)
    shifted = ramp(apply("add", (i, index(1))), 16)
    z = Buf("y", float32, (65,))
    k = Kernel("shift", (x, z), (Loop(i, 0, 64, 16, (Store(z, (shifted,), load(x, (at,)), hint="stream"),)),), ("y",))
    assert "!nontemporal" not in LLVMBackend().compile(nests.program(k)).source(0)
    assert np.array_equal(run(k, x=data)["y"][1:], data)


def test_prefetch_changes_nothing():
    x, y = Buf("x", float32, (64,)), Buf("y", float32, (64,))
    i = var("i", 0, 48)
    body = (Prefetch(x, (apply("add", (i, index(1000))),)), Store(y, (ramp(i, 16),), load(x, (ramp(i, 16),))))
    k = Kernel("prefetch", (x, y), (Loop(i, 0, 64, 16, body),), ("y",))
    assert "llvm.prefetch" in LLVMBackend().compile(nests.program(k)).source(0)
    data = normal(64)
    assert np.array_equal(run(k, x=data)["y"], data)


# ---- memory of a kernel


def sums(rows: int, n: int, space: str, init: float) -> Kernel:
    """y[r] = init + sum of row r, gathered in a buffer of `space`, W lanes at a time."""
    x, y, acc = Buf("x", float32, (rows, n)), Buf("y", float32, (rows,)), Buf("acc", float32, (W,), space)
    r, j = var("r", 0, rows - 1), var("j", 0, n - W)
    lanes = (ramp(index(0), W),)
    body = (
        Alloc(acc, init),
        Loop(j, 0, n, W, (Accumulate(acc, lanes, "add", load(x, (r, ramp(j, W)))),), reduce=True),
        Store(y, (r,), lanes_reduce("add", load(acc, lanes))),
    )
    return Kernel("sums", (x, y), (Loop(r, 0, rows, 1, body, "parallel"),), ("y",))


@pytest.mark.parametrize("space", ["register", "local"])
@pytest.mark.parametrize("init", [0.0, 0.5, -0.0])
def test_accumulators_begin_anew_in_every_iteration(space, init):
    x = normal(40, 64)
    np.testing.assert_allclose(run(sums(40, 64, space, init), x=x)["y"], x.sum(1) + W * init, rtol=1e-4, atol=1e-4)


def test_register_accumulators_are_ssa_values():
    """No stack slot and no store to memory in the loop: the accumulators are phi nodes, and the tile has no spill."""
    e = LLVMBackend().compile(nests.program(nests.matmul(12, 64, 32)))
    assert "alloca" not in e.source(0)
    assert len(re.findall(r"%acc\.\d+(?:\.\d+)? = phi <16 x float>", e.source(0))) == 24
    vector_spills = [line for line in e.assembly(0).splitlines() if re.search(r"zmm.*\(%rsp\)|\(%rsp\).*zmm", line)]
    assert not vector_spills


def test_a_register_buffer_with_a_loop_index_lives_in_memory_and_is_right():
    x, y, acc = Buf("x", float32, (8,)), Buf("y", float32, (8,)), Buf("acc", float32, (8,), "register")
    i, j = var("i", 0, 7), var("j", 0, 7)
    body = (
        Alloc(acc, 1.0),
        Loop(i, 0, 8, 1, (Accumulate(acc, (apply("sub", (index(7), i)),), "add", load(x, (i,))),)),
        Loop(j, 0, 8, 1, (Store(y, (j,), load(acc, (j,))),)),
    )
    k = Kernel("reverse", (x, y), body, ("y",))
    assert "alloca" in LLVMBackend().compile(nests.program(k)).source(0)
    data = normal(8)
    assert np.array_equal(run(k, x=data)["y"], data[::-1] + 1)


def test_a_register_buffer_in_pieces_of_two_widths():
    x, y, acc = Buf("x", float32, (16,)), Buf("y", float32, (16,)), Buf("acc", float32, (16,), "register")
    lanes, i = (ramp(index(0), 16),), var("i", 0, 15)
    body = (
        Alloc(acc),
        Store(acc, lanes, load(x, lanes)),
        Loop(i, 0, 16, 1, (Store(y, (i,), load(acc, (i,))),), "unroll"),
    )
    data = normal(16)
    assert np.array_equal(run(Kernel("widths", (x, y), body, ("y",)), x=data)["y"], data)


@pytest.mark.parametrize("dtype,init", [(float32, 2.5), (int8, -3), (bool_, True), (float64, 0.0), (float16, 0.1)])
def test_local_buffers_start_with_their_value(dtype, init):
    n = 333
    y, t = Buf("y", dtype, (n,)), Buf("t", dtype, (n,), "local")
    i = var("i", 0, n - 1)
    body = (Alloc(t, init), Loop(i, 0, n, 1, (Store(y, (i,), load(t, (i,))),)))
    assert (run(Kernel("fill", (y,), body, ("y",)))["y"] == np.asarray(init, dtype.numpy)).all()


def test_a_value_loaded_before_a_store_is_the_old_one_and_after_it_the_new_one():
    y = Buf("y", float32, (4,))
    at = (index(0),)
    body = (
        Let("old", load(y, at)),
        Store(y, at, add(load(y, at), const(1.0, float32))),
        Store(y, (index(1),), add(load(y, at), const(0.0, float32))),
        Store(y, (index(2),), name("old", float32)),
    )
    assert run(Kernel("order", (y,), body, ("y",)), y=np.arange(4.0))["y"].tolist() == [1.0, 1.0, 0.0, 3.0]


def test_a_load_does_not_leave_a_loop_that_writes_the_buffer():
    """y[0] doubles in every iteration; z[i] sees each value."""
    y, z = Buf("y", float32, (1,)), Buf("z", float32, (6,))
    i = var("i", 0, 5)
    body = (Loop(i, 0, 6, 1, (Store(z, (i,), load(y, (index(0),))), Accumulate(y, (index(0),), "add", load(y, (index(0),))))),)
    assert run(Kernel("doubling", (y, z), body, ("y", "z")), y=[1.0])["z"].tolist() == [1, 2, 4, 8, 16, 32]


def test_parameters_that_share_memory_are_not_taken_to_be_apart():
    """Two names for one slot: the second loop must read what the first one wrote."""
    a, b, y = Buf("a", float32, (4,)), Buf("b", float32, (4,)), Buf("y", float32, (4,))
    i, j = var("i", 0, 3), var("j", 0, 3)
    two = load(a, (index(0),))
    body = (
        Loop(i, 0, 4, 1, (Store(y, (i,), two), Store(b, (index(0),), add(two, const(1.0, float32))))),
        Loop(j, 0, 4, 1, (Accumulate(y, (j,), "add", load(a, (index(0),))),)),
    )
    k = Kernel("alias", (a, b, y), body, ("b", "y"))
    p = nests.program(k)
    p = type(p)(p.name, (p.slots[0], p.slots[2]), (type(p.calls[0])(k, (0, 0, 1)),), 0)
    memory = nests.buffers(p, {"a": np.zeros(4)})
    LLVMBackend().compile(p).run(memory)
    assert memory[1].array.tolist() == [4.0, 5.0, 6.0, 7.0]


# ---- loops


@pytest.mark.parametrize("kind", ["serial", "unroll", "parallel"])
@pytest.mark.parametrize("bounds", [(0, 7, 1), (2, 11, 3), (5, 6, 4), (3, 3, 1)])
def test_loops_with_start_stop_and_step(kind, bounds):
    start, stop, step = bounds
    y = Buf("y", int64, (12,))
    i = var("i", start, max(start, stop - 1))
    k = Kernel("count", (y,), (Loop(i, start, stop, step, (Store(y, (i,), times(i, 2)),), kind),), ("y",))
    want = np.full(12, 77)
    want[start:stop:step] = 2 * np.arange(start, stop, step)
    assert np.array_equal(run(k)["y"], want)


def test_statements_before_and_after_a_parallel_loop():
    x, y, z = Buf("x", float32, (64,)), Buf("y", float32, (64,)), Buf("z", float32, (1,))
    i, j = var("i", 0, 63), var("j", 0, 63)
    body = (
        Store(z, (index(0),), const(3.0, float32)),
        Loop(i, 0, 64, 1, (Store(y, (i,), mul(load(x, (i,)), load(z, (index(0),)))),), "parallel"),
        Store(z, (index(0),), const(0.0, float32)),
        Loop(j, 0, 64, 1, (Accumulate(z, (index(0),), "maximum", load(y, (j,))),)),
    )
    data = normal(64)
    out = run(Kernel("phases", (x, y, z), body, ("y", "z")), x=data)
    assert np.array_equal(out["y"], data * 3) and out["z"][0] == max(0, (data * 3).max())


def test_a_let_means_another_value_in_every_unrolled_copy():
    y = Buf("y", int64, (6,))
    i, j = var("i", 0, 1), var("j", 0, 2)
    inner = Loop(
        j, 0, 3, 1, (Let("v", add(times(i, 10), j)), Store(y, (add(times(i, 3), j),), times(name("v", int64), 2))), "unroll"
    )
    k = Kernel("lets", (y,), (Loop(i, 0, 2, 1, (inner,), "unroll"),), ("y",))
    assert run(k)["y"].tolist() == [0, 2, 4, 20, 22, 24]


@pytest.mark.parametrize("op,want", [("add", 17.0), ("maximum", 9.0), ("mul", 0.0)])
def test_lanes_that_fall_on_one_element_are_reduced(op, want):
    x, y = Buf("x", float32, (16,)), Buf("y", float32, (1,))
    at = ramp(index(0), 16)
    body = (Store(y, (index(0),), const(1.0, float32)), Accumulate(y, (index(0),), op, load(x, (at,)), below(at, 5)))
    data = np.r_[[9.0, 0.0, 3.0, 2.0, 2.0], np.full(11, 1e6)]
    assert run(Kernel("one", (x, y), body, ("y",)), x=data)["y"][0] == want


def test_accumulating_to_equal_addresses_in_one_vector():
    x, idx, y = Buf("x", float32, (32,)), Buf("idx", int32, (32,)), Buf("y", float32, (4,))
    i, at = var("i", 0, 16), ramp(var("i", 0, 16), 16)
    where_ = apply("cast", (load(idx, (at,)),), int64)
    body = (Loop(i, 0, 32, 16, (Accumulate(y, (where_,), "add", load(x, (at,))),)),)
    data, places = rng.integers(0, 9, 32).astype(np.float32), rng.integers(0, 4, 32)
    want = np.zeros(4, np.float32)
    np.add.at(want, places, data)
    assert np.array_equal(run(Kernel("bins", (x, idx, y), body, ("y",)), x=data, idx=places, y=np.zeros(4))["y"], want)


@pytest.mark.parametrize("lanes", [2, 3, 8, 16])
@pytest.mark.parametrize("op", ["add", "maximum", "mul"])
def test_lanes_reduce(op, lanes):
    x, y = Buf("x", float64, (lanes,)), Buf("y", float64, (1,))
    k = Kernel("reduce", (x, y), (Store(y, (index(0),), lanes_reduce(op, load(x, (ramp(index(0), lanes),)))),), ("y",))
    data = rng.integers(-4, 5, lanes).astype(float)
    want = {"add": data.sum(), "maximum": data.max(), "mul": data.prod()}[op]
    assert run(k, x=data)["y"][0] == want


# ---- what the machine got


def test_instructions_carry_the_line_of_the_kernel_text():
    k = nests.softmax(4, 64)
    e = LLVMBackend().compile(nests.program(k))
    text = [line for line, _ in kernel_lines(k)]
    assembly, line = {}, 0
    for raw in e.assembly(0).splitlines():
        found = re.match(r"\s*\.loc\s+1 (\d+)", raw)
        if found:
            line = int(found[1])
        elif line and re.match(r"\s+v\w+", raw):
            assembly.setdefault(line, []).append(raw.split()[0])
    spoken = {n: text[n - 1].strip() for n in assembly}
    exp = next(n for n, t in spoken.items() if t.startswith("e = exp"))
    assert sum(op.startswith("vfmadd") or op.startswith("vfnmadd") for op in assembly[exp]) >= 6
    assert any(op.startswith("vmax") for n, t in spoken.items() if "max=" in t for op in assembly[n])
    assert any(op.startswith("vmov") for n, t in spoken.items() if t.startswith("y[") for op in assembly[n])


def test_every_function_of_a_kernel_has_debug_lines_of_its_own(capfd):
    """A kernel of several loops is several functions: lines of one are not those of another."""
    from tinyengine.backends.llvm_module import module

    one, other = (nests.elementwise(op, (float32,), float32, 64) for op in ("exp", "neg"))
    k = Kernel("two", one.params, (*one.body, *other.body), ("y",))
    e = LLVMBackend().compile(nests.program(k))
    text = module(e.codes, e.target, True)
    attached = re.findall(r"^define internal void .*!dbg !(\d+)", text, re.M)
    assert len(attached) == 2 == len(set(attached))
    for body, scope in zip(re.split(r"^define internal void ", text, flags=re.M)[1:], attached, strict=True):
        used = set(re.findall(r", !dbg !(\d+)", body.split("\n}")[0]))
        assert used and all(re.search(rf"^!{n} = !DILocation\(line: \d+, scope: !{scope}\)", text, re.M) for n in used)
    assert len(set(re.findall(r"\.loc\s+1 (\d+)", e.assembly(0)))) >= 4
    assert "ignoring invalid debug info" not in capfd.readouterr().err


def test_debug_lines_do_not_change_the_code():
    """The assembly that is shown is that of the code that runs, but for directives."""
    from tinyengine.backends import llvm_jit
    from tinyengine.backends.llvm_module import module

    e = LLVMBackend().compile(nests.program(nests.matmul(13, 64, 19)))

    def instructions(debug):
        text = llvm_jit.assembly(module(e.codes, e.target, debug), e.target)
        return [x.split("#")[0].strip() for x in text.splitlines() if re.match(r"\s+[a-z]", x) and not x.strip().startswith(".")]

    assert instructions(True) == instructions(False)


def test_no_function_is_called_from_a_vector_loop():
    for op in ("exp", "log", "sin", "tanh", "erf"):
        text = LLVMBackend().compile(nests.program(nests.elementwise(op, (float32,), float32, 64))).assembly(0)
        calls = [x for x in text.splitlines() if re.search(r"\bcallq?\b", x) and ".body" not in x]
        assert not calls, (op, calls)


def test_other_targets_can_be_emitted():
    """The target is a parameter: the same kernel as PTX and for AArch64, emitted, not run."""
    from tinyengine.backends import llvm_jit
    from tinyengine.backends.llvm_module import module
    from tinyengine.stages.emit import prepare

    code = prepare(nests.chain(64, 4))
    ptx = llvm_jit.Target("nvptx64-nvidia-cuda", "sm_90")
    assert ".target sm_90" in llvm_jit.assembly(module([code], ptx), ptx)
    arm = llvm_jit.Target("aarch64-unknown-linux-gnu", "generic")
    assert re.search(r"fmul\s+v\d+\.4s|fadd\s+v\d+\.4s", llvm_jit.assembly(module([code], arm), arm))


# ---- elementwise ops of the table, all dtypes


NUMBERS = [d for d in dtypes.ALL if d is not bool_]


def samples(d, n=67):
    if d is bool_:
        return rng.integers(0, 2, n).astype(bool)
    if d.is_float:
        x = rng.standard_normal(n) * 4
        x[:8] = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5]
        return rng.permutation(d.convert(x))
    info = np.iinfo(d.numpy)
    x = rng.integers(max(info.min, -100), min(info.max, 100), n)
    out = x.astype(d.numpy)
    out[:6] = [info.min, info.max, 0, 1, info.min + 1, info.max - 1]
    return rng.permutation(out)


BINARY = ["add", "sub", "mul", "maximum", "minimum", "lt", "eq", "floordiv", "mod", "and", "or", "xor", "div"]


def takes(op, d):
    """Whether the op table has `op` for operands of dtype `d`."""
    return not (
        (op in ("and", "or", "xor") and d.is_float)
        or (op == "div" and not d.is_float)
        or (op in ("sub", "floordiv", "mod") and d is bool_)
    )


@pytest.mark.parametrize("op,d", [(op, d) for op in BINARY for d in dtypes.ALL if takes(op, d) and d.layout is None])
def test_binary_ops(op, d):
    from tinyengine.ops import OPS

    a, b = samples(d), samples(d)
    result = bool_ if op in ("lt", "eq") else d
    for lanes in (1, 16):
        y = run(nests.elementwise(op, (d, d), result, 67, lanes), x0=a, x1=b)["y"]
        with np.errstate(all="ignore"):
            want = OPS[op].numpy(a, b)
        np.testing.assert_array_equal(y, want)


@pytest.mark.parametrize("d", [float16, float32, float64], ids=str)
@pytest.mark.parametrize("op", ["neg", "sqrt", "reciprocal", "trunc", "round"])
def test_unary_ops(op, d):
    from tinyengine.ops import OPS

    a = samples(d)
    for lanes in (1, 16):
        np.testing.assert_array_equal(run(nests.elementwise(op, (d,), d, 67, lanes), x0=a)["y"], OPS[op].numpy(a))


@pytest.mark.parametrize("target", dtypes.ALL, ids=str)
@pytest.mark.parametrize("source", dtypes.ALL, ids=str)
def test_casts(source, target):
    a = samples(source)
    if source.is_float and not target.is_float and target is not bool_:
        # out of range is undefined in C and NumPy; here it saturates, and NaN is 0
        exact = np.nan_to_num(a.astype(np.float64), nan=0.0, posinf=1e30, neginf=-1e30)
        want = np.array([min(max(int(v), target.min), target.max) for v in exact], target.numpy)
    else:
        with np.errstate(all="ignore"):
            want = target.convert(a)
    for lanes in (1, 16):
        got = run(nests.elementwise("cast", (source,), target, 67, lanes), x0=a)["y"]
        np.testing.assert_array_equal(target.decode(got), want)


@pytest.mark.parametrize("d", [int8, int32, uint8, uint32, int64], ids=str)
@pytest.mark.parametrize("op", ["shl", "shr"])
def test_shifts(op, d):
    a = samples(d)
    counts = rng.integers(0, 8 * d.itemsize, 67).astype(d.numpy)
    f = np.left_shift if op == "shl" else np.right_shift
    for lanes in (1, 16):
        np.testing.assert_array_equal(run(nests.elementwise(op, (d, d), d, 67, lanes), x0=a, x1=counts)["y"], f(a, counts))


def test_where_and_fma_and_bitcast():
    m, a, b = samples(bool_), samples(float32), samples(float32)
    np.testing.assert_array_equal(
        run(nests.elementwise("where", (bool_, float32, float32), float32, 67), x0=m, x1=a, x2=b)["y"], np.where(m, a, b)
    )
    c = samples(float32)
    exact = (a.astype(np.longdouble) * b + c).astype(np.float32)
    np.testing.assert_array_equal(run(nests.elementwise("fma", (float32,) * 3, float32, 67), x0=a, x1=b, x2=c)["y"], exact)
    np.testing.assert_array_equal(run(nests.elementwise("bitcast", (float32,), int32, 67), x0=a)["y"], a.view(np.int32))


@pytest.mark.parametrize("c", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("op", ["floordiv", "mod"])
@pytest.mark.parametrize("d", [int32, int64, uint8], ids=str)
def test_division_by_a_constant(op, c, d):
    x, y = Buf("x", d, (64,)), Buf("y", d, (64,))
    i = var("i", 0, 48)
    a = samples(d, 64)
    for lanes in (1, 16):
        at = (ramp(i, 16),) if lanes > 1 else (i,)
        value = apply(op, (load(x, at), const(c, d)))
        k = Kernel("divide", (x, y), (Loop(var("i", 0, 48) if lanes > 1 else i, 0, 64, lanes, (Store(y, at, value),)),), ("y",))
        np.testing.assert_array_equal(run(k, x=a)["y"], a // c if op == "floordiv" else a % c)


def test_mul_add_is_only_fused_in_an_accumulation():
    x, y = Buf("x", float32, (16,)), Buf("y", float32, (16,))
    at = (ramp(index(0), 16),)
    square = mul(load(x, at), load(x, at))
    plain = Kernel("plain", (x, y), (Store(y, at, add(square, const(1.0, float32))),), ("y",))
    assert "llvm.fma" not in LLVMBackend().compile(nests.program(plain)).source(0)
    fused = Kernel("fused", (x, y), (Accumulate(y, at, "add", square),), ("y",))
    assert "llvm.fma" in LLVMBackend().compile(nests.program(fused)).source(0)


# ---- lanes that lie apart


@pytest.mark.parametrize("d", [float32, int8, float64, bool_], ids=str)
@pytest.mark.parametrize("lanes", [4, 16, 32])
@pytest.mark.parametrize("step", [2, 3, 4, 5, 8, 9, 40])
@pytest.mark.parametrize("masked", [False, True])
def test_a_load_with_a_step(step, lanes, d, masked):
    """Nothing in front of the first or behind the last lane is read: the buffer ends there."""
    size = step * (lanes - 1) + 1
    x, y, i = Buf("x", d, (3, size)), Buf("y", d, (3, lanes)), var("i", 0, 2)
    at = ramp(index(0), lanes, step)
    mask = apply("lt", (ramp(i, lanes), splat(index(lanes - 1), lanes))) if masked else None
    k = Kernel("apart", (x, y), (Loop(i, 0, 3, 1, (Store(y, (i, ramp(index(0), lanes)), load(x, (i, at), mask)),)),), ("y",))
    data = rng.integers(0, 2 if d is bool_ else 100, (3, size)).astype(d.numpy)
    want = data[:, ::step].copy()
    if masked:
        want[np.add.outer(np.arange(3), np.arange(lanes)) >= lanes - 1] = 0
    assert np.array_equal(run(k, x=data)["y"], want)


@pytest.mark.parametrize("lanes", [4, 8, 16, 32])
@pytest.mark.parametrize("step", [2, 3, 5, 8])
def test_a_load_with_a_step_under_a_known_mask(step, lanes):
    """Every number of lanes that are on, beside another masked load; nothing behind the last of them is read, and
    LLVM is left no mask to reason about."""
    for on in range(lanes + 1):
        size = max(1, step * (on - 1) + 1)
        x, y, z = Buf("x", float32, (size,)), Buf("y", float32, (lanes,)), Buf("z", float32, (lanes,))
        near, far, to = ramp(index(0), lanes), ramp(index(0), lanes, step), (ramp(index(0), lanes),)
        body = (
            Store(y, to, load(x, (near,), apply("lt", (near, index(min(on, size)))))),
            Store(z, to, load(x, (far,), apply("lt", (near, index(on))))),
        )
        k = Kernel("known", (x, y, z), body, ("y", "z"))
        data = np.arange(1, size + 1, dtype=np.float32)
        got = run(k, x=data)
        np.testing.assert_array_equal(got["z"], np.r_[data[::step][:on], np.zeros(lanes - on)] if on else np.zeros(lanes))
        text = LLVMBackend().compile(nests.program(k)).source(0)
        assert len(re.findall(r"call .*@llvm.masked.load", text)) == 1, "only that of y"


@pytest.mark.parametrize("d", [float32, int8, float64, bool_], ids=str)
@pytest.mark.parametrize("lanes", [4, 16, 32])
@pytest.mark.parametrize("step", [2, 3, 4, 5, 8, 9, 40])
@pytest.mark.parametrize("masked", [False, True])
def test_a_store_with_a_step(step, lanes, d, masked):
    """Nothing between the lanes, behind the last one or where the mask does not hold is written."""
    size = step * (lanes - 1) + 1
    x, y, i = Buf("x", d, (3, lanes)), Buf("y", d, (3, size)), var("i", 0, 2)
    at = ramp(index(0), lanes, step)
    mask = apply("lt", (ramp(i, lanes), splat(index(lanes - 1), lanes))) if masked else None
    k = Kernel("apart", (x, y), (Loop(i, 0, 3, 1, (Store(y, (i, at), load(x, (i, ramp(index(0), lanes))), mask),)),), ("y",))
    data, before = (rng.integers(0, 2 if d is bool_ else 100, s).astype(d.numpy) for s in ((3, lanes), (3, size)))
    want = before.copy()
    for row in range(3):
        kept = np.arange(lanes) + row < lanes - 1 if masked else np.ones(lanes, bool)
        want[row, ::step][kept] = data[row][kept]
    assert np.array_equal(run(k, x=data, y=before)["y"], want)
    text = LLVMBackend().compile(nests.program(k)).source(0)
    assert text.count("call void @llvm.masked.store") == (-(-size // lanes) if step <= 8 else 0)


def between(step, lanes, d, reads=False):
    """y[i, step * k + c] = x[c, k] + i for all c in an unrolled loop; `reads`: plus what y holds there, from the loop itself."""
    x, y = Buf("x", d, (step, lanes)), Buf("y", d, (3, step * lanes))
    i, c = var("i", 0, 2), var("c", 0, step - 1)
    at = (i, apply("add", (ramp(index(0), lanes, step), splat(c, lanes))))
    value = load(x, (c, ramp(index(0), lanes)))
    if reads:
        value = apply("maximum", (value, load(y, at)))
    return Kernel("between", (x, y), (Loop(i, 0, 3, 1, (Loop(c, 0, step, 1, (Store(y, at, value),), "unroll"),)),), ("y",))


@pytest.mark.parametrize("d", [float32, float16, int8, float64, bool_], ids=str)
@pytest.mark.parametrize("lanes", [2, 4, 8, 16])
@pytest.mark.parametrize("step", [2, 3, 4, 7, 10, 16])
@pytest.mark.parametrize("reads", [False, True])
def test_stores_between_each_other_s_lanes(step, lanes, d, reads):
    """An unrolled loop that stores to all elements in turn writes whole vectors, as many as it has iterations. Where the loop
    reads what it writes, each store leaves gaps."""
    k = between(step, lanes, d, reads=reads)
    data, before = (rng.integers(0, 2 if d is bool_ else 100, s).astype(d.numpy) for s in ((step, lanes), (3, step * lanes)))
    want = np.stack([data.T.reshape(-1)] * 3)
    got = run(k, x=data, y=before)["y"]
    assert np.array_equal(got, np.maximum(want, before) if reads else want)
    text = LLVMBackend().compile(nests.program(k)).source(0)
    t = {float32: "float", float16: "half", int8: "i8", float64: "double", bool_: "i8"}[d]
    whole = not reads
    assert text.count(f"store <{lanes} x {t}>") == (step if whole else 0)
    assert ("call void @llvm.masked.store" in text) == (not whole and step <= 8)


def test_stores_whose_position_the_loop_moves_otherwise_do_not_wait():
    """y[16 * n + 2 * k + c] where n is a name that each iteration gives another value."""
    x, y, c = Buf("x", float32, (2, 8)), Buf("y", float32, (32,)), var("c", 0, 1)
    n = name("n", index(0).dtype)
    at = apply("add", (ramp(apply("mul", (n, index(16))), 8, 2), splat(c, 8)))
    body = (Let("n", apply("mul", (c, c))), Store(y, (at,), load(x, (c, ramp(index(0), 8)))))
    data = normal(2, 8)
    want = np.zeros(32, np.float32)
    want[0:16:2], want[17::2] = data
    got = run(Kernel("moved", (x, y), (Loop(c, 0, 2, 1, body, "unroll"),), ("y",)), x=data, y=np.zeros(32, np.float32))["y"]
    assert np.array_equal(got, want)


def test_stores_between_each_other_s_lanes_keep_their_order():
    """Two stores to one buffer in the loop do not wait: the later one of an element stays the later one."""
    x, y, c = Buf("x", float32, (2, 8)), Buf("y", float32, (16,)), var("c", 0, 1)
    at = apply("add", (ramp(index(0), 8, 2), splat(c, 8)))
    row = load(x, (c, ramp(index(0), 8)))
    body = (Store(y, (at,), row), Store(y, (ramp(index(0), 8),), row))
    data = normal(2, 8)
    want = np.zeros(16, np.float32)
    for k in (0, 1):
        want[k::2] = data[k]
        want[:8] = data[k]
    got = run(Kernel("order", (x, y), (Loop(c, 0, 2, 1, body, "unroll"),), ("y",)), x=data, y=np.zeros(16, np.float32))["y"]
    assert np.array_equal(got, want)


@pytest.mark.parametrize("step", [2, 4, 5, 8, 16, 20])
@pytest.mark.parametrize("count", [2, 8, 16, 35])
def test_columns_that_an_unrolled_loop_reads_share_their_loads(step, count):
    size = step * 15 + count
    x, y, c = Buf("x", float32, (size,)), Buf("y", float32, (count, 16)), var("c", 0, count - 1)
    at = apply("add", (ramp(index(0), 16, step), splat(c, 16)))
    k = Kernel("columns", (x, y), (Loop(c, 0, count, 1, (Store(y, (c, ramp(index(0), 16)), load(x, (at,))),), "unroll"),), ("y",))
    data = normal(size)
    assert np.array_equal(run(k, x=data)["y"], np.stack([data[i :: step][:16] for i in range(count)]))
    text = LLVMBackend().compile(nests.program(k)).source(0)
    if step <= 16 and step <= count:
        assert text.count("load <16 x float>") == step * (count // step) + (step * (count % step) if step <= 8 else 0)
    elif count >= 16:
        assert text.count("load <16 x float>") == 16 * (count // 16)


@pytest.mark.parametrize("count", [4, 8])
def test_few_columns_are_turned_in_blocks_beside_each_other(count):
    """16 rows of fewer columns than lanes: each row is loaded once, as many elements as there are columns."""
    x, y, c = Buf("x", float32, (640,)), Buf("y", float32, (count, 16)), var("c", 0, count - 1)
    at = apply("add", (ramp(index(0), 16, 40), splat(c, 16)))
    k = Kernel("few", (x, y), (Loop(c, 0, count, 1, (Store(y, (c, ramp(index(0), 16)), load(x, (at,))),), "unroll"),), ("y",))
    data = normal(16, 40)
    assert np.array_equal(run(k, x=data.reshape(-1))["y"], data[:, :count].T)
    text = LLVMBackend().compile(nests.program(k)).source(0)
    assert text.count(f"load <{count} x float>") == 16 and "gather" not in text


@pytest.mark.parametrize("d", [float32, bool_, int8], ids=str)
@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("start", [0, 1, 5])
@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_lanes_that_share_elements_with_their_neighbours(count, start, lanes, d):
    """x[(i + start) // count]: one load or two of what the lanes need and nothing behind it, for every number of lanes that are
    on."""
    for on in range(lanes + 1):
        size = max(1, (start + on - 1) // count + 1)
        x, y = Buf("x", d, (size,)), Buf("y", d, (lanes,))
        at = apply("floordiv", (ramp(index(start), lanes), splat(index(count), lanes)))
        mask = apply("lt", (ramp(index(0), lanes), splat(index(on), lanes))) if on < lanes else None
        k = Kernel("shared", (x, y), (Store(y, (ramp(index(0), lanes),), load(x, (at,), mask)),), ("y",))
        data = rng.integers(0, 2 if d is bool_ else 100, size).astype(d.numpy)
        want = data[(np.arange(lanes) + start) // count % size]
        want[on:] = 0
        assert np.array_equal(run(k, x=data)["y"], want)
        assert "gather" not in LLVMBackend().compile(nests.program(k)).source(0)


@pytest.mark.parametrize(("step", "whole"), [(16, True), (12, False)])
def test_lanes_that_share_elements_in_a_loop(step, whole):
    """x[i // 8]: where the loop's steps are not multiples of 8, nothing is known about which lanes share."""
    x, y, i = Buf("x", float32, (30,)), Buf("y", float32, (240,)), var("i", 0, 239)
    at = apply("floordiv", (ramp(i, step), splat(index(8), step)))
    k = Kernel("shared", (x, y), (Loop(i, 0, 240, step, (Store(y, (ramp(i, step),), load(x, (at,))),)),), ("y",))
    data = normal(30)
    assert np.array_equal(run(k, x=data)["y"], np.repeat(data, 8))
    assert ("gather" in LLVMBackend().compile(nests.program(k)).source(0)) is not whole


@pytest.mark.parametrize("d", [float32, bool_], ids=str)
@pytest.mark.parametrize("step", [2, 4])
def test_stores_between_each_other_s_lanes_under_a_mask(step, d):
    """The first lanes only, in every iteration: whole vectors up to where they end, then pieces; nothing behind is written."""
    lanes = 16
    for on in range(lanes + 1):
        x, y, c = Buf("x", d, (step, lanes)), Buf("y", d, (step * on + 1,)), var("c", 0, step - 1)
        at = apply("add", (ramp(index(0), lanes, step), splat(c, lanes)))
        mask = apply("lt", (ramp(index(0), lanes), splat(index(on), lanes)))
        body = (Store(y, (at,), load(x, (c, ramp(index(0), lanes))), mask),)
        k = Kernel("between", (x, y), (Loop(c, 0, step, 1, body, "unroll"),), ("y",))
        data = rng.integers(0, 2 if d is bool_ else 100, (step, lanes)).astype(d.numpy)
        got = run(k, x=data, y=np.zeros(step * on + 1, d.numpy))["y"]
        assert np.array_equal(got, np.r_[data[:, :on].T.reshape(-1), np.zeros(1, d.numpy)])
        assert "masked.store" not in LLVMBackend().compile(nests.program(k)).source(0)
