"""Findings beyond the roofs: each on a planted fault, and on the healthy kernel or program beside it nothing."""

from __future__ import annotations

import copy

import pytest

from tests.tinyviz.test_roofline import FAULTY, HEALTHY, only, planted, seconds
from tinyviz import wire
from tinyviz.viewdata import Diagnosis


def codes(found: list[Diagnosis]) -> list[str]:
    return [x.code for x in found]


def node(p: wire.Program, op: str, dtype: str, shape: list[int], src: list[int]) -> int:
    row = (op, dtype, shape, src, "", "forward", "", [], [], -1, "")
    for column, value in zip(vars(p.nodes).values(), row, strict=True):
        column.append(value)
    return len(p.nodes) - 1


def edge(verdict: str, nodes: list[int], numbers: dict[str, float], alternatives: dict[str, str]) -> wire.Decision:
    return wire.Decision("fuse", "edge", "%1 -> %2", nodes, -1, verdict, "because", numbers, alternatives)


def recomputing(p: wire.Program, kernel: int, numbers: dict[str, float], bound: str = "compute") -> None:
    """The kernel computes 1 MFLOP, and takes in a value with these numbers."""
    a = node(p, "exp", "float32", [1000], [])
    b = node(p, "add", "float32", [1000], [a])
    p.kernels[kernel].nodes, p.kernels[kernel].bound = [a, b], bound
    p.decisions.append(edge("inline", [a, b], {"elements": 1000.0, **numbers}, {"whole": "dearer"}))


OFTEN = {"evaluations": 800_000.0, "flops_recomputed": 799_000.0, "seconds_whole": 2e-5}


def test_recompute(sample: wire.Recording) -> None:
    def plant(p: wire.Program) -> None:
        recomputing(p, FAULTY, OFTEN)
        recomputing(p, HEALTHY, {"evaluations": 1000.0, "flops_recomputed": 0.0, "seconds_whole": 2e-5})

    found = only(planted(sample, plant), "recompute")
    assert "800 times" in found.evidence and "799 k of 1 M FLOPs" in found.evidence and found.decision == 2
    assert "to take 20.0 µs" in found.evidence
    assert found.gain == pytest.approx(8e-5), "no more than what is above the roof, less storing it"


@pytest.mark.parametrize(("numbers", "bound"), [
    (OFTEN | {"flops_recomputed": 0.0}, "compute"),  # a cast or a view: doing it again is no arithmetic
    (OFTEN | {"flops_recomputed": 1000.0}, "compute"),
    (OFTEN | {"seconds_whole": 2e-4}, "compute"),  # storing it would take longer
    (OFTEN, "memory"),  # arithmetic is not what takes the time
])  # fmt: skip
def test_recomputing_is_no_fault_where_it_is_cheap(sample: wire.Recording, numbers: dict[str, float], bound: str) -> None:
    assert codes(planted(sample, lambda p: recomputing(p, FAULTY, numbers, bound)).diagnoses) == []


def test_each_kernel_that_computes_a_value_again_has_its_part(sample: wire.Recording) -> None:
    def plant(p: wire.Program) -> None:
        recomputing(p, FAULTY, OFTEN)
        p.kernels[HEALTHY].nodes = p.kernels[FAULTY].nodes[:1]

    assert "recompute" not in codes(planted(sample, plant).diagnoses), "400 k of 1 M FLOPs"


def test_transcendental(sample: wire.Recording) -> None:
    def plant(p: wire.Program, expanded: int) -> None:
        for kernel, op in ((FAULTY, "tanh"), (HEALTHY, "add")):
            k = p.kernels[kernel]
            k.nodes, k.flops_expanded = [node(p, op, "float32", [1000], [])], expanded
        seconds(p, FAULTY, 1e-3)

    found = only(planted(sample, lambda p: plant(p, 70_000_000)), "transcendental")
    assert "tanh" in found.sentence and "1 M FLOPs are 70 M" in found.evidence and "700 µs" in found.evidence
    assert found.gain == pytest.approx(3e-4)
    few = planted(sample, lambda p: plant(p, 2_000_000)).diagnoses
    assert codes(few) == ["far-from-roofs"], "they are too few to explain it"


def test_masked_tail(sample: wire.Recording) -> None:
    def plant(p: wire.Program) -> None:
        for k, extent in ((FAULTY, 17), (HEALTHY, 64)):
            p.kernels[k].loops.text = ["kernel k(x: float32[64] out)", f"  for i in 0..{extent}:", "    x[i] = 0"]
            p.kernels[k].schedule = ["vectorize(i, 16)"]

    found = only(planted(sample, plant), "masked-tail")
    assert "17 iterations for vectors of 16: 47 %" in found.evidence


def test_conversion(sample: wire.Recording) -> None:
    def plant(p: wire.Program) -> None:
        x = node(p, "buffer", "float64", [10], [])
        p.kernels[FAULTY].nodes = [node(p, "cast", "float32", [10], [x])]
        y = node(p, "cast", "float32", [10], [x])
        p.kernels[HEALTHY].nodes = [y, node(p, "exp", "float32", [10], [y])]

    assert "float64 into float32" in only(planted(sample, plant), "conversion").evidence


def test_gather_from_a_large_table(sample: wire.Recording) -> None:
    def plant(p: wire.Program) -> None:
        for k, rows in ((FAULTY, 1_000_000), (HEALTHY, 10)):
            table, index = node(p, "buffer", "float32", [rows, 4], []), node(p, "buffer", "int32", [8, 4], [])
            p.kernels[k].nodes = [node(p, "gather", "float32", [8, 4], [table, index])]
        seconds(p, FAULTY, 1e-3)

    found = only(planted(sample, plant), "gather")
    assert "15.3 MiB" in found.evidence and "L2" in found.evidence


def test_strided(sample: wire.Recording) -> None:
    def plant(p: wire.Program) -> None:
        for k, order in ((FAULTY, "j, i"), (HEALTHY, "i, j")):
            head = ["kernel k(x: float32[64, 64], y: float32[64, 64] out)", "  for i in 0..64:", "    for j in 0..64:"]
            p.kernels[k].loops.text = [*head, f"      v = x[{order}]", "      y[i, j] = v"]
            p.kernels[k].schedule = ["vectorize(j, 16)"]
            seconds(p, k, 2.5e-4)

    found = only(planted(sample, plant), "strided")
    assert "x[j, i] steps by 256 bytes along the vectorised loop j" in found.evidence


@pytest.mark.parametrize(("time", "found"), [(1e-3, True), (4e-4, False)])
def test_strided_under_the_arithmetic_roof_only_far_from_it(sample: wire.Recording, time: float, found: bool) -> None:
    def plant(p: wire.Program) -> None:
        p.kernels[FAULTY].flops = 18_000_000  # 180 µs of arithmetic
        p.kernels[FAULTY].loops.text = ["kernel k(x: float32[64, 64])", "  for j in 0..64:", "      v = x[j, i]"]
        p.kernels[FAULTY].schedule = ["vectorize(j, 16)"]
        seconds(p, FAULTY, time)

    assert ("strided" in codes(planted(sample, plant).diagnoses)) is found


def test_a_packed_operand_is_not_strided(sample: wire.Recording) -> None:
    def plant(p: wire.Program) -> None:
        p.kernels[FAULTY].loops.text = ["kernel k(x: float32[64, 64])", "  for j in 0..64:", "      v = x[j, i]"]
        p.kernels[FAULTY].schedule = ["pack(x, at=jo)", "vectorize(j, 16)"]
        seconds(p, FAULTY, 4e-4)

    assert "strided" not in codes(planted(sample, plant).diagnoses)


def test_denormals(sample: wire.Recording) -> None:
    def plant(p: wire.Program) -> None:
        for k, share in ((FAULTY, 0.4), (HEALTHY, 0.0)):
            n = node(p, "mul", "float32", [8], [])
            p.kernels[k].nodes = [n]
            columns = wire.Samples([3], [0.0], [1.0], [0.5], [0.1], [1.0], [0.0], [0], [share], [None], [[1]])
            p.values.append(wire.Series("h", "activation", "m", n, [8], columns))

    found = only(planted(sample, plant), "denormals")
    assert "40 % of h (activation) in run 3" in found.evidence


def test_host_bound(sample: wire.Recording) -> None:
    def plant(p: wire.Program) -> None:
        p.launches.host_median = 2e-3

    found = only(planted(sample, plant), "host-bound")
    assert found.kernel == -1 and "400 µs are kernels and 1.60 ms are not" in found.evidence

    def healthy(p: wire.Program) -> None:
        p.launches.host_median = 4.5e-4

    assert "host-bound" not in codes(planted(sample, healthy).diagnoses)


def test_starved(sample: wire.Recording) -> None:
    def plant(p: wire.Program, low: float = 3e-3) -> None:
        n = p.launches
        n.count, n.host_median, n.gap_median, n.gap_low, n.gap_high = 50, 4.2e-4, 4e-3, low, 5e-3
        sample.waits = [wire.Wait("data.batches", 0.15, 0.0, 50)]

    found = only(planted(sample, plant), "starved")
    assert "median of 50 runs 420 µs, between them 4 ms; data.batches took 3 ms for each batch" in found.evidence
    assert found.gain == 4e-3
    assert "starved" not in codes(planted(sample, lambda p: plant(p, 1e-4)).diagnoses), "some gaps are shorter than the run"


def test_compile_bound(sample: wire.Recording) -> None:
    def plant(p: wire.Program, total: float = 0.01) -> None:
        p.stages[0].seconds, p.launches.count, p.launches.host_total = 0.5, 10, total

    found = only(planted(sample, plant), "compile-bound")
    assert "500 ms to compile" in found.evidence and "10 runs" in found.evidence
    assert "compile-bound" not in codes(planted(sample, lambda p: plant(p, 2.0)).diagnoses)


def test_compiled_again(sample: wire.Recording) -> None:
    def plant(p: wire.Program) -> None:
        sample.caches = [wire.CacheEvent("jit", False, "k", 4, "shape of arguments[0]", "(8, 4)", "(9, 4)")]
        sample.caches.append(wire.CacheEvent("jit", False, "k", 9, "first call", "", ""))

    found = only(planted(sample, plant), "compiled-again")
    assert "shape of arguments[0]" in found.sentence and "4 misses" in found.evidence and "(8, 4) → (9, 4)" in found.evidence
    assert found.gain is None, "what the other compilations took is not known"


def test_compiled_again_is_told_once_and_gains_the_other_compilations(sample: wire.Recording) -> None:
    def plant(p: wire.Program) -> None:
        sample.caches = [
            wire.CacheEvent(cache, False, "k", 1, guard, "(8, 4)", f"({n}, 4)")
            for n in (9, 10, 11) for cache, guard in (("program", "shape of %0 buffer"), ("jit", "shape of arguments[0]"))
        ]  # fmt: skip
        again = copy.deepcopy(p)
        p.stages[0].seconds, again.stages[0].seconds = 0.5, 0.3
        again.launches = wire.Launches()
        sample.programs.append(again)

    found = only(planted(sample, plant), "compiled-again")
    assert "shape of arguments[0]" in found.sentence and "cache “jit”" in found.evidence and found.gain == pytest.approx(0.3)


def test_in_pieces(sample: wire.Recording) -> None:
    def plant(p: wire.Program) -> None:
        sample.realized = [wire.Realized("item", 0, 0, 0.0, 40), wire.Realized("print", 1, 0, 0.0, 10)]

    found = only(planted(sample, plant), "in-pieces")
    assert "50 computations" in found.evidence and "40 of them by item" in found.evidence

    def one_line(p: wire.Program) -> None:
        sample.realized = [wire.Realized("item", 0, 0, 0.0, 40)]

    assert "in-pieces" not in codes(planted(sample, one_line).diagnoses)


def test_stored_once(sample: wire.Recording) -> None:
    def plant(p: wire.Program, size: int = 1 << 20) -> None:
        a = node(p, "exp", "float32", [size], [])
        b = node(p, "add", "float32", [size], [a])
        p.kernels[FAULTY].nodes, p.kernels[HEALTHY].nodes = [a], [b]
        p.decisions.append(edge("whole", [a, b], {}, {"inline": "the loops of its reader are others"}))

    found = only(planted(sample, plant), "stored-once")
    assert "the loops of its reader are others" in found.sentence and "4 MiB" in found.evidence
    assert "stored-once" not in codes(planted(sample, lambda p: plant(p, 100)).diagnoses), "small values may be stored"


def test_one_buffer(sample: wire.Recording) -> None:
    def plant(p: wire.Program, arena: int = 10 << 20) -> None:
        p.arena_bytes = arena
        p.slots = [wire.Slot("t7", "float32", [2 << 20], 8 << 20, "temporary", 0, 0, 1)]

    found = only(planted(sample, plant), "one-buffer")
    assert "t7 of 8 MiB in an arena of 10 MiB" in found.evidence
    assert "one-buffer" not in codes(planted(sample, lambda p: plant(p, 100 << 20)).diagnoses)

    def offered(p: wire.Program) -> None:
        plant(p)
        p.slots[0].again = "maximum 0123456789"

    assert only(planted(sample, offered), "one-buffer").evidence.endswith("; rec.recompute('t7') tells")


def test_equal_findings_are_one(sample: wire.Recording) -> None:
    def plant(p: wire.Program) -> None:
        for k in (FAULTY, HEALTHY):
            seconds(p, k, 1e-3)

    d = planted(sample, plant)
    (found,) = d.diagnoses
    assert found.code == "far-from-roofs" and found.also == [HEALTHY] and abs((found.gain or 0) - 1.8e-3) < 1e-6
