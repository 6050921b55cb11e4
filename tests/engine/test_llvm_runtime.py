"""The native runner: threads, chunks, clocks, checks, interrupts, forks and two Python threads at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.engine import nests
from tests.engine.nests import W, add, mul
from tests.engine.test_llvm import gather
from tinyengine.backends import llvm_code
from tinyengine.backends.llvm import LLVMBackend
from tinyengine.dtypes import float32
from tinyengine.loopnest import Accumulate, Alloc, Buf, Kernel, Let, Loop, Store, const, index, load, name, ramp, var
from tinyengine.program import Call, Program, Slot
from tinyengine.runtime import native, threads
from tinyengine.runtime.buffer import Buffer

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=[1, 2, 5])
def count(request, monkeypatch):
    """The thread count; the pool before and after is another one. Even small kernels are shared, so that sharing is tested."""
    threads.reset()
    monkeypatch.setattr(native, "SMALLEST_SHARE", 50.0)
    monkeypatch.setenv("TINYENGINE_THREADS", str(request.param))
    yield request.param
    threads.reset()


@pytest.fixture
def four(monkeypatch):
    """Four threads; even small kernels are shared."""
    threads.reset()
    monkeypatch.setattr(native, "SMALLEST_SHARE", 50.0)
    monkeypatch.setenv("TINYENGINE_THREADS", "4")
    yield
    threads.reset()


def increment(n: int, target: str = "y", by: float = 1.0) -> Kernel:
    """target += by, in place."""
    y = Buf(target, float32, (n,))
    i = var("i", 0, n - W)
    at = (ramp(i, W),)
    return Kernel(
        "increment", (y,), (Loop(i, 0, n, W, (Accumulate(y, at, "add", const(by, float32, W)),), "parallel"),), (target,)
    )


def slow(n: int, rounds: int, target: str = "y") -> Kernel:
    """Takes long: target = x after `rounds` additions of 0 that depend on each other."""
    x, y, acc = Buf("x", float32, (n,)), Buf(target, float32, (n,)), Buf("acc", float32, (W,), "register")
    i, k, at = var("i", 0, n - W), var("k", 0, rounds - 1), (ramp(index(0), W),)
    body = (
        Alloc(acc, 0.0),
        Accumulate(acc, at, "add", load(x, (ramp(i, W),))),
        Loop(k, 0, rounds, 1, (Accumulate(acc, at, "add", const(0.0, float32, W)),)),
        Store(y, (ramp(i, W),), load(acc, at)),
    )
    return Kernel("slow", (x, y), (Loop(i, 0, n, W, body, "parallel"),), (target,))


# ---- threads


@pytest.mark.parametrize("n", [16, 160, 16 * 999, 1 << 18])
def test_every_iteration_runs_exactly_once(count, n):
    p = nests.program(increment(n), roles={"y": "state"})
    e = LLVMBackend().compile(p)
    memory = nests.buffers(p, {"y": np.zeros(n)})
    for _ in range(50):
        e.run(memory)
    assert (memory[0].array == 50).all()
    assert llvm_code.pool().threads == count
    assert len(llvm_code.pool().workers) in (0, count - 1)


def test_the_threads_have_scratch_of_their_own(count):
    x = np.random.default_rng(0).standard_normal((512, 700)).astype(np.float32)
    e = np.exp(x - x.max(1, keepdims=True))
    for _ in range(5):
        np.testing.assert_allclose(nests.run(nests.softmax(512, 700), x=x)["y"], e / e.sum(1, keepdims=True), rtol=3e-6)


def test_a_large_program_of_many_kernels_in_order(four):
    """Kernel k multiplies by 2 and adds k: any lost or swapped kernel shows."""
    n, steps = 1 << 14, 24
    y = Buf("y", float32, (n,))
    kernels = []
    for k in range(steps):
        i = var("i", 0, n - W)
        at = (ramp(i, W),)
        value = add(mul(load(y, at), const(0.5, float32)), const(float(k), float32))
        kernels.append(Kernel(f"k{k}", (y,), (Loop(i, 0, n, W, (Store(y, at, value),), "parallel"),), ("y",)))
    p = nests.program(*kernels, roles={"y": "state"})
    e = LLVMBackend().compile(p)
    start = np.arange(n, dtype=np.float32)
    want = start
    for k in range(steps):
        want = want * np.float32(0.5) + np.float32(k)
    for _ in range(40):
        memory = nests.buffers(p, {"y": start})
        e.run(memory)
        np.testing.assert_array_equal(memory[0].array, want)


def test_workers_sleep_and_wake(four, monkeypatch):
    monkeypatch.setattr(threads, "SPIN_NS", 1000)
    threads.reset()
    p = nests.program(increment(1 << 16), roles={"y": "state"})
    e = LLVMBackend().compile(p)
    memory = nests.buffers(p, {"y": np.zeros(1 << 16)})
    e.run(memory)
    for _ in range(20):
        time.sleep(0.002)  # long enough that every worker sleeps
        e.run(memory)
    assert (memory[0].array == 21).all()


def test_two_python_threads_may_run_programs_at_once(four):
    p = nests.program(increment(1 << 15), roles={"y": "state"})
    shared = LLVMBackend().compile(p)
    failures = []

    def work(seed):
        own = LLVMBackend().compile(p)
        a, b = nests.buffers(p, {"y": np.full(1 << 15, seed)}), nests.buffers(p, {"y": np.zeros(1 << 15)})
        for _ in range(100):
            own.run(a)
            shared.run(b)
        if not ((a[0].array == seed + 100).all() and (b[0].array == 100).all()):
            failures.append(seed)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not failures


def test_a_forked_child_has_a_pool_of_its_own(four):
    p = nests.program(increment(1 << 16), roles={"y": "state"})
    e = LLVMBackend().compile(p)
    memory = nests.buffers(p, {"y": np.zeros(1 << 16)})
    e.run(memory)
    assert len(llvm_code.pool().workers) == 3
    child = os.fork()
    if child == 0:
        code = 1
        try:
            e.run(memory)
            code = 0 if (memory[0].array == 2).all() and len(llvm_code.pool().workers) == 3 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    e.run(memory)
    assert (memory[0].array == 2).all()


def test_a_process_ends_while_its_workers_spin():
    """Neither a crash nor a hang at exit, right after a parallel kernel."""
    script = (
        "import numpy as np\nfrom tests.engine import nests\n"
        "assert nests.run(nests.softmax(512, 512), x=np.ones((512, 512)))['y'][0, 0] == np.float32(1 / 512)\nprint('done')"
    )
    env = {**os.environ, "TINYENGINE_THREADS": "4", "PYTHONPATH": os.pathsep.join([str(ROOT / "engine"), str(ROOT)])}
    for _ in range(3):
        r = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=60)
        assert (r.returncode, r.stdout) == (0, "done\n"), r.stderr


def test_thread_count_from_the_environment(monkeypatch):
    monkeypatch.setenv("TINYENGINE_THREADS", "3")
    assert threads.thread_count() == 3
    for bad in ("0", "-1", "two", "1.5", "99999"):
        monkeypatch.setenv("TINYENGINE_THREADS", bad)
        with pytest.raises(ValueError, match="TINYENGINE_THREADS must be a whole number"):
            threads.thread_count()
    monkeypatch.delenv("TINYENGINE_THREADS")
    assert 1 <= threads.thread_count() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    "files,membership,quota",
    [
        ({"cpu.max": "max 100000"}, "0::/\n", float("inf")),
        ({"a/cpu.max": "150000 100000", "cpu.max": "max 100000"}, "0::/a/b\n", 1.5),
        ({"a/cpu.max": "150000 100000", "a/b/cpu.max": "50000 100000"}, "0::/a/b\n", 0.5),
        ({"cpu/j/cpu.cfs_quota_us": "200000", "cpu/j/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/j\n1:name=x:/j\n", 2.0),
        ({"cpu/j/cpu.cfs_quota_us": "-1", "cpu/j/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/j\n", float("inf")),
        ({}, "garbage", float("inf")),
    ],
)
def test_cgroup_quota(tmp_path, files, membership, quota):
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "self").write_text(membership)
    assert threads.cgroup_quota(str(tmp_path), str(tmp_path / "self")) == quota


# ---- chunks


def test_small_kernels_stay_on_one_thread_and_large_ones_are_shared(four, monkeypatch):
    monkeypatch.setattr(native, "SMALLEST_SHARE", 8000.0)
    small = LLVMBackend().compile(nests.program(nests.chain(256)))
    large = LLVMBackend().compile(nests.program(nests.chain(1 << 22)))
    assert [d.verdict for d in small.decisions] == ["one thread"] and "cycles" in small.decisions[0].reason
    assert [d.verdict for d in large.decisions] == ["all threads"]
    assert large.decisions[0].numbers["chunks"] == 64


@pytest.mark.parametrize("trips", [1, 2, 3, 7, 64, 65, 1000, 10**6])
@pytest.mark.parametrize("n", [1, 2, 3, 64])
def test_chunks_cover_all_trips(trips, n):
    size, count = native.chunks(native.Step(0, (), trips, 1e9, 0), n)
    if size == 0:
        assert n == 1 or trips == 1
    else:
        assert (count - 1) * size < trips <= count * size and count <= native.MAX_CHUNKS


# ---- the call


def test_too_few_buffers_is_a_value_error():
    e = LLVMBackend().compile(nests.program(nests.chain(64)))
    with pytest.raises(ValueError, match="takes 2 buffers, 1 were given"):
        e.run([Buffer(64, float32)])


def test_other_buffers_on_every_call():
    p = nests.program(nests.chain(64))
    e = LLVMBackend().compile(p)
    for k in range(5):
        memory = nests.buffers(p, {"x": np.full(64, k)})
        e.run(memory)
        assert (memory[1].array == 2 * k + 1).all()


def test_temporaries_live_in_the_arena():
    """x -> t -> y with t in the arena at an offset."""
    n = 64
    x, t, y = Buf("x", float32, (n,)), Buf("t", float32, (n,)), Buf("y", float32, (n,))

    def plus(a: Buf, b: Buf) -> Kernel:
        i = var("i", 0, n - W)
        at = (ramp(i, W),)
        return Kernel(
            f"to_{b.name}",
            (a, b),
            (Loop(i, 0, n, W, (Store(b, at, add(load(a, at), const(1.0, float32))),), "parallel"),),
            (b.name,),
        )

    slots = (Slot("x", float32, (n,), "input"), Slot("y", float32, (n,), "output"), Slot("t", float32, (n,), "temporary", 128))
    p = Program("arena", slots, (Call(plus(x, t), (0, 2)), Call(plus(t, y), (2, 1))), 128 + 4 * n)
    memory = nests.buffers(p, {"x": np.arange(n)})
    e = LLVMBackend().compile(p)
    e.run(memory)
    assert np.array_equal(memory[1].array, np.arange(n) + 2)
    assert e.codes[0].symbol == e.codes[1].symbol  # one function, two calls


def test_clocks_are_per_call_and_in_order():
    p = nests.program(slow(256, 100_000), nests.chain(256))
    e = LLVMBackend().compile(p)
    memory = nests.buffers(p, {"x": np.ones(256)})
    assert e.run(memory) is None
    began = time.perf_counter()
    times = e.run(memory, clocks=True)
    spent = time.perf_counter() - began
    assert len(times.starts) == len(times.seconds) == 2
    assert times.starts[0] == 0 and times.starts[1] >= times.seconds[0] > 0
    assert times.seconds[0] > 100 * times.seconds[1]  # 100,000 dependent additions against a handful
    assert sum(times.seconds) <= spent


def test_an_empty_program_runs():
    e = LLVMBackend().compile(Program("empty", (), (), 0))
    assert e.run([]) is None
    assert e.run([], clocks=True).seconds == ()


# ---- checks and interrupts


def test_a_check_that_fails_before_the_first_write_stops_the_program(four):
    """The weights are not touched by a step whose labels are out of range."""
    g = gather(64, 100, 16)
    p = nests.program(g, increment(1 << 15, "w"), roles={"w": "state"})
    e = LLVMBackend().compile(p)
    memory = nests.buffers(p, {"table": np.ones(100), "idx": np.r_[np.zeros(63), 100], "w": np.zeros(1 << 15)})
    with pytest.raises(IndexError, match="index out of range"):
        e.run(memory)
    assert (memory[-1].array == 0).all()


def test_a_check_that_fails_after_writing_began_lets_the_program_finish(four):
    p = nests.program(increment(1 << 15, "w"), gather(64, 100, 16), increment(1 << 15, "v"), roles={"w": "state", "v": "state"})
    e = LLVMBackend().compile(p)
    arrays = {"table": np.ones(100), "idx": np.full(64, -1), "w": np.zeros(1 << 15), "v": np.zeros(1 << 15)}
    memory = nests.buffers(p, arrays)
    with pytest.raises(IndexError):
        e.run(memory)
    content = {s.name: b.array for s, b in zip(p.slots, memory, strict=True)}
    assert (content["w"] == 1).all() and (content["v"] == 1).all()


def test_the_message_is_that_of_the_kernel_that_failed():
    from dataclasses import replace

    def worded(text: str, suffix: str) -> Kernel:
        k = gather(16, 10, 16)
        loop = k.body[0]
        body = tuple(replace(s, message=text) if hasattr(s, "message") else s for s in loop.body)
        return replace(k, name=f"g{suffix}", body=(replace(loop, body=body),))

    p = nests.program(worded("first", "1"), worded("second", "2"))
    e = LLVMBackend().compile(p)
    assert e.codes[0].symbol == e.codes[1].symbol
    memory = nests.buffers(p, {"table": np.ones(10), "idx": np.full(16, 10)})
    with pytest.raises(IndexError, match=r"^first$"):
        e.run(memory)


def test_an_interrupt_comes_before_the_first_write_or_not_at_all(four, ctrl_c):
    """SIGINT during the slow part: KeyboardInterrupt, and not one weight has changed."""
    p = nests.program(slow(1 << 12, 2_000_000), increment(1 << 12, "w"), roles={"w": "state"})
    e = LLVMBackend().compile(p)
    memory = nests.buffers(p, {"x": np.ones(1 << 12), "w": np.zeros(1 << 12)})
    timer = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        e.run(memory)
    timer.join()
    w = dict(zip([s.name for s in p.slots], memory, strict=True))["w"]
    assert (w.array == 0).all()
    p = nests.program(increment(1 << 12, "w"), roles={"w": "state"})
    LLVMBackend().compile(p).run([w])  # the pool works on
    assert (w.array == 1).all()


def long_program():
    """Kernels of some hundredths of a second each that write nothing in place: (executable, memory)."""
    p = nests.program(*(slow(1 << 9, 1_000_000, f"y{i}") for i in range(40)))
    return LLVMBackend().compile(p), nests.buffers(p, {"x": np.ones(1 << 9)})


def test_an_interrupt_ends_a_program_that_writes_nothing_in_place(four, ctrl_c):
    e, memory = long_program()
    timer = threading.Timer(0.02, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt, match="before it wrote"):
        e.run(memory)
    timer.join()
    assert (memory[-1].array == 77).all()  # the last kernel has not run


def test_what_a_signal_handler_raises_while_a_program_runs_comes_through(four):
    def late(number, frame):
        raise TimeoutError("too long")

    e, memory = long_program()
    before = signal.signal(signal.SIGALRM, late)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(TimeoutError, match="too long"):
            e.run(memory)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (memory[-1].array == 77).all()


def test_a_run_can_be_cancelled_from_another_thread(four):
    p = nests.program(slow(1 << 12, 2_000_000), increment(1 << 12, "w"), roles={"w": "state"})
    e = LLVMBackend().compile(p)
    memory = nests.buffers(p, {"x": np.ones(1 << 12), "w": np.zeros(1 << 12)})
    timer = threading.Timer(0.05, e.cancel)
    timer.start()
    with pytest.raises(KeyboardInterrupt, match="before it wrote"):
        e.run(memory)
    timer.join()
    assert (memory[-1].array == 0).all()


def test_importing_the_backend_does_not_import_llvmlite():
    script = "import sys, tinyengine.backends.llvm; print('llvmlite' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "engine")}
    assert subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True).stdout == "False\n"


def test_let_is_usable_from_both_parts_of_a_kernel():
    """A value at the outermost level keeps the kernel in one piece."""
    y = Buf("y", float32, (64,))
    i = var("i", 0, 48)
    body = (Let("v", const(3.0, float32)), Loop(i, 0, 64, 16, (Store(y, (ramp(i, 16),), name("v", float32)),), "parallel"))
    assert (nests.run(Kernel("let", (y,), body, ("y",)))["y"] == 3).all()


def test_a_program_does_not_keep_the_memory_of_its_last_run():
    import weakref

    p = nests.program(nests.chain(64))
    e = LLVMBackend().compile(p)
    memory = nests.buffers(p, {"x": np.ones(64)})
    e.run(memory)
    gone = weakref.ref(memory[1])
    del memory
    assert gone() is None


def test_threads_generate_the_code_that_one_generates():
    """LLVM runs outside llvmlite's lock: every module has a context and a target machine of its own."""
    from concurrent.futures import ThreadPoolExecutor

    from tinyengine.backends import llvm_jit, llvm_module
    from tinyengine.stages.emit import prepare

    target = llvm_jit.host()
    kernels = [nests.chain(n) for n in (64, 80)] + [nests.softmax(4, 64), nests.matmul(6, 64, 8)]
    modules = [llvm_module.module([prepare(k)], target) for k in kernels]
    alone = [llvm_jit.object_code(m, target) for m in modules]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert list(pool.map(lambda m: llvm_jit.object_code(m, target), modules)) == alone
        with pytest.raises(RuntimeError, match="expected"):
            list(pool.map(lambda m: llvm_jit.object_code(m, target), [modules[0], "define void"]))
