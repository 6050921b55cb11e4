"""Products that memory bounds: what is fetched ahead, how many rows at a time, and when a hint is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.engine import forms
from tests.engine.test_registers import TARGETS, assembly
from tests.engine.test_schedule import AVX2
from tinyengine import Tensor
from tinyengine.choices import DEFAULT
from tinyengine.hooks import Decision
from tinyengine.loopnest import Kernel
from tinyengine.machine import FIXTURE, Machine
from tinyengine.node import Graph
from tinyengine.pipeline import lower
from tinyengine.stages import schedule


def product(m: int, n: int, k: int, machine: Machine = FIXTURE) -> tuple[Kernel, list[Decision]]:
    kernel, decisions = schedule.run(forms.matmul(m, n, k), DEFAULT, machine)
    return kernel, list(decisions)


def hints(k: Kernel) -> list[str]:
    return [p for p in k.schedule if p.startswith("prefetch(")]


def test_rows_are_fetched_ahead_where_the_last_cache_does_not_hold_the_product() -> None:
    large, _ = product(2048, 2048, 2048)
    assert [h.split(",")[0] for h in hints(large)] == ["prefetch(x", "prefetch(w"]
    middle, decisions = product(1024, 1024, 1024)
    assert [h.split(",")[0] for h in hints(middle)] == ["prefetch(w"]  # the panel is copied from beyond the second cache
    assert any(d.verdict == "none" and "the last cache holds" in d.reason for d in decisions)
    assert not hints(product(512, 512, 512)[0])


def test_hints_take_no_load_that_the_products_need() -> None:
    narrow = replace(AVX2, vector_registers=8)  # a tile of two rows of two vectors: each load slot is taken
    kernel, decisions = product(4096, 2048, 1024, narrow)
    assert not any(h.startswith("prefetch(x") for h in hints(kernel))
    assert any(d.verdict == "none" and "loads that the products need" in d.reason for d in decisions)


@pytest.mark.parametrize("columns, rows", [(4096, 8), (4112, 32)])
def test_few_rows_times_a_large_matrix_fetch_its_next_rows(columns: int, rows: int) -> None:
    """As many at a time as the first cache holds: of those that lie whole pages apart, fewer."""
    kernel, _ = product(16, columns, 4096)
    assert f"tile(k, {rows})" in kernel.schedule and hints(kernel) == ["prefetch(w, ko, at=ki)"]


@pytest.mark.parametrize("name", TARGETS)
def test_a_hint_is_one_instruction_of_a_turn(name: str) -> None:
    machine, target = TARGETS[name]
    kernel, _ = product(16, 4112, 2048, machine)
    lines = assembly(kernel, target)
    assert any("prefetch" in line for line in lines)
    assert not any("rsp" in line for line in lines if "fmadd" in line)  # and it takes no register from the products


def test_results_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((5, 700), (700, 1100)))
    small = replace(FIXTURE, l2_bytes=1 << 16, l3_bytes=1 << 18)
    lowered = lower(Graph([(Tensor(a) @ Tensor(b)).node]), DEFAULT, small, "llvm")
    assert hints(lowered.scheduled[0])
    np.testing.assert_allclose(lowered.run()[0], a.astype(np.float64) @ b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("machine", [FIXTURE, AVX2], ids=lambda m: m.name[:7])
def test_a_transposed_left_operand_is_turned_once_for_each_thread(machine: Machine) -> None:
    """Panels of the other operand are copied once for each piece of the rows."""
    a, b = (Tensor(np.ones((1024, 1024), np.float32)) for _ in range(2))
    (kernel,) = lower(Graph([(a.T @ b).node]), DEFAULT, machine, "llvm").scheduled
    rows = next(int(p.split(", ")[1][:-1]) for p in kernel.schedule if p.startswith("tile(i,"))
    assert 512 <= rows < 540 and any(p.startswith("pack(") and "axes=(1, 0)" in p for p in kernel.schedule)


def test_a_sum_in_one_vector_has_several_chains() -> None:
    """A row times a narrow matrix: each product would wait for the sum before it."""
    x, w = (Tensor(np.ones(s, np.float32)) for s in ((5000,), (5000, 16)))
    lowered = lower(Graph([(x @ w).node]), DEFAULT, FIXTURE, "llvm")
    assert "accumulate(r, 4)" in lowered.scheduled[0].schedule
    np.testing.assert_allclose(lowered.run()[0], 5000)
