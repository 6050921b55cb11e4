"""roofline: the nearest roof, wasted time, and every finding on a planted kernel beside a healthy one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tinyviz import wire
from tinyviz.explore import make
from tinyviz.viewdata import Diagnosis, Roof, RooflineData
from tinyviz.views.roofline import nearest

PEAKS = {
    "flops_per_second": 1e11, "launch_seconds": 1e-6, "l1_bytes_per_second": 1e12, "l2_bytes_per_second": 4e11,
    "l3_bytes_per_second": 1e11, "dram_bytes_per_second": 2e10, "l1_bytes": 1e5, "l2_bytes": 1e6, "l3_bytes": 1e7,
}  # fmt: skip
FAULTY, HEALTHY = 0, 1


def planted(r: wire.Recording, plant: Callable[[wire.Program], None] = lambda p: None) -> RooflineData:
    """The view of two kernels of 1 GB-sized memory; both move 2 MB (100 µs of memory) with 1 MFLOP and take 200 µs."""
    p = r.programs[0]
    r.machine.peaks = dict(PEAKS)
    p.kernels = p.kernels[:2]
    for k in p.kernels:
        k.flops, k.bytes_read, k.bytes_written, k.seconds_predicted, k.schedule = 1_000_000, 1_000_000, 1_000_000, 1e-4, []
        k.schedule = ["vectorize(r, 8)", "parallel(io)"]
    p.calls, p.slots, p.decisions = [wire.Call(0, []), wire.Call(1, [])], [], []
    p.certificate.peak_bytes = 10**9
    p.arena_bytes = 0
    for s in p.stages:
        s.seconds = None
    r.realized, r.caches = [], []
    p.launches = wire.Launches(1, [], [2e-4] * 2, [2e-4] * 2, [2e-4] * 2, [2e-4] * 2, 4e-4)
    p.decisions = [decision("emit", "threads", k, "all threads", "64 chunks", {"threads": 4.0}) for k in (FAULTY, HEALTHY)]
    plant(p)
    made = make(r, "roofline")
    assert not made.error
    for found in made.data.diagnoses:
        assert made.text.count(found.evidence) == 1
        assert found.sentence in made.text and found.evidence in made.text and found.code in made.svg
    d: RooflineData = made.data
    return d


def decision(stage: str, kind: str, kernel: int, verdict: str, reason: str, numbers: dict[str, float]) -> wire.Decision:
    return wire.Decision(stage, kind, f"k{kernel} -> i", [], kernel, verdict, reason, numbers)


def seconds(p: wire.Program, kernel: int, value: float) -> None:
    for column in (p.launches.median, p.launches.low, p.launches.high, p.launches.total):
        column[kernel] = value


def only(d: RooflineData, code: str) -> Diagnosis:
    """The finding of that code; there is one, and it is about the faulty kernel, or about the program."""
    assert all(x.kernel in (FAULTY, -1) and not x.also for x in d.diagnoses), "the healthy kernel has no finding"
    (found,) = [x for x in d.diagnoses if x.code == code]
    return found


def test_healthy_kernels_have_no_finding(sample: wire.Recording) -> None:
    d = planted(sample)
    assert d.diagnoses == []
    assert [x.seconds_roof for x in d.points] == pytest.approx([1e-4] * 2) and [x.roof for x in d.points] == ["memory"] * 2


def test_memory_bound_near_its_roof(sample: wire.Recording) -> None:
    found = only(planted(sample, lambda p: seconds(p, FAULTY, 1.1e-4)), "memory-bound")
    assert "memory" in found.sentence and "fewer bytes" in found.sentence
    assert "110 µs" in found.evidence and "100 µs" in found.evidence and found.gain == pytest.approx(1e-5)


def test_compute_bound_near_its_roof(sample: wire.Recording) -> None:
    def plant(p: wire.Program) -> None:
        p.kernels[FAULTY].flops = 18_000_000  # 180 µs of arithmetic

    found = only(planted(sample, plant), "compute-bound")
    assert "fewer FLOPs" in found.sentence and "180 µs" in found.evidence and found.gain == pytest.approx(2e-5)


def test_faster_than_a_peak_says_that_the_peak_is_too_low(sample: wire.Recording) -> None:
    def plant(p: wire.Program) -> None:
        p.kernels[FAULTY].flops = 25_000_000  # 250 µs of arithmetic, done in 200

    d = planted(sample, plant)
    found = only(d, "compute-bound")
    assert "the recorded peak is too low" in found.evidence and found.gain == 0.0
    assert [x.wasted for x in d.points] == pytest.approx([1e-4, 0.0])


def test_far_from_every_roof(sample: wire.Recording) -> None:
    found = only(planted(sample, lambda p: seconds(p, FAULTY, 1e-3)), "far-from-roofs")
    assert "1 ms" in found.evidence and "10 times less" in found.evidence and found.gain == pytest.approx(9e-4)


def test_far_from_every_roof_as_predicted_is_said_with_what_the_prediction_says(sample: wire.Recording) -> None:
    def plant(p: wire.Program, high: float) -> None:
        seconds(p, FAULTY, 1e-3)
        k = p.kernels[FAULTY]
        k.bound, k.seconds_predicted, k.seconds_predicted_high = "compute", 8e-4, high

    expected = only(planted(sample, lambda p: plant(p, 1.1e-3)), "far-from-roofs")
    assert "as predicted: its instructions" in expected.sentence and "predicted 800 µs, bound by compute" in expected.evidence
    slower = only(planted(sample, lambda p: plant(p, 9e-4)), "far-from-roofs")
    assert "slower than its instructions and its memory traffic let one expect" in slower.sentence


@pytest.mark.parametrize(("time", "found"), [(3e-7, [FAULTY]), (1e-7, [])])
def test_what_gains_next_to_nothing_is_no_finding(sample: wire.Recording, time: float, found: list[int]) -> None:
    def plant(p: wire.Program) -> None:
        sample.machine.peaks["launch_seconds"] = 1e-9
        p.kernels[FAULTY].flops = p.kernels[FAULTY].bytes_read = p.kernels[FAULTY].bytes_written = 1
        seconds(p, FAULTY, time)

    assert [x.kernel for x in planted(sample, plant).diagnoses] == found, "the other kernel takes 200 µs"


def test_launch_bound(sample: wire.Recording) -> None:
    found = only(planted(sample, lambda p: seconds(p, FAULTY, 5e-7)), "launch-bound")
    assert "launch" in found.sentence and "500 ns" in found.evidence and "1 µs" in found.evidence


def test_one_thread_though_big_enough(sample: wire.Recording) -> None:
    why = "the outermost level keeps an accumulator: one thread"

    def plant(p: wire.Program) -> None:
        p.decisions[FAULTY] = decision("emit", "threads", FAULTY, "one thread", "no parallel loop", {"threads": 4.0})
        p.decisions.append(decision("schedule", "parallel", FAULTY, "none", why, {"cycles": 5e5}))

    found = only(planted(sample, plant), "one-thread")
    assert why in found.sentence and "of 4" in found.sentence and "500 k cycles" in found.evidence
    assert found.decision == 2 and found.gain == pytest.approx(1e-4), "no more than what is above the roof"


@pytest.mark.parametrize("time", [5e-6, 9.9e-6])
def test_one_thread_is_right_for_a_small_kernel(sample: wire.Recording, time: float) -> None:
    def plant(p: wire.Program) -> None:
        p.decisions[FAULTY] = decision("emit", "threads", FAULTY, "one thread", "no parallel loop", {"threads": 4.0})
        seconds(p, FAULTY, time)

    assert "one-thread" not in [x.code for x in planted(sample, plant).diagnoses]


def test_not_vectorised_because(sample: wire.Recording) -> None:
    why = "iterations of r may touch the same element of acc"

    def plant(p: wire.Program) -> None:
        p.kernels[FAULTY].schedule = ["parallel(io)"]
        for k in (FAULTY, HEALTHY):  # the healthy one has another loop that is vectorised
            p.decisions.append(decision("schedule", "vectorize", k, "none", why, {}))

    found = only(planted(sample, plant), "not-vectorised")
    assert why in found.sentence and "loop i" in found.evidence and found.decision == 2


def test_kernels_are_sorted_by_wasted_time_and_its_launches_count(sample: wire.Recording) -> None:
    def plant(p: wire.Program) -> None:
        p.calls.append(wire.Call(HEALTHY, []))
        for column in (p.launches.median, p.launches.low, p.launches.high, p.launches.total):
            column.append(2e-4)

    d = planted(sample, plant)
    assert [(x.kernel, x.seconds, x.wasted) for x in d.points] == [
        (HEALTHY, pytest.approx(4e-4), pytest.approx(2e-4)), (FAULTY, pytest.approx(2e-4), pytest.approx(1e-4)),
    ]  # fmt: skip


LEVELS = [Roof("L1", 100.0, 10.0), Roof("memory", 10.0, None), Roof("arithmetic", 1000.0, None)]


@pytest.mark.parametrize(
    ("size", "flops", "time", "roof"),
    [
        (5, 1, 2.0, ("L1", 1.0)),  # 100 bytes; the program's memory fits into L1
        (50, 1, 20.0, ("memory", 10.0)),
        (50, 1, 2.0, ("L1", 1.0)),  # faster than memory: it was in a cache
        (50, 20_000, 30.0, ("arithmetic", 20.0)),
        (None, 1, None, ("memory", 10.0)),
    ],
)
def test_the_nearest_roof(size: int | None, flops: int, time: float | None, roof: tuple[str, float]) -> None:
    assert nearest(LEVELS, flops, 100, size, time) == roof


def test_without_peaks_or_counts_nothing_is_said(sample: wire.Recording) -> None:
    assert nearest(LEVELS, None, 100, 5, 1.0) is None and nearest([], 1, 100, 5, 1.0) is None
    sample.machine.peaks = {}
    made = make(sample, "roofline")
    d: RooflineData = made.data
    # idle lanes are read off the schedule alone
    assert {x.code for x in d.diagnoses if x.kernel >= 0} <= {"masked-tail"}
    assert d.roofs == [] and all(x.wasted is None and x.roof == "" for x in d.points)
    assert "roofs: –" in made.text and not made.error


def test_what_did_not_run_is_judged_by_its_prediction(sample: wire.Recording) -> None:
    def plant(p: wire.Program) -> None:
        p.launches = wire.Launches()
        p.kernels[FAULTY].seconds_predicted = 1e-3
        p.kernels[HEALTHY].seconds_predicted = 2e-4

    d = planted(sample, plant)
    assert not d.measured and all(x.seconds is None and x.rate is None for x in d.points)
    assert only(d, "far-from-roofs").evidence.startswith("predicted 1 ms")
