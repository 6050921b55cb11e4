"""What may happen around a training step: a fork, another Python thread, Ctrl-C. Weights are always those of whole steps."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tinyengine import Tensor, backends, jit, nn, optim
from tinyengine.runtime import threads


@pytest.fixture(autouse=True)
def llvm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Four threads, whatever the machine."""
    monkeypatch.setenv("TINYENGINE_THREADS", "4")
    threads.reset()
    with backends.use("llvm"):
        yield
    threads.reset()


def trainer(seed: int, jitted: bool = True) -> Callable[[int], list[float]]:
    """A small network of its own; called with a number of steps it trains on and returns the losses."""
    rng = np.random.default_rng(seed)
    layer = nn.Linear(64, 32)
    for p in layer.parameters():
        p.assign(Tensor(rng.standard_normal(p.shape).astype(np.float32))).realize()
    optimizer = optim.Adam(layer.parameters(), lr=0.01)
    x = Tensor(rng.standard_normal((256, 64)).astype(np.float32))

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = layer(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    run = jit(step) if jitted else step
    return lambda steps: [run().item() for _ in range(steps)]


def test_a_forked_child_trains_on_and_changes_nothing_here() -> None:
    expected = trainer(1)(6)
    train = trainer(1)
    assert train(3) == expected[:3]
    child = os.fork()
    if child == 0:
        os._exit(0 if train(3) == expected[3:] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert train(3) == expected[3:]


@pytest.mark.parametrize("jitted", [True, False])
def test_two_python_threads_train_at_once(jitted: bool) -> None:
    """Both trace, compile and run; each has its own phase, its own no_grad, its own trace."""
    expected = [trainer(seed)(15) for seed in (1, 2)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # as many switches between them as can be
    try:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for _ in range(4):
                got = [pool.submit(lambda s: trainer(s, jitted)(15), seed) for seed in (1, 2)]
                for a, b in zip([g.result() for g in got], expected, strict=True):
                    np.testing.assert_allclose(a, b, rtol=1e-5)
    finally:
        sys.setswitchinterval(interval)


def test_threads_that_call_one_function_for_the_first_time_trace_it_once() -> None:
    """While it is traced, what it captures is lazy: no other thread may take that for an update that has yet to run."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(5):
            w = Tensor(np.zeros(300, np.float32))
            traced: list[int] = []

            def count(w: Tensor = w, traced: list[int] = traced) -> Tensor:
                traced.append(1)
                time.sleep(0.002)
                out = w.assign(w + 1)
                time.sleep(0.002)
                return out

            step = jit(count)
            with concurrent.futures.ThreadPoolExecutor(3) as pool:
                for f in [pool.submit(lambda step=step: [step() for _ in range(20)] and None) for _ in range(3)]:
                    f.result()
            assert len(traced) == 1 and (w.numpy() == 60).all()
    finally:
        sys.setswitchinterval(interval)


@contextlib.contextmanager
def recorded_whole() -> Iterator[None]:
    """Ctrl-C waits until several updates are recorded: between two of them it would find one recorded and not the other."""
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    yield
    signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


@pytest.mark.parametrize("jitted", [True, False])
def test_ctrl_c_leaves_whole_steps(jitted: bool, ctrl_c: None) -> None:
    """Four large tensors count steps. Whenever the interrupt comes, they have counted the same."""
    weights = [Tensor(np.zeros(1 << 18, np.float32)) for _ in range(4)]

    def count() -> None:
        with recorded_whole():
            for w in weights:
                w.assign(w + 1)
        Tensor.realize(*weights)

    step = jit(count) if jitted else count
    step()
    dice = random.Random(0)
    interrupted = 0
    for _ in range(25):
        timer = threading.Timer(dice.uniform(0.0005, 0.008), lambda: os.kill(os.getpid(), signal.SIGINT))
        try:
            timer.start()
            until = time.monotonic() + 5
            while time.monotonic() < until:
                step()
                if dice.random() < 0.3:
                    held = weights[0].numpy()  # the next step must move it before it writes
            raise AssertionError("the interrupt was lost")
        except KeyboardInterrupt:
            interrupted += 1
        timer.join()
        values = {float(w.numpy()[i]) for w in weights for i in (0, -1)}
        assert len(values) == 1, values
        assert (held == held[0]).all() if interrupted > 5 else True
    before = weights[0].numpy()[0]
    step()
    assert interrupted == 25 and [w.numpy()[0] for w in weights] == [before + 1] * 4


def test_a_busy_neighbour_changes_nothing_but_the_time() -> None:
    expected = trainer(3)(20)
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        assert trainer(3)(20) == expected
    finally:
        for b in burners:
            b.kill()
            b.wait()


def test_programs_share_one_arena() -> None:
    """Temporaries lie in memory of the pool; a larger program makes it larger, and the smaller ones find it there."""
    x = [Tensor(np.linspace(-1, 1, n * 64, dtype=np.float32).reshape(n, 64)) for n in (8, 64, 8)]
    f = jit(lambda x: ((x @ x.transpose(0, 1)).softmax(-1) @ x).sum(0))
    expected = []
    for v in x:
        a = np.array(v, np.float64)
        e = np.exp(a @ a.T - (a @ a.T).max(1, keepdims=True))
        expected.append((e / e.sum(1, keepdims=True) @ a).sum(0))
    for _ in range(2):
        for v, right in zip(x, expected, strict=True):
            np.testing.assert_allclose(f(v).numpy(), right, rtol=1e-4, atol=1e-5)
    assert [p.plan.arena_bytes > 0 for p in f.lowered] == [True, True]
    assert threads.current is not None
    (arena,) = threads.current._arenas
    assert arena.nbytes == max(p.plan.arena_bytes for p in f.lowered)


def test_a_signal_handler_may_run_a_program_inside_another() -> None:
    """It gets an arena of its own: the temporaries of the one that it interrupts stay."""
    x = Tensor(np.linspace(-1, 1, 512 * 512, dtype=np.float32).reshape(512, 512))
    w = Tensor(np.zeros((512, 512), np.float32))

    def update(x: Tensor) -> None:
        y = x
        for _ in range(12):
            y = (y @ x).tanh()
        w.assign(w * 0.5 + y)

    step, other = jit(update), jit(lambda x: ((x @ x).exp() @ x).sum())
    once = other(x).item()
    step(x)
    step(x)
    expected = w.numpy()
    w.assign(Tensor.zeros(512, 512)).realize()
    inside: list[float] = []
    old = signal.signal(signal.SIGALRM, lambda number, frame: inside.append(other(x).item()))
    try:
        for _ in range(2):
            signal.setitimer(signal.ITIMER_REAL, 0.004)
            step(x)
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    np.testing.assert_array_equal(w.numpy(), expected)
    assert all(v == once for v in inside)
