"""Schedules of rows that data picks: whole rows are read, and their positions checked once."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine.test_schedule import AVX2
from tinyengine import Tensor
from tinyengine.loopnest import Accumulate, Alloc, Check, Loop, load_index, stmt_exprs, subexprs, walk
from tinyengine.machine import FIXTURE, Machine
from tinyengine.node import Graph
from tinyengine.pipeline import Lowered, lower

rng = np.random.default_rng(0)
MACHINES = pytest.mark.parametrize("machine", [FIXTURE, AVX2], ids=lambda m: m.name[:7])


def floats(*shape: int) -> Tensor:
    return Tensor(rng.standard_normal(shape).astype(np.float32))


def ints(below: int, *shape: int) -> Tensor:
    return Tensor(rng.integers(0, below, shape).astype(np.int32))


def lowered(x: Tensor, machine: Machine) -> Lowered:
    return lower(Graph([x.node]), machine=machine)


def gathers(low: Lowered) -> int:
    """Loads whose lanes lie where data says."""
    loads = [x for k in low.scheduled for s in walk(k.body) for e in stmt_exprs(s) for x in subexprs(e) if x.op == "load"]
    return sum(any(i.lanes > 1 and i.op != "ramp" for i in load_index(x)) for x in loads)


@MACHINES
@pytest.mark.parametrize(("width", "whole"), [(1, False), (2, False), (4, True), (8, True), (12, True)])
def test_rows_that_data_picks_are_read_whole_unless_they_are_very_short(machine: Machine, width: int, whole: bool) -> None:
    x, at = floats(50, width), ints(50, 640)
    low = lowered(x[at] * 2 + 1, machine)
    assert (gathers(low) == 0) == whole
    np.testing.assert_allclose(low.run()[0].reshape(640, width), x.numpy()[at.numpy()] * 2 + 1, rtol=1e-6)


@MACHINES
def test_short_rows_are_added_to_where_data_says_a_vector_at_a_time(machine: Machine) -> None:
    x, at, rows = floats(50, 4), ints(50, 640), floats(640, 4)
    low = lowered(x.index_add(0, at, rows), machine)
    (added,) = [s for k in low.scheduled for s in walk(k.body) if isinstance(s, Accumulate)]
    assert added.value.lanes == 4
    want = x.numpy().astype(np.float64)
    np.add.at(want, at.numpy(), rows.numpy())
    np.testing.assert_allclose(low.run()[0], want, rtol=1e-5, atol=1e-5)


@MACHINES
def test_a_sum_of_rows_that_data_picks_checks_each_position_once_for_several_vectors(machine: Machine) -> None:
    x, at = floats(500, 64), ints(500, 32, 20)
    low = lowered(x[at].mean(1), machine)
    (kernel,) = low.scheduled
    around = [s for s in walk(kernel.body) if isinstance(s, Loop) and not s.reduce and any(isinstance(b, Alloc) for b in s.body)]
    columns = around[-1]
    assert columns.step >= 4 * machine.vector_bytes // 4, "four vectors of a row beside each other"
    assert sum(isinstance(s, Check) for s in walk((columns,))) == 1
    np.testing.assert_allclose(low.run()[0], x.numpy()[at.numpy()].mean(1), rtol=1e-5, atol=1e-6)


def test_positions_are_checked_in_their_own_width_and_all_lanes_at_once() -> None:
    x, at = floats(50), ints(50, 640)
    source = lowered(x[at], FIXTURE).executable.source(0)
    assert "icmp ult <16 x i32>" in source and "icmp ult <16 x i64>" not in source
    assert "bitcast <16 x i1>" in source and "shufflevector" not in source
    wide = lowered(x[at.cast("int64")], FIXTURE).executable.source(0)
    assert "icmp ult <16 x i64>" in wide
