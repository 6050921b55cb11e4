"""Measure the peaks of this machine with kernels of the engine's own: FLOP/s, bytes/s per cache level, the price of a launch.

Each probe is a loop nest, written by hand in its final form, compiled and run by the llvm backend and timed by the clocks inside
the native program. The best of several runs is the peak; how far the median lies from it is the spread."""

from __future__ import annotations

import datetime
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

from tinyengine import dtypes, machine
from tinyengine.backends import llvm
from tinyengine.loopnest import Alloc, Buf, Expr, Kernel, Let, Loop, Stmt, Store, apply, index, load, ramp, var
from tinyengine.loopnest import const as number
from tinyengine.loopnest import name as named
from tinyengine.machine import LEVELS, Machine
from tinyengine.program import Call, Program, Slot
from tinyengine.runtime.buffer import Buffer

F32 = dtypes.float32
ROUNDS = 15
SECONDS = 2e-3  # of one run of a probe, about
CHAINS = 12  # independent accumulators: latency 4 on 2 units needs 8
MULTIPLY = 3  # cycles
MAX_BYTES = 256 << 20  # of one array that lies in memory
MIN_LAUNCH = 0.05e-6  # seconds: below, the clocks tell nothing
TINY = 64  # kernels in the program that measures launching


def measure(save: bool = True) -> Machine:
    """This machine with measured peaks and today's date; about a second. Kept on disk for `machine.current` unless `save` is
    false.

    Raises RuntimeError when the llvm backend does not work here."""
    facts = machine.detect()
    why = llvm.LLVMBackend().available()
    if why:
        raise RuntimeError(f"nothing can be measured: {why}")
    lanes = facts.vector_bytes // F32.itemsize
    spreads: list[float] = []

    def best(kernel: Kernel, work: float, *arrays: Buffer) -> float:
        """`work` per second, at best."""
        seconds = sorted(_run(kernel, arrays))
        spreads.append(1 - seconds[0] / statistics.median(seconds))
        return work / seconds[0]

    def core_peaks(cores: int) -> tuple[float, dict[str, float]]:
        """FLOP/s, and bytes/s read per level, of `cores` together."""
        trips = int(facts.fma_flops * SECONDS / (2 * lanes * CHAINS))
        y = Buffer(cores * lanes, F32, "y")
        flops = best(_fma(cores, trips, lanes), 2.0 * cores * trips * CHAINS * lanes, y)
        read = {}
        for level in LEVELS:
            n = _resident(facts, level, cores) // F32.itemsize // (cores * CHAINS * lanes) * CHAINS * lanes  # elements per core
            passes = max(1, int(facts.read[level] * SECONDS / (n * F32.itemsize))) if level != "dram" else 1
            work = float(cores * passes * n * F32.itemsize)
            read[level] = best(_read(cores, passes, n, lanes), work, _filled(cores * n, "x"), y)
        return flops, read

    flops, read = core_peaks(1)
    flops_all, read_all = core_peaks(facts.cores)
    n = _resident(facts, "dram", facts.cores) // F32.itemsize // (facts.cores * lanes) * lanes
    x, z = _filled(facts.cores * n, "x"), _filled(facts.cores * n, "z")
    copy = best(_copy(facts.cores, n, lanes, ""), 2.0 * x.nbytes, x, z)
    stream = best(_copy(facts.cores, n, lanes, "stream"), 2.0 * x.nbytes, x, z)
    launch, start = _launching(facts.cores, lanes)
    # what each core has of its own must scale with the cores; where it does not, somebody else was using them
    shortfall = [1 - read_all[level] / (facts.cores * read[level]) for level in ("l1", "l2")]
    shortfall.append(1 - flops_all / (facts.cores * flops))
    measured = replace(
        facts, fma_flops=flops, fma_flops_all=flops_all, read=read, read_all=read_all, copy_all=copy,
        write_all=_rest(x.nbytes, copy, read_all["dram"]), stream_all=_rest(x.nbytes, stream, read_all["dram"]),
        launch_seconds=launch, start_seconds=start, spread=min(0.5, max(0.05, statistics.median(spreads), *shortfall)),
        hertz=_hertz(best) if facts.target == "x86_64" else 0.0, source="measured", date=datetime.date.today().isoformat(),
    )  # fmt: skip
    if save:
        machine.save(measured)
    return measured


def _hertz(best: Callable[..., float]) -> float:
    """Cycles per second: a multiplication of integers takes MULTIPLY of them on every x86-64 processor since 2008, and each here
    waits for the one before it."""
    trips = int(SECONDS * 1e9)
    x, acc, i = Buf("x", dtypes.int32, (1,)), Buf("acc", dtypes.int32, (), "register"), var("i", 0, trips - 1)
    square = Loop(i, 0, trips, 1, (Store(acc, (), apply("mul", (load(acc, ()), load(acc, ())))),))
    body = (Alloc(acc, 0), Store(acc, (), load(x, (index(0),))), square, Store(x, (index(0),), load(acc, ())))
    return best(Kernel("probe_clock", (x,), body, ("x",)), float(MULTIPLY * trips), Buffer(1, dtypes.int32, "x"))


def _resident(facts: Machine, level: str, cores: int) -> int:
    """Bytes of an array that lies in `level` when `cores` read it in equal parts: half of the cache, or far more than the
    last."""
    if level == "dram":
        return min(MAX_BYTES, 4 * facts.l3_bytes)
    if level == "l3":
        return max(facts.l3_bytes // 4, 2 * facts.l2_bytes * cores)
    return (facts.l1_bytes if level == "l1" else facts.l2_bytes) // 2 * cores


def _rest(nbytes: float, copied: float, read: float) -> float:
    """Bytes/s of writing, from a copy (bytes read plus written, per second) less the time that reading takes."""
    return nbytes / max(2 * nbytes / copied - nbytes / read, nbytes / copied / 4)


def _filled(size: int, name: str) -> Buffer:
    b = Buffer(size, F32, name)
    b.array[...] = 1.0
    return b


def _run(kernel: Kernel, arrays: tuple[Buffer, ...]) -> list[float]:
    slots = tuple(Slot(p.name, p.dtype, p.shape, "output" if p.name in kernel.outputs else "input") for p in kernel.params)
    executable = llvm.LLVMBackend().compile(Program(kernel.name, slots, (Call(kernel, tuple(range(len(slots)))),), 0))
    out = []
    for _ in range(ROUNDS + 1):
        times = executable.run(arrays, clocks=True)
        assert times is not None
        out.append(times.seconds[0])
    return out[1:]


# ---- the kernels


def _cores(cores: int, body: Callable[[Expr], tuple[Stmt, ...]]) -> tuple[Stmt, ...]:
    """`body` once per core."""
    p = var("p", 0, cores - 1)
    return (Loop(p, 0, cores, 1, body(p), "parallel"),)


def _plus(a: Expr, b: Expr) -> Expr:
    return apply("add", (a, b))


def _times(a: Expr, k: int) -> Expr:
    return apply("mul", (a, index(k)))


def _chains(lanes: int) -> tuple[Buf, tuple[Stmt, ...], Callable[[Buf, Expr], tuple[Stmt, ...]]]:
    """CHAINS vector registers, what sets them, and what stores their sum for core p."""
    acc = Buf("acc", F32, (CHAINS, lanes), "register")

    def collect(y: Buf, p: Expr) -> tuple[Stmt, ...]:
        total = load(acc, (index(0), ramp(index(0), lanes)))
        for c in range(1, CHAINS):
            total = _plus(total, load(acc, (index(c), ramp(index(0), lanes))))
        return (Store(y, (ramp(_times(p, lanes), lanes),), total),)

    return acc, (Alloc(acc, 0.0),), collect


def _fma(cores: int, trips: int, lanes: int) -> Kernel:
    """acc[c] = acc[c] * a + b in CHAINS independent chains."""
    y = Buf("y", F32, (cores * lanes,))
    acc, start, collect = _chains(lanes)

    def body(p: Expr) -> tuple[Stmt, ...]:
        i, c = var("i", 0, trips - 1), var("c", 0, CHAINS - 1)
        at = (c, ramp(index(0), lanes))
        a, b = number(0.5, F32, lanes), number(1.0, F32, lanes)
        step = Store(acc, at, apply("fma", (load(acc, at), a, b)))
        return (*start, Loop(i, 0, trips, 1, (Loop(c, 0, CHAINS, 1, (step,), "unroll"),)), *collect(y, p))

    return Kernel("probe_fma", (y,), _cores(cores, body), ("y",))


def _read(cores: int, passes: int, n: int, lanes: int) -> Kernel:
    """Each core adds up its own n elements, `passes` times."""
    x, y = Buf("x", F32, (cores * n,)), Buf("y", F32, (cores * lanes,))
    acc, start, collect = _chains(lanes)

    def body(p: Expr) -> tuple[Stmt, ...]:
        r, i, c = var("r", 0, passes - 1), var("i", 0, n - 1), var("c", 0, CHAINS - 1)
        at = (c, ramp(index(0), lanes))
        v = load(x, (ramp(_plus(_plus(_times(p, n), i), _times(c, lanes)), lanes),))
        step = Store(acc, at, _plus(load(acc, at), v))
        inner = Loop(i, 0, n, CHAINS * lanes, (Loop(c, 0, CHAINS, 1, (step,), "unroll"),))
        return (*start, Loop(r, 0, passes, 1, (inner,)), *collect(y, p))

    return Kernel("probe_read", (x, y), _cores(cores, body), ("y",))


def _copy(cores: int, n: int, lanes: int, hint: str) -> Kernel:
    x, z = Buf("x", F32, (cores * n,)), Buf("z", F32, (cores * n,))

    def body(p: Expr) -> tuple[Stmt, ...]:
        i = var("i", 0, n - 1)
        at = (ramp(_plus(_times(p, n), i), lanes),)
        return (Loop(i, 0, n, lanes, (Let("v", load(x, at)), Store(z, at, named("v", F32, lanes), None, hint))),)

    return Kernel(f"probe_copy{'_' + hint if hint else ''}", (x, z), _cores(cores, body), ("z",))


def _launching(cores: int, lanes: int) -> tuple[float, float]:
    """(seconds that all cores need to take up a kernel inside a program, seconds that a program costs from Python)."""
    work = 2 * lanes * 1024  # elements per core: enough that the backend calls all threads
    kernel = _copy(cores, work, lanes, "")
    x, z = _filled(cores * work, "x"), _filled(cores * work, "z")
    slots = (Slot("x", F32, (cores * work,), "input"), Slot("z", F32, (cores * work,), "output"))

    def wall(calls: int) -> float:
        executable = llvm.LLVMBackend().compile(Program("probe", slots, (Call(kernel, (0, 1)),) * calls, 0))
        out = []
        for _ in range(3 * ROUNDS):
            began = time.perf_counter()
            executable.run((x, z))
            out.append(time.perf_counter() - began)
        return min(out)

    one, each = wall(1), (wall(TINY) - wall(1)) / (TINY - 1)
    alone = min(_run(_copy(1, work, lanes, ""), (_filled(work, "x"), _filled(work, "z"))))  # a core's part, without the others
    return max(MIN_LAUNCH, each - alone), max(MIN_LAUNCH, one - each)
