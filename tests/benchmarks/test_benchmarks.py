"""The benchmark runs, its results are right, and its page holds what it measured. No time is asserted."""

from __future__ import annotations

import importlib.util
import re

import numpy as np
import pytest

from tests.benchmarks import by_hand, cases, report, run, waits
from tests.benchmarks.worker import Worker
from tinyengine.machine import FIXTURE

PLAN = run.Plan("quick", rounds=2, cold_rounds=1, budget=0.001, small_ops=50, waits=("MLP",))


def test_a_quick_run_makes_the_page() -> None:
    results = run.run(PLAN, say=lambda text: None, engines=("tinyviz", "NumPy"))
    assert {c.name for c in cases.QUICK} == set(results.steady) == set(results.errors)
    for by_engine in [*results.steady.values(), *results.cold.values()]:
        assert set(by_engine) == {"tinyviz", "NumPy"}
        assert all(t > 0 for times in by_engine.values() for t in times)
    page = report.markdown(results, cases.QUICK)
    for c in cases.QUICK:
        (row,) = [line for line in page.split("\n") if line.startswith(f"| {c.title} |")]
        assert len(re.findall(r"[\d.]+ (?:s|ms|µs)", row)) == 3  # tinyviz, NumPy, limit
        assert len(re.findall(r"\d×", row.replace(c.title, ""))) == 2
    assert all(f"| {row} |" in page for row in results.waits)
    assert "make bench" in page and results.machine["name"] in page


@pytest.mark.parametrize("engine", ["tinyviz", "NumPy", "PyTorch"])
def test_every_engine_is_right(engine: str) -> None:
    if engine == "PyTorch" and importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed")
    worker = Worker(engine, "quick")
    for c in cases.QUICK:
        assert 0 <= worker.prepare(c.name)["error"] <= c.tolerance


def test_a_wrong_result_is_refused() -> None:
    case = cases.matmul(8)
    inputs = case.inputs()
    right = case.exact(inputs)
    assert cases.check(case, inputs, right) == 0
    for wrong in ([right[0] * 1.01], [right[0].T[:4]], [], [right[0] * np.nan]):
        with pytest.raises(ValueError, match="matmul_8: "):
            cases.check(case, inputs, wrong)


@pytest.mark.parametrize("name", by_hand.NETWORKS)
def test_the_gradients_by_hand_are_those_of_finite_differences(name: str) -> None:
    """In float64, at a few elements of every parameter."""
    inputs = cases.wide(cases.digits(name))
    network = by_hand.NETWORKS[name]({**inputs, "x": inputs["x"][:16], "y": inputs["y"][:16]})
    _, gradients = network.gradients()
    rng, h = np.random.default_rng(0), 1e-6
    for p, g in zip(network.parameters, gradients, strict=True):
        for i in rng.integers(0, p.size, 4):
            kept = p.flat[i]
            p.flat[i] = kept + h
            above = network.gradients()[0]
            p.flat[i] = kept - h
            below = network.gradients()[0]
            p.flat[i] = kept
            assert g.flat[i] == pytest.approx((above - below) / (2 * h), rel=1e-4, abs=1e-7)


def test_limits_are_the_larger_of_compute_and_memory() -> None:
    machine = FIXTURE.to_json()
    n = 1024
    assert report.limit(cases.matmul(n), machine) == 2 * n**3 / FIXTURE.fma_flops_all
    assert report.limit(cases.rows("softmax", "", 8192, 1024), machine) == 2 * 8192 * 1024 * 4 / FIXTURE.stream_all
    assert report.limit(cases.chain(1000), machine) == 8000 / FIXTURE.read_all["l2"]


def test_the_environment_holds_nobody_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "1")
    env = run.environment("/nowhere")
    assert not {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"} & set(env)
    assert env["TINYENGINE_CACHE"] == "/nowhere"


def test_figures_go_between_the_marks_of_the_readme() -> None:
    text = "a\n<!-- figures: x -->\nold\n<!-- end of figures -->\nb"
    once = report.put_figures(text, "| new |")
    assert once == "a\n<!-- figures: x -->\n| new |\n<!-- end of figures -->\nb"
    assert report.put_figures(once, "| new |") == once
    with pytest.raises(ValueError, match="no place"):
        report.put_figures("nothing", "| new |")


def test_durations_and_spreads() -> None:
    assert [report.duration(s) for s in (2.5, 0.0123, 4.56e-6, 1.2e-9)] == ["2.5 s", "12.3 ms", "4.56 µs", "0.0012 µs"]
    assert report.with_spread([1.0, 2.0, 3.0, 4.0, 5.0]) == "3 s ±33 %"
    assert report.ratio([2.0, 9.0, 4.0], [1.0, 3.0, 1.0]) == 3.0


def test_the_waits_are_measured() -> None:
    found = waits.run(1, ["MLP"], 20)
    assert all(len(v) == 1 and v[0] > 0 for v in found.values()) and len(found) == 6
    page = waits.text(found)
    assert all(row in page for row in found) and re.search(r"recording +[+-][\d.]+ %", page)
