"""The benchmark runs, its results are right, and its page holds what it measured. No time is asserted."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import by_hand_networks, cases, checks, engines, report, run
from tests.benchmarks.by_hand import Array
from tests.benchmarks.by_hand_networks import BETA1, BETA2, EPS, LR
from tests.benchmarks.engines import ENGINES, OURS
from tests.benchmarks.limits import Limits
from tests.benchmarks.rows import Row, rows
from tests.benchmarks.worker import Worker, save

PLAN = dataclasses.replace(run.QUICK, budget=0.001, small_ops=50)
TABLE = {
    "chain_64M", "chain_1M", "chain_1k", "sum_64M", "softmax", "layernorm", "matmul_512", "matmul_1024", "matmul_2048",
    "matmul_small", "matmul_batched", "matvec", "conv_3", "conv_32", "attention", "mlp", "cnn", "gpt",
}  # fmt: skip


def test_a_quick_run_makes_the_page() -> None:
    results = run.run(PLAN, lambda text: None, (OURS, "NumPy"))
    chosen = rows(results, PLAN)
    assert [row.name for row in chosen] == [
        *(c.name for c in cases.QUICK), *(f"cold_{n}_{k}" for n in cases.STEPS for k in ("empty", "warm")), "lazy_op",
        *(f"recording_{n}" for n in cases.STEPS),
    ]  # fmt: skip
    assert all(t > 0 for row in chosen for t in [*row.ours.values(), *row.limit.values()])
    assert all("NumPy" in row.peers for row in chosen if not row.name.startswith(("recording", "lazy")))
    page = report.markdown(results, PLAN)
    for row in chosen:
        assert f"| {' | '.join(report.line(row))} |" in page
    assert "make bench" in page and results.machine["name"] in page and "PYTHONDONTWRITEBYTECODE" in page
    figures = report.first_figures(results, PLAN)
    assert set(figures.split("\n")) <= set(page.split("\n")) and len(figures.split("\n")) == 2 + len(report.FIGURES)


def test_every_row_of_the_table_is_measured() -> None:
    assert {c.name for c in cases.FULL} == TABLE
    assert all(run.Plan().wants(n) for n in TABLE) and run.Plan(only=("matmul",)).wants("matmul_512")
    assert {c.name for c in run.Plan(only=("matmul", "recording_gpt")).cases} == {n for n in TABLE if "matmul" in n} | {"gpt"}


def test_the_least_work_of_each_case() -> None:
    """FLOPs of the matrix products, bytes read and written once."""
    by_name = {c.name: c for c in cases.FULL}
    assert (by_name["matmul_512"].flops, by_name["chain_1M"].nbytes) == (2 * 512**3, 8 << 20)
    assert (by_name["sum_64M"].nbytes, by_name["sum_64M"].written) == (256 << 20, 0)
    assert by_name["attention"].flops == 4 * 32 * 256 * 256 * 64
    assert by_name["mlp"].flops == 2 * 128 * (2 * 784 * 512 + 3 * 512 * 10)
    assert by_name["gpt"].flops == 16 * 64 * 3 * 2 * (4 * (12 * 128 * 128 + 2 * 64 * 128) + 128 * 65)


@pytest.mark.parametrize("engine", ["tinyviz", "NumPy", "PyTorch", "JAX jit", "tinygrad"])
def test_every_engine_is_right(engine: str, tmp_path: Path) -> None:
    if not engines.installed(engine):
        pytest.skip(f"{engine} is not installed")
    if engine == "tinygrad":
        from tinygrad import Device

        try:
            assert Device.DEFAULT
        except RuntimeError as e:
            pytest.skip(f"tinygrad finds no compiler: {e}")
    worker = Worker(engine, "quick", str(tmp_path))
    for c in cases.QUICK if engine != "tinygrad" else cases.QUICK[:-2]:
        save(tmp_path / c.name, c)
        assert 0 <= worker.prepare(c.name)["error"] <= checks.TOLERANCE


def test_a_wrong_result_is_refused() -> None:
    case = cases.square(8, 1.0)
    inputs = case.inputs()
    right = checks.exact(case, inputs)
    assert checks.check(case, inputs, [right], right) == 0
    for wrong in ([right[0] * 1.01], [right[0].T[:4]], [], [right[0] * np.nan]):
        with pytest.raises(ValueError, match="matmul_8: "):
            checks.check(case, inputs, [wrong], right)


def steps(case: cases.Case, network: by_hand_networks.Network) -> list[list[Array]]:
    """What an engine would give that computes as `network`."""
    losses: list[Array] = []
    read = lambda: [losses[-1], *network.parameters.values()]  # noqa: E731
    return checks.results(case, lambda: losses.append(network.step()), read)


def no_gradient(network: by_hand_networks.Network, name: str) -> None:
    gradients = network.gradients

    def wrong() -> tuple[Array, dict[str, Array]]:
        loss, out = gradients()
        return loss, out | {name: np.zeros_like(out[name])}

    network.gradients = wrong  # type: ignore[method-assign]


def wrong_coefficient(network: by_hand_networks.Network) -> None:
    """The last term of a norm's gradient counts half."""

    def norm_back(d: Array, kept: tuple[Array, Array], name: str, axes: tuple[int, ...], out: dict[str, Array]) -> Array:
        n, r = kept
        half = r * (d * network.parameters[f"{name}.weight"] * n).mean(axes, keepdims=True) * n / 2
        return type(network).norm_back(network, d, kept, name, axes, out) + half  # type: ignore[no-any-return]

    network.norm_back = norm_back  # type: ignore[method-assign]


def wrong_adam(network: by_hand_networks.Network, eps_inside: bool = False, corrected: bool = True) -> None:
    def step() -> Array:
        loss, gradients = network.gradients()
        network.t += 1
        t = network.t if corrected else 1
        for k, p in network.parameters.items():
            g, (m, v) = gradients[k], network.moments[k]
            m += (1 - BETA1) * (g - m)
            v += (1 - BETA2) * (g * g - v)
            v_hat = v / (1 - BETA2**t)
            p -= LR / (1 - BETA1**t) * m / (np.sqrt(v_hat + EPS) if eps_inside else np.sqrt(v_hat) + EPS)
        return loss

    network.step = step  # type: ignore[method-assign]


BUGS: dict[str, Callable[[by_hand_networks.Network], None]] = {
    "a bias of a convolution or a product has no gradient": lambda n: no_gradient(
        n, {"mlp": "fc1.bias", "cnn": "conv1.bias", "gpt": "blocks.1.up.bias"}[n.name]
    ),
    "the bias of a norm has no gradient": lambda n: no_gradient(n, {"cnn": "norm1.bias", "gpt": "blocks.2.norm1.bias"}[n.name]),
    "a wrong coefficient": wrong_coefficient,
    "eps in the root": lambda n: wrong_adam(n, eps_inside=True),
    "the moments are corrected as in the first step": lambda n: wrong_adam(n, corrected=False),
}


@pytest.mark.parametrize("name, batch", [("mlp", 8), ("cnn", 4), ("gpt", 1)])
def test_a_training_step_with_an_error_is_refused(name: str, batch: int) -> None:
    """In float32 the same network without it passes."""
    case = cases.step(name, batch)
    inputs = case.inputs()
    right = steps(case, by_hand_networks.NETWORKS[name](inputs))
    assert 0 < checks.check(case, inputs, right, []) < checks.TOLERANCE
    for bug, put in BUGS.items():
        if name == "mlp" and "bias of a convolution" not in bug:
            continue  # it has no norm, and no Adam
        if name == "cnn" and "eps" in bug:
            continue  # beside its gradients, of which the least are a hundred times the root of eps, it changes nothing
        network = by_hand_networks.NETWORKS[name](inputs)
        put(network)
        with pytest.raises(ValueError, match=rf"{name}: step \d of .* is off"):
            checks.check(case, inputs, steps(case, network), [])
            pytest.fail(bug)
    worse_loss, shorter = [[r[0] * 1.001, *r[1:]] for r in right], [[*r[:-1], r[-1][1:]] for r in right]
    for wrong in (right[:2], [r[:-1] for r in right], worse_loss, shorter):
        with pytest.raises(ValueError, match=f"{name}: "):
            checks.check(case, inputs, wrong, [])


def test_adam_turns_the_steps_of_small_gradients_alone() -> None:
    """An element whose gradient is far above the error of the others has to be right; one within it may go either way."""
    g = np.ones(10_000)
    g[0], g[1] = 1e-4, 0.2
    step, slack = checks.adam([g])
    assert step == pytest.approx(np.full(10_000, -LR), rel=1e-3) and slack[0] == pytest.approx(2 * LR, rel=1e-3)
    assert slack[1:].max() < 1e-6 * LR
    step, slack = checks.adam([g, g])
    assert 0 < slack[2] < 0.1 * LR and slack[0] < 2.1 * LR
    assert checks.sgd([g])[1] == 0


@pytest.mark.parametrize("name", by_hand_networks.NETWORKS)
def test_the_gradients_by_hand_are_those_of_finite_differences(name: str) -> None:
    """In float64, at one element of every parameter."""
    network = by_hand_networks.NETWORKS[name](checks.wide(cases.step(name, 1).inputs()))
    _, gradients = network.gradients()
    rng, h = np.random.default_rng(0), 1e-6
    assert list(gradients.keys() ^ network.parameters.keys()) == []
    for k, p in network.parameters.items():
        if k.startswith(("blocks.1", "blocks.2", "blocks.3")):
            continue  # as block 0, whose gradient comes through them
        for i in rng.integers(0, p.size, 1):
            kept = p.flat[i]
            p.flat[i] = kept + h
            above = network.gradients()[0]
            p.flat[i] = kept - h
            below = network.gradients()[0]
            p.flat[i] = kept
            assert gradients[k].flat[i] == pytest.approx((above - below) / (2 * h), rel=1e-4, abs=1e-7), k


def test_limits_are_the_larger_of_compute_and_memory() -> None:
    limits = Limits()
    limits.measured = {"fma": 1e9, "copy 8": 5.0, "read 92": 7.0}
    case = dataclasses.replace(cases.QUICK[0], flops=10**9, nbytes=100, written=4)
    assert limits.seconds(case) == 12.0  # 4 bytes read and 4 written as a copy, 92 more read
    assert limits.seconds(dataclasses.replace(case, flops=20 * 10**9)) == 20.0
    limits.measured["copy 6"] = 2.0
    assert limits.seconds(dataclasses.replace(case, flops=0, nbytes=6)) == 2.0  # more written than read


def test_the_environment_holds_nobody_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in engines.UNSET:
        monkeypatch.setenv(name, "1")
    env = engines.environment("PyTorch", "/nowhere")
    assert not set(engines.UNSET) & set(env) and env["TINYENGINE_CACHE"] == "/nowhere"
    keeping = engines.environment("PyTorch, keeping malloc", "/nowhere")
    assert keeping == env | engines.KEEPING and keeping["MALLOC_MMAP_MAX_"] == "0"


def test_absent_peers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "installed", lambda name: ENGINES[name].package != "torch")
    assert engines.absent(list(ENGINES)) == ["PyTorch and torch.compile were left out: torch is not installed"]


def row(reach: float, peer: float = 9.0) -> Row:
    """One that is 2, 3 and 4 times its limit."""
    limit = {i: 1.0 for i in range(3)}
    return Row("a", "the row", {0: 2.0, 1: 3.0, 2: 4.0}, limit, reach, {"P": {0: 8.0, 2: peer}, "Q": {1: 30.0}})


def test_what_a_row_says() -> None:
    r = row(3.0)
    assert (r.reached, r.met, r.best) == (3.0, True, "P")
    assert r.ahead("P") == (8 / 2 + 9 / 4) / 2  # rounds that both have
    assert not row(2.9).met and row(2.9).limit != {}
    plain = dataclasses.replace(r, limit={}, reach=2.5)
    assert plain.reached == 3.0 and not plain.met


def test_only_rows_that_miss_are_explained() -> None:
    missed, slower, fine = row(2.0), row(3.0, peer=1.0), row(3.0)
    slower = dataclasses.replace(slower, name="b", title="another", peers={"P": {0: 1.0}})
    bounds = {"a": "The reason.", "b": "Another."}
    text = report.misses([missed, slower], bounds)
    assert "- the row: reached 3.00× of 2.00×. The reason." in text and "- another: P is 2.00× quicker. Another." in text
    assert report.misses([fine], bounds) == "None." and "Not analysed" in report.misses([missed], {})
    assert report.stale([missed, slower], bounds) == [] and report.stale([fine], bounds) == ["a"]


def test_explanations_name_rows_that_exist() -> None:
    from tests.benchmarks.bounds import BOUNDS

    others = {f"cold_{n}_{k}" for n in cases.STEPS for k in ("empty", "warm")} | {f"recording_{n}" for n in cases.STEPS}
    assert set(BOUNDS) <= TABLE | others | {"lazy_op"}


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
    recording = dataclasses.replace(row(1.05), name="recording_mlp")
    assert report.value(recording, 1.05) == "+5.0 %" and re.fullmatch(r"[\d.]+×", report.value(row(1.0), 1.2))
