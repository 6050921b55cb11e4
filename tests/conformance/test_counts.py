"""Counts that any reader may check: rule firings, kernels, FLOPs, bytes, and what a step costs when nobody watches.

The numbers stand in one place, below. A change of the engine that changes one of them changes it here, in the same commit."""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Callable, Iterator
from unittest import mock

import numpy as np
import pytest

from tests.conformance import snapshot, unwatched
from tests.conformance.counting import Counted, count
from tests.networks import BATCH, CNN, MLP, Transformer, training
from tinyengine import Tensor, backends, data, hooks, machine, spec
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph
from tinyengine.pipeline import Lowered, lower
from tinyengine.stages import simplify

FIRINGS = 150  # at most, for (x @ w + b).relu()
KERNELS = {
    "softmax": 1, "layernorm": 1, "softmax_gradient": 1, "layernorm_gradient": 1, "matmul_relu_sum": 2, "argmax": 1, "dropout": 1,
}  # fmt: skip
STEP_KERNELS = {MLP: 11, CNN: 19, Transformer: 38}
# of a training step, at most: rule firings, megabytes that its kernels move, megabytes of temporaries
STEP_BOUNDS = {MLP: (30, 1.6, 0.3), CNN: (45, 6.5, 1.6), Transformer: (170, 16.5, 4.0)}
# calls of Python functions from the recorded graph of a training step to its plan, at most: what a person waits for
STEP_CALLS = {MLP: 65_000, CNN: 135_000, Transformer: 320_000}


@pytest.fixture(autouse=True)
def fixture_machine() -> Iterator[None]:
    with mock.patch.object(machine, "current", lambda: FIXTURE):
        yield


def digits(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    x, y, _, _ = data.digits()
    return x[:BATCH].reshape(-1, *shape), y[:BATCH]


@functools.cache
def step_of(network: type) -> Lowered:
    """The program of one training step, after one run of it on the reference backend; one for all tests."""
    with backends.use("reference"):
        _, step = training(network)
        x, y = digits(network.shape)
        loss = step(Tensor(x), Tensor(y))
        assert loss.item() == pytest.approx(np.log(10), abs=0.4)  # ten classes, nothing learned yet
    return step.lowered[0]


def test_rule_firings() -> None:
    x, w, b = (Tensor(np.ones(s, np.float32)) for s in ((8, 24), (24, 32), (32,)))
    fired = simplify.explain(Graph([(x @ w + b).relu().node]), machine=FIXTURE)
    assert len(fired) <= FIRINGS


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_of_small_programs(name: str) -> None:
    c = snapshot.lowered(name)
    assert len(c.plan.calls) == len(c.kernels) == c.certificate.launches == KERNELS[name]


@pytest.mark.parametrize("network", STEP_KERNELS)
def test_kernels_of_a_training_step(network: type) -> None:
    """Forward, backward and Adam: one program."""
    assert len(step_of(network).plan.calls) == STEP_KERNELS[network]


@pytest.mark.parametrize("network", STEP_BOUNDS)
def test_firings_bytes_and_memory_of_a_training_step(network: type) -> None:
    c = step_of(network)
    certificate = c.certificate
    firings = len(simplify.explain(c.graph, machine=FIXTURE))
    moved = (certificate.bytes_read + certificate.bytes_written) / 1e6
    measured = (firings, moved, certificate.arena_bytes / 1e6)
    for what, bound in zip(measured, STEP_BOUNDS[network], strict=True):
        assert 0.5 * bound < what <= bound, measured


@pytest.mark.parametrize("network", STEP_CALLS)
def test_calls_from_graph_to_plan(network: type) -> None:
    lowered = lower(step_of(network).graph, machine=FIXTURE, backend="reference")
    calls = 0

    def count_calls(frame: object, event: str, arg: object) -> None:
        nonlocal calls
        calls += event == "call"

    with mock.patch.object(spec, "enabled", False):  # as a user has it
        sys.setprofile(count_calls)
        try:
            _ = lowered.plan
        finally:
            sys.setprofile(None)
    assert 0.5 * STEP_CALLS[network] < calls <= STEP_CALLS[network], calls


def test_the_mlp_step_predicted_is_counted() -> None:
    """The certificate is made from the loop nests without running them; the counts are of what the interpreter did."""
    c = step_of(MLP)
    x, y = digits(MLP.shape)
    done = count(c, {"x": x, "y": y})
    asked = count(c, {"x": x, "y": y}, scheduled=False)
    certificate = c.certificate
    assert len(done) == len(certificate.kernels)
    for k, d, a in zip(certificate.kernels, done, asked, strict=True):
        assert (k.flops, k.flops_issued) == (a.flops, d.flops), k.name
        predicted, counted = (k.bytes_read, k.bytes_written, k.bytes_issued), (d.bytes_read, d.bytes_written, d.bytes_issued)
        if k.exact:
            assert predicted == counted, k.name
        else:
            assert all(p >= n for p, n in zip(predicted, counted, strict=True)), k.name
    assert [k.name for k in certificate.kernels if not k.exact] == ["sum_mul_scalar"]  # the labels choose what the loss reads


def test_the_mlp_step_needs_at_least_its_matrix_products() -> None:
    """2·M·N·K for each: two forward, two for the weights, one for the hidden layer; the rest is less than a fifth of it."""
    products = 2 * BATCH * (2 * 64 * 256 + 3 * 256 * 10)
    flops = step_of(MLP).certificate.flops
    assert products <= flops <= 1.2 * products


def test_a_row_kernel_reads_and_writes_each_byte_once() -> None:
    x = Tensor(np.random.default_rng(0).standard_normal((64, 100)).astype(np.float32))
    for y in (x.softmax(-1), x.layernorm()):
        c = lower(Graph([y.node]), machine=FIXTURE, backend="reference")
        (done,) = count(c, {})
        assert isinstance(done, Counted)
        assert (done.bytes_read, done.bytes_written) == (x.nbytes, x.nbytes)
        assert (c.certificate.bytes_read, c.certificate.bytes_written) == (x.nbytes, x.nbytes)


def test_the_certificate_of_a_gather_bounds_what_it_reads() -> None:
    table = Tensor(np.arange(40, dtype=np.float32).reshape(10, 4))
    rows = table[Tensor(np.array([3, 3, 7], np.int32))]
    c = lower(Graph([rows.node]), machine=FIXTURE, backend="reference")
    (done,) = count(c, {})
    (k,) = c.certificate.kernels
    assert not c.certificate.static and not k.exact
    assert done.bytes_read == 2 * 16 + 3 * 4 <= k.bytes_read <= 40 * 4 + 3 * 4
    assert done.bytes_written == k.bytes_written == 3 * 16


# ---- with nobody watching


def steady_step() -> Callable[[], Tensor]:
    _, step = training(MLP)
    x, y = (Tensor(a) for a in digits(MLP.shape))
    return lambda: step(x, y)


def test_an_unwatched_step_does_what_it_does_without_hooks() -> None:
    """The steady jitted step, and the same code with every `if hooks.watching:` taken out: the same calls and, but for tests
    of the flag (load `hooks`, load `watching`), the same instructions; so nothing more is allocated either."""
    with backends.use("llvm"):
        step = steady_step()
        with_hooks = unwatched.measure(step)
        with unwatched.hooks_removed(step):
            without = unwatched.measure(step)
    assert with_hooks.calls == without.calls
    assert not [c for c in with_hooks.calls if c.startswith("hooks.py")]
    more = with_hooks.instructions - without.instructions
    flags = more["LOAD_GLOBAL"]
    handed_on = without.instructions - with_hooks.instructions  # where the flag is an argument, the constant False is one too
    assert set(handed_on) <= {"LOAD_CONST"} and handed_on["LOAD_CONST"] < flags
    assert 2 <= flags <= 8 and dict(more) == {"LOAD_GLOBAL": flags, "LOAD_ATTR": flags}


def test_watching_and_then_not_leaves_nothing_behind() -> None:
    with backends.use("llvm"):
        step = steady_step()
        before = unwatched.measure(step)
        events: list[hooks.Event] = []
        with hooks.subscribed(events.append):
            watched = unwatched.measure(step)
        after = unwatched.measure(step)
    assert any(isinstance(e, hooks.Launch) for e in events)
    assert watched.calls != before.calls and watched.instructions != before.instructions  # a subscriber does show
    assert (after.calls, after.instructions) == (before.calls, before.instructions)


def test_what_is_counted_does_not_depend_on_what_ran_before() -> None:
    """Somebody may listen to the garbage collector, as Hypothesis does."""

    def listener(phase: str, info: object) -> None: ...

    with backends.use("llvm"):
        step = steady_step()
        before = unwatched.measure(step)
        often = gc.get_threshold()
        gc.callbacks.append(listener)
        gc.set_threshold(1)
        try:
            after = unwatched.measure(step)
        finally:
            gc.set_threshold(*often)
            gc.callbacks.remove(listener)
    assert (after.calls, after.instructions) == (before.calls, before.instructions)


def test_a_steady_step_keeps_no_memory() -> None:
    with backends.use("llvm"):
        assert unwatched.growth(steady_step(), 600) < 300  # a block per step would be 600
