"""Kernels that only move elements: what lies across is turned or woven in registers, and masks stand where they are needed."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from tests.engine.test_registers import TARGETS
from tinyengine import Tensor, autograd, dtypes
from tinyengine.backends import llvm_jit
from tinyengine.backends.llvm_module import module
from tinyengine.choices import DEFAULT
from tinyengine.hooks import Decision
from tinyengine.loopnest import Kernel, Loop, load_mask, stmt_exprs, subexprs, walk
from tinyengine.machine import FIXTURE, Machine
from tinyengine.node import Graph
from tinyengine.pipeline import Lowered, lower
from tinyengine.stages.emit import prepare
from tinyengine.stages.schedules.cost import crowded, woven

ONE = replace(FIXTURE, threads=1)


def lowered(t: Tensor, machine: Machine = ONE) -> Lowered:
    return lower(Graph([t.contiguous().node]), DEFAULT, machine, "llvm")


def ones(*shape: int, dtype: str = "float32") -> Tensor:
    return Tensor(np.ones(shape, dtype))


def kernel(t: Tensor, machine: Machine = ONE) -> Kernel:
    (k,) = lowered(t, machine).scheduled
    return k


def source(k: Kernel) -> str:
    return module([prepare(k)], llvm_jit.host())


def said(low: Lowered, kind: str) -> list[Decision]:
    assert low.scheduled
    return [d for d in low.decisions if d.kind == kind]


def strided_gradient(step: int) -> Tensor:
    x = ones(step * 3000 + 1).requires_grad_(True)
    (g,) = autograd.grad(x[::step], x, grad_outputs=ones(3001))
    assert g is not None
    return g


# ---- woven


@pytest.mark.parametrize("rows", [2, 3, 5, 7, 10, 16])
def test_rows_are_woven_into_each_other_and_stored_whole(rows: int) -> None:
    """As many whole vectors are stored as are read, none with gaps, none element by element."""
    text = source(kernel(Tensor.stack([ones(1600) for _ in range(rows)], dim=-1)))
    assert text.count("store <16 x float>") == rows == text.count("load <16 x float>")
    assert "masked" not in text and "extractelement" not in text


@pytest.mark.parametrize("rows", [2, 3, 5, 7, 10, 16])
def test_woven_rows_are_taken_apart(rows: int) -> None:
    text = source(kernel(ones(1600, rows).permute(1, 0)))
    assert text.count("load <16 x float>") == rows == text.count("store <16 x float>")
    assert "gather" not in text


@pytest.mark.parametrize(("rows", "shuffles"), [(2, 2), (3, 6), (4, 8), (6, 18), (9, 36), (16, 64)])
def test_a_shuffle_less_than_each_prime_for_a_vector(rows: int, shuffles: int) -> None:
    text = source(kernel(ones(rows, 1600).permute(1, 0)))
    assert len(re.findall(r"= shufflevector", text)) == shuffles == 2 * rows * (woven(rows) - 1)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("rows", [3, 4, 8])
def test_weaving_needs_no_memory_of_its_own(name: str, rows: int) -> None:
    """A vector register for each row, and few instructions for each vector, also with 16 registers."""
    machine, target = TARGETS[name]
    k = kernel(ones(rows, 4096).permute(1, 0), machine)
    lines = [x.split("#")[0].strip() for x in llvm_jit.assembly(module([prepare(k)], target), target).splitlines()]
    vectors = [x for x in lines if x.startswith("v")]
    assert not any("(%rsp)" in x for x in vectors)
    assert len(vectors) <= 10 * rows


# ---- turned


@pytest.mark.parametrize("shape", [(33, 200), (200, 35), (20, 19), (11, 300)])
def test_the_rest_of_a_block_is_turned_too(shape: tuple[int, int]) -> None:
    """Rows and columns that fill no block are read as parts of rows, and not gathered element by element."""
    assert "gather" not in source(kernel(ones(*shape).permute(1, 0)))


def test_columns_that_run_backwards_are_turned() -> None:
    x = np.arange(70 * 90, dtype=np.float32).reshape(70, 90)
    low = lowered(Tensor(x).permute(1, 0).flip(0))
    assert "gather" not in source(low.scheduled[0])
    np.testing.assert_array_equal(low.run()[0], x.T[::-1])


def test_rows_that_share_sets_of_the_cache_are_turned_through_memory() -> None:
    """1024 floats are a page: a vector of each of 16 rows of the result lies in one set of the first cache."""
    low = lowered(ones(1024, 300).permute(1, 0))
    (d,) = said(low, "pack")
    assert d.numbers["row_bytes"] == 4096 and "sets of the first cache" in d.reason
    assert not said(lowered(ones(1000, 300).permute(1, 0)), "pack")


@pytest.mark.parametrize(
    ("pitch", "rows", "crowds"),
    [(4096, 16, True), (4092, 16, True), (2048, 16, False), (2048, 64, True), (3108, 64, False)],
)
def test_what_crowds_a_set(pitch: int, rows: int, crowds: bool) -> None:
    assert crowded(pitch, rows) == crowds


# ---- phases


@pytest.mark.parametrize("step", [2, 3, 5])
def test_zeros_between_elements_need_no_divisions(step: int) -> None:
    low = lowered(strided_gradient(step))
    (k,) = low.scheduled
    assert k.schedule[0] == f"phases(i, {step})"
    inside = [x for s in walk(k.body) for e in stmt_exprs(s) for x in subexprs(e)]
    assert not any(x.op in ("floordiv", "mod") for x in inside)
    text = source(k)
    assert text.count("store <16 x float>") == step and "gather" not in text
    want = np.zeros(step * 3000 + 1, np.float32)
    want[::step] = 1
    np.testing.assert_array_equal(low.run()[0], want)


# ---- masks


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_only_the_vectors_of_a_border_have_masks(mode: str) -> None:
    k = kernel(ones(2, 40, 100).pad((3, 3, 3, 3), mode=mode))
    inner = [s for s in walk(k.body) if isinstance(s, Loop) and s.trips > 1 and not any(isinstance(b, Loop) for b in s.body)]
    loads = [x for s in inner for b in s.body for e in stmt_exprs(b) for x in subexprs(e) if x.op == "load"]
    assert loads and all(load_mask(x) is None for x in loads)


def test_a_rotation_of_halves_has_no_masks() -> None:
    x, c = ones(64, 64), ones(64, 32)
    a, b = x[:, :32], x[:, 32:]
    k = kernel(Tensor.cat([a * c - b * c, a * c + b * c], dim=1))
    assert not any(load_mask(x) is not None for s in walk(k.body) for e in stmt_exprs(s) for x in subexprs(e) if x.op == "load")


# ---- width, streams


@pytest.mark.parametrize(("dtype", "lanes"), [("int8", 64), ("bool", 64), ("int16", 32), ("float32", 16), ("int64", 8)])
def test_what_only_moves_fills_whole_vectors(dtype: str, lanes: int) -> None:
    assert f"vectorize(j, {lanes})" in kernel(ones(500, 999, dtype=dtype).roll(1, 0)[:, :800]).schedule


def test_what_is_computed_keeps_the_lanes_of_its_arithmetic() -> None:
    t = ones(5000, dtype="int8")
    assert any(p.startswith("vectorize(i") and p.endswith(", 16)") for p in kernel(t * t + t).schedule)


def test_rows_that_begin_within_a_line_do_not_stream() -> None:
    """A part of a line that goes past the cache is a transfer of its own."""
    small = replace(ONE, l3_bytes=1 << 16)
    inside, whole = (lowered(ones(40, 64, 64).pad((1, n, 0, 0)), small) for n in (1, 15))
    (d,) = said(inside, "streaming")
    assert d.verdict == "none" and d.numbers["row_bytes"] == 66 * 4 and d.numbers["line_bytes"] == 64
    (d,) = said(whole, "streaming")
    assert d.verdict.startswith("streaming(")
    assert "nontemporal" in source(whole.scheduled[0])


@pytest.mark.parametrize(("l3_bytes", "streams"), [(8 * 64 * 64 * 16, True), (8 * 64 * 64 * 16 + 128, False)])
def test_half_of_the_last_cache_streams(l3_bytes: int, streams: bool) -> None:
    """With as much that is read, the whole cache is used then."""
    (k,) = lowered(ones(64, 64, 16).permute(1, 0, 2), replace(ONE, l3_bytes=l3_bytes)).scheduled
    assert any(p.startswith("streaming(") for p in k.schedule) == streams


def test_halves_move_without_rounding() -> None:
    x = ones(300, 70).cast(dtypes.bfloat16)
    x.realize()
    assert "fptrunc" not in source(kernel(x.permute(1, 0)))
