"""How many threads, and the pool of native workers that a program's kernels share.

The pool is code (pool.ll) and a block of memory that never moves. It belongs to the process: a forked child starts its own. One
program runs at a time; `lock` is held around it. Workers are pinned, each to a core of its own, and the caller's thread is not.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import math
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tinyengine import dtypes
from tinyengine.runtime.buffer import Buffer

SPIN_NS = 100_000  # how long an idle worker watches for work before it sleeps
MAX_THREADS = 1024

lock = threading.RLock()  # re-entrant: a signal handler may run a program between two steps of another one


def thread_count() -> int:
    """TINYENGINE_THREADS if set, else the cores that this process may use: its affinity, and its cgroup's quota rounded up.

    Raises ValueError when TINYENGINE_THREADS is not a whole number from 1 to 1024."""
    asked = os.environ.get("TINYENGINE_THREADS", "").strip()
    if asked:
        if not asked.isdigit() or not 1 <= int(asked) <= MAX_THREADS:
            raise ValueError(f"TINYENGINE_THREADS must be a whole number from 1 to {MAX_THREADS}, not {asked!r}")
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota()
    return cores if math.isinf(quota) else max(1, min(cores, math.ceil(quota)))


def cgroup_quota(root: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup") -> float:
    """The CPU quota of this process's control group, in cores; infinity when there is none."""
    quota = math.inf
    with contextlib.suppress(OSError, ValueError):
        for line in Path(membership).read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            at = Path(root) / path.lstrip("/") if not controllers else Path(root) / "cpu" / path.lstrip("/")
            names = controllers.split(",")
            while not controllers or "cpu" in names:
                quota = min(quota, _quota_of(at))
                if at in (Path(root), Path(root) / "cpu"):
                    break
                at = at.parent
    return quota


def _quota_of(group: Path) -> float:
    with contextlib.suppress(OSError, ValueError):
        limit, period = (group / "cpu.max").read_text().split()
        return math.inf if limit == "max" else int(limit) / int(period)
    with contextlib.suppress(OSError, ValueError):
        limit, period = ((group / f"cpu.cfs_{n}_us").read_text() for n in ("quota", "period"))
        return math.inf if int(limit) < 0 else int(limit) / int(period)
    return math.inf


def source(triple: str) -> str:
    """The pool's LLVM IR for a target."""
    text = Path(__file__).with_name("pool.ll").read_text()
    relax = {
        "x86_64": "call void @llvm.x86.sse2.pause()",
        "aarch64": "call void @llvm.aarch64.hint(i32 1)",
        "arm64": "call void @llvm.aarch64.hint(i32 1)",
    }.get(triple.split("-")[0], "")
    clock = "6" if "darwin" in triple or "apple" in triple else "1"  # CLOCK_MONOTONIC
    text = text.replace("  RELAX\n", f"  {relax}\n" if relax else "").replace("i32 CLOCK", f"i32 {clock}")
    return f'target triple = "{triple}"\n' + text


def _address(library: ctypes.CDLL, name: str) -> int:
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0


_FUNCTIONS = (
    "pthread_mutex_lock",
    "pthread_mutex_unlock",
    "pthread_cond_wait",
    "pthread_cond_broadcast",
    "clock_gettime",
    "sched_yield",
)
_PYTHON = ("PyGILState_Ensure", "PyErr_CheckSignals", "PyErr_Fetch", "PyGILState_Release")


class Pool:
    """`threads` - 1 workers beside the caller. `worker`, `wake`: addresses of the code of pool.ll."""

    def __init__(self, threads: int, worker: int, wake: int) -> None:
        self.threads = threads
        self._libc = ctypes.CDLL(None)
        self._wake = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(wake)
        self._worker = worker
        self._memory = Buffer(128, dtypes.int64, "pool")
        self._locks = Buffer(64, dtypes.int64, "locks")
        self._arguments = Buffer(2 * threads, dtypes.int64, "workers")
        self.words = self._memory.array
        self.words[:] = 0
        self._locks.array[:] = 0
        self.words[26] = SPIN_NS
        self.words[40], self.words[41] = self._locks.address, self._locks.address + 256
        self._libc.pthread_mutex_init(ctypes.c_void_p(self._locks.address), None)
        self._libc.pthread_cond_init(ctypes.c_void_p(self._locks.address + 256), None)
        for i, name in enumerate(_FUNCTIONS):
            self.words[42 + i] = _address(self._libc, name)
        for i, name in enumerate(_PYTHON):
            self.words[48 + i] = _address(ctypes.pythonapi, name)
        self._arenas: list[Buffer] = []
        self._running = 0  # programs with an arena: a signal handler may run one inside another
        self._scratch: Buffer | None = None
        self.scratch_bytes = 0
        self.workers: list[ctypes.c_ulong] = []
        self.need_scratch(64)

    @property
    def address(self) -> int:
        return self._memory.address

    def need_scratch(self, nbytes: int) -> None:
        """Local memory for kernels: at least `nbytes` for every thread. Only between programs."""
        if nbytes <= self.scratch_bytes:
            return
        self.scratch_bytes = max(nbytes, 2 * self.scratch_bytes)
        # an odd multiple of a page apart, so that threads' buffers do not fall on the same cache sets
        stride = (self.scratch_bytes + 4095) // 4096 * 4096 + 4096 + 128
        self._scratch = Buffer(stride * self.threads, dtypes.uint8, "scratch")
        self.words[32], self.words[33] = self._scratch.address, stride

    @contextlib.contextmanager
    def arena(self, nbytes: int) -> Iterator[int]:
        """The address of memory for the temporaries of the program that runs inside: all programs share it, as one runs at a
        time. It is kept, so that the next program finds its pages mapped."""
        depth = self._running
        if depth == len(self._arenas):
            self._arenas.append(Buffer(nbytes, dtypes.uint8, "arena"))
        elif self._arenas[depth].nbytes < nbytes:
            self._arenas[depth] = Buffer(nbytes, dtypes.uint8, "arena")
        self._running += 1
        try:
            yield self._arenas[depth].address
        finally:
            self._running -= 1

    def reraise(self) -> None:
        """Raise what a signal handler has raised while a program ran, unless that is KeyboardInterrupt or nothing."""
        kind, value, trace = (int(w) for w in self.words[52:55])
        self.words[52:55] = 0
        if kind:
            restore = ctypes.pythonapi.PyErr_Restore
            restore.argtypes = [ctypes.c_void_p] * 3
            with contextlib.suppress(KeyboardInterrupt):
                restore(kind, value or None, trace or None)  # ctypes sees that an exception is set, and raises it

    def start(self) -> None:
        """Start the workers, if they do not run yet."""
        if self.workers or self.threads == 1:
            return
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        for i in range(1, self.threads):
            self._arguments.array[2 * i], self._arguments.array[2 * i + 1] = self.address, i
            thread = ctypes.c_ulong()
            argument = ctypes.c_void_p(self._arguments.address + 16 * i)
            if self._libc.pthread_create(ctypes.byref(thread), None, ctypes.c_void_p(self._worker), argument) != 0:
                break  # fewer workers than wished for: their chunks are run by the others
            self.workers.append(thread)
            if cores and hasattr(self._libc, "pthread_setaffinity_np"):
                mask = np.zeros(128, np.uint8)
                core = cores[i % len(cores)]
                mask[core // 8] |= 1 << (core % 8)
                self._libc.pthread_setaffinity_np(thread, ctypes.c_size_t(128), ctypes.c_void_p(mask.ctypes.data))

    def stop(self) -> None:
        """End the workers and wait for them."""
        with lock:
            self.words[25] = 1
            self._wake(self.address)
            for t in self.workers:
                self._libc.pthread_join(t, None)
            self.workers.clear()
            self.words[25] = 0


current: Pool | None = None  # the process's pool, once it has one


def pool(make: Callable[[], Pool]) -> Pool:
    """The process's pool, made on first use."""
    global current
    if current is None:
        with lock:
            if current is None:
                current = make()
                atexit.register(_stop, current)
    return current


def _stop(p: Pool) -> None:
    if p is current:
        p.stop()


def reset() -> None:
    """Stop the workers and forget the pool: the next program starts one with the thread count of then."""
    global current
    with lock:
        if current is not None:
            current.stop()
        current = None


def _after_fork() -> None:
    global current, lock
    # the parent's workers do not exist here, and a thread that does not either may have held its lock
    current, lock = None, threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
