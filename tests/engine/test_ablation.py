"""Kernels taken apart: what the variants read, write and compute is counted; sentences come from planted times. No test asserts a
time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given

from tests.conformance import snapshot
from tests.conformance.programs import PROGRAMS
from tests.engine import forms
from tests.engine.test_schedule_random import calm, code, scheduled
from tinyengine import backends, cost, dtypes, pipeline, spec
from tinyengine.ablation import Ablation
from tinyengine.backends.reference import trace
from tinyengine.choices import DEFAULT
from tinyengine.index import add
from tinyengine.loopnest import Buf, Kernel, Loop, Prefetch, Store, index, load, stmt_exprs, subexprs, var, walk
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph
from tinyengine.runtime.native import SMALLEST_SHARE
from tinyengine.stages.specs.nests import SCHEDULED
from tinyengine.tensor import Tensor
from tinyengine.trial import Isolated, Timing
from tinyengine.variants import arithmetic_only, empty, loads_only

rng = np.random.default_rng(0)
WINDOW = FIXTURE.l1_bytes // 2
Elements = dict[tuple[str, bool], set[int]]


def tensor(*shape: int) -> Tensor:
    return Tensor(rng.standard_normal(shape).astype(np.float32))


def lowered(*tensors: Tensor, backend: str = "llvm") -> pipeline.Lowered:
    return pipeline.lower(Graph([t.node for t in tensors]), DEFAULT, FIXTURE, backend)


def touched(k: Kernel) -> Elements:
    """(buffer, written) -> the elements of global memory that a run on the interpreter touches."""
    out: Elements = {}
    for t in trace(k, {n: a.copy() for n, a in forms.arrays(k).items()}):
        out.setdefault((t.buffer, t.write), set()).update(t.elements.tolist())
    return {k: v for k, v in out.items() if v}


def variants(k: Kernel) -> tuple[Kernel, Kernel, Kernel]:
    return loads_only(k), arithmetic_only(k, WINDOW), empty(k)


def legal(k: Kernel) -> None:
    spec.check("ablation", SCHEDULED, k)


def check_what_is_touched(k: Kernel) -> None:
    whole, loads, arithmetic, nothing = map(touched, (k, *variants(k)))
    assert loads == whole
    for (buffer, write), elements in arithmetic.items():
        assert not write or buffer in indexed(k), "nothing is stored but what an address depends on"
        assert write or elements <= whole[buffer, False], "no address that the kernel does not read"
    assert nothing == {}


def indexed(k: Kernel) -> set[str]:
    """Memory that addresses are read from."""
    found = [x for s in walk(k.body) for e in stmt_exprs(s) for x in subexprs(e)]
    return {y.arg.name for x in found if x.op == "load" for a in x.args for y in subexprs(a) if y.op == "load"}


@calm(120)
@given(scheduled())
def test_variants_of_random_schedules_touch_what_they_should(pair: tuple[Kernel, Kernel]) -> None:
    k = pair[1]
    for v in variants(k):
        spec.check("ablation", [s for s in SCHEDULED if "register" not in s[0]], v)
    check_what_is_touched(k)


@pytest.mark.parametrize("name", PROGRAMS)
def test_variants_of_whole_programs_are_legal(name: str) -> None:
    for k in {c.kernel.name: c.kernel for c in snapshot.lowered(name).plan.calls}.values():
        for v in variants(k):
            legal(v)
        check_what_is_touched(k)


@calm(12)
@given(scheduled().filter(lambda pair: code(pair[1].body) < 100))
def test_llvm_and_the_interpreter_agree_on_variants(pair: tuple[Kernel, Kernel]) -> None:
    kernels = list(variants(pair[1]))
    for k, memory in zip(kernels, forms.native(kernels), strict=True):
        for name, want in forms.outputs(k, forms.arrays(k)).items():
            assert np.array_equal(memory[name].reshape(-1), want, equal_nan=want.dtype.kind == "f"), (k.text(), name)


def ops(k: Kernel) -> set[str]:
    """Of values, not of addresses."""
    return {x.op for s in walk(k.body) for e in stmt_exprs(s) for x in subexprs(e) if x.dtype.is_float}


def test_loads_without_arithmetic() -> None:
    k = lowered(tensor(40, 700).softmax(1)).kernels[0].scheduled
    assert {"exp", "sub", "div"} <= ops(k)
    assert ops(loads_only(k)) <= {"load", "const"}
    assert loads_only(k).schedule == k.schedule and loads_only(k).parallel is not None


def test_a_value_in_all_copies_of_a_loop_is_added_up_once() -> None:
    """A tile of 6 by 64: each element of both operands is used many times, and loaded once."""
    k = lowered(tensor(60, 64) @ tensor(64, 64)).kernels[0].scheduled
    issued = {a.buffer: a.elements for a in cost.kernel_cost(loads_only(k), FIXTURE).addresses if not a.write}
    assert issued == {k.params[0].name: 60 * 64, k.params[1].name: 64 * 64 * 10}, "10 tiles of rows; one tile of columns"


def test_arithmetic_reads_a_window_that_fits() -> None:
    k = lowered(tensor(240, 256) @ tensor(256, 256)).kernels[0].scheduled
    whole, v = (cost.kernel_cost(x, FIXTURE) for x in (k, arithmetic_only(k, WINDOW)))
    assert whole.bytes_read == 4 * (240 * 256 + 256 * 256)
    assert v.bytes_read == 4 * (16 * 6 * 16 + 16 * 256) <= WINDOW, "16 of the tiles of 6 rows, and of the 256 steps of the sum"
    assert v.flops - whole.flops == 240 * 256, "what would be stored is added up, and no product is left out"
    least = cost.kernel_cost(arithmetic_only(k, 0), FIXTURE)
    assert least.bytes_read == 4 * (2 * 6 * 2 + 2 * 2 * 64), "two iterations of each loop, all copies of unrolled ones"


@pytest.mark.parametrize("dtype", [dtypes.bfloat16, dtypes.float16, dtypes.fp8e4m3, dtypes.uint8, dtypes.bool_, dtypes.float64])
def test_dtypes(dtype: dtypes.DType) -> None:
    x = Tensor(rng.integers(0, 2, (9, 70))).cast(dtype).contiguous()
    low = lowered((x.cast(dtypes.float32) * 2).cast(dtype))
    for made in low.kernels:
        for v in variants(made.scheduled):
            legal(v)
        check_what_is_touched(made.scheduled)
    low.kernels[-1].ablate(0.0)


def test_the_threads_are_those_of_the_kernel() -> None:
    """By its own work the empty kernel would run on one thread."""
    low = lowered((tensor(500, 700) * 2).tanh())
    k = low.kernels[0].scheduled
    case = Isolated(low).case(0)

    def cycles(kernel: Kernel, like: Kernel | None) -> float:
        made: Any = case.compile(kernel, like=like)
        return max(d.numbers["estimated_cycles"] for d in made.decisions)

    assert cycles(empty(k), k) == cycles(k, None) > SMALLEST_SHARE > cycles(empty(k), None)


@pytest.mark.parametrize("backend", ["llvm", "opencl", "reference"])
def test_every_backend(backend: str) -> None:
    try:
        backends.get(backend)
    except backends.BackendError as e:
        pytest.skip(str(e))
    x = tensor(20, 33)
    before = x.numpy().copy()
    done = lowered((x @ tensor(33, 17)).relu().softmax(1), backend=backend).kernels[-1].ablate(0.0)
    assert done.bound in ("launch", "memory", "arithmetic", "both", "neither") and done.sentence in done.text()
    assert len({len(t.samples) for t in (done.whole, done.loads, done.arithmetic, done.empty)}) == 1
    assert np.array_equal(x.numpy(), before)


def test_nothing_of_the_users_changes() -> None:
    w, g = tensor(50, 60), tensor(50, 60)
    before = w.numpy().copy()
    w -= g * 0.5  # recorded, not run
    low = lowered(w)
    assert [s.role for s in low.slots] == ["state", "input"]
    low.kernels[0].ablate(0.0)
    assert np.array_equal(low.buffers[0].values.reshape(50, 60), before)


def test_what_cannot_be_measured() -> None:
    low = lowered(tensor(4, 4) + 1, backend="null")
    with pytest.raises(ValueError, match="the null backend computes nothing"):
        low.kernels[0].ablate()


def planted(loads: float, arithmetic: float, nothing: float) -> Ablation:
    whole, *parts = (Timing.of([x * 1e-6 for x in (t, t, t * 1.5)]) for t in (100.0, loads, arithmetic, nothing))
    return Ablation("k", whole, parts[0], parts[1], parts[2], "compute")


@pytest.mark.parametrize(
    ("times", "bound", "sentence"),
    [
        ((95, 40, 1), "memory", "bound by memory: loads and stores alone take 95% of its time, arithmetic alone 40%"),
        ((30, 99, 1), "arithmetic", "bound by arithmetic: loads and stores alone take 30% of its time, arithmetic alone 99%"),
        ((90, 85, 1), "both", "bound by memory and arithmetic alike: loads and stores alone take 90% of its time, "
         "arithmetic alone 85%, so making one cheaper gains little"),
        ((60, 50, 1), "neither", "bound by neither alone: loads and stores alone take 60% of its time, arithmetic alone 50%; "
         "they wait for each other"),
        ((95, 95, 70), "launch", "bound by its launch: an empty kernel takes 70% of its time"),
    ],
)  # fmt: skip
def test_sentences(times: tuple[float, float, float], bound: str, sentence: str) -> None:
    a = planted(*times)
    assert a.bound == bound and a.sentence == sentence
    assert a.text().startswith(f"k: {sentence} (predicted: compute)\n")


def test_a_disturbed_run_does_not_change_the_bound() -> None:
    """Other programs only ever add time: half of the runs may be disturbed."""
    calm_, noisy = [1e-4] * 9, [1e-4] * 5 + [9e-4] * 4
    whole, quarter, nothing = Timing.of(noisy), Timing.of([x / 4 for x in calm_]), Timing.of([1e-6] * 5 + [3e-4] * 4)
    assert Ablation("k", whole, whole, quarter, nothing, "memory").bound == "memory"


def test_the_loops_stay() -> None:
    """Loops, their order and their kinds are those of the kernel, as far as there is anything in them."""
    k = lowered(tensor(65, 33) @ tensor(33, 40)).kernels[0].scheduled

    def loops(x: Kernel) -> list[tuple[str, int, str]]:
        return [(s.name, s.trips, s.kind) for s in walk(x.body) if isinstance(s, Loop) and s.kind != "unroll"]

    assert loops(arithmetic_only(k, WINDOW)) == loops(k) == loops(loads_only(k))
    hints = [[s for s in walk(x.body) if isinstance(s, Prefetch)] for x in (k, loads_only(k))]
    assert hints[0] == hints[1]


def test_the_window_of_a_loop_that_starts_later() -> None:
    """out[i] = x[i - 100] for i from 101: the window begins where the loop does, not before x."""
    x, out = Buf("x", dtypes.float32, (300,)), Buf("out", dtypes.float32, (400,))
    i = var("i", 101, 399)
    k = Kernel("late", (x, out), (Loop(i, 101, 400, 1, (Store(out, (i,), load(x, (add(i, index(-100)),))),)),), ("out",))
    v = arithmetic_only(k, WINDOW)
    legal(v)
    assert touched(v) == {("x", False): set(range(1, 65))}
