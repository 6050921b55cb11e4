"""One engine in a process of its own: reads one JSON request per line, answers with one JSON line.

The engines' thread pools would disturb each other in one process; while one works, the others' threads sleep."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks import cases, checks
from tests.benchmarks.engines import ENGINES

BATCH = 100e-6  # seconds between two looks at the clock, at least: calls may be shorter than that


def seconds_per_call(f: Callable[[], object], budget: float, least: int = 3) -> float:
    """The fastest during `budget` seconds, of single calls or, if they are short, of calls in a row; at least `least` times: what
    else runs on the machine only adds to the others."""
    began = time.perf_counter()
    f()
    once = time.perf_counter() - began
    row = max(1, int(BATCH / max(once, 1e-7)))
    best, times, end = once, 1, began + budget
    while times < least or time.perf_counter() < end:
        began = time.perf_counter()
        for _ in range(row):
            f()
        best, times = min(best, (time.perf_counter() - began) / row), times + 1
    return best


class Worker:
    """`folder` holds inputs and exact results: see `save`."""

    def __init__(self, engine: str, sizes: str, folder: str) -> None:
        self.module = importlib.import_module(f"tests.benchmarks.{ENGINES[engine].module}")
        self.cases = {c.name: c for c in (cases.QUICK if sizes == "quick" else cases.FULL)}
        self.calls: dict[str, Callable[[], object]] = {}
        self.folder = Path(folder)
        self.limits: Any = None

    def prepare(self, case: str) -> dict[str, Any]:
        """Make it, call it a few times, and compare the results with the exact ones."""
        c = self.cases[case]
        inputs, right = load(self.folder / case, "input"), list(load(self.folder / case, "exact").values())
        call, read = self.module.make(c.work, inputs)
        error = checks.check(c, inputs, checks.results(c, call, read), right)
        self.calls[case] = call
        return {"error": error}

    def time(self, case: str, budget: float, least: int = 3) -> dict[str, Any]:
        return {"seconds": seconds_per_call(self.calls[case], budget, least)}

    def small_op(self, times: int) -> dict[str, Any]:
        """Seconds per operation, best of several rounds; the results are dropped."""
        f = self.module.small_op()
        best = float("inf")
        for _ in range(5):
            began = time.perf_counter()
            for _ in range(times):
                f()
            best = min(best, (time.perf_counter() - began) / times)
        return {"seconds": best}

    def recorded(self, case: str, budget: float) -> dict[str, Any]:
        """A jitted step watched and unwatched, in turn and equally often: the least seconds of each."""
        import tinyviz as tv

        f, on, off = self.calls[case], float("inf"), float("inf")
        for _ in range(3):
            off = min(off, seconds_per_call(f, budget / 2))
            with tv.watch():
                on = min(on, seconds_per_call(f, budget / 2))
        return {"on": on, "off": off}

    def machine(self) -> dict[str, Any]:
        """The peaks of this machine, measured now by kernels of the engine's own."""
        from tinyengine import probes

        return dict(probes.measure(save=False).to_json())

    def limit(self, case: str) -> dict[str, Any]:
        """The least seconds that any engine can need, and the FMA rate."""
        if self.limits is None:
            from tests.benchmarks.limits import Limits

            self.limits = Limits()
        c = self.cases[case]
        self.limits.renew()
        return {"seconds": 0.0 if c.absolute else self.limits.seconds(c), "measured": self.limits.measured}


def save(folder: Path, case: cases.Case) -> None:
    """Inputs and exact results as files, so that every engine gets the same and nobody computes them twice."""
    folder.mkdir(parents=True)
    inputs = case.inputs()
    for kind, arrays in (("input", inputs), ("exact", dict(enumerate(checks.exact(case, inputs))))):
        for i, (k, a) in enumerate(arrays.items()):
            np.save(folder / f"{kind} {i:03} {k}.npy", a)


def load(folder: Path, kind: str) -> cases.Arrays:
    return {p.stem.split(" ")[2]: np.load(p, mmap_mode="c").view(np.ndarray) for p in sorted(folder.glob(f"{kind} *.npy"))}


def main() -> None:
    with contextlib.redirect_stdout(sys.stderr):  # the answers alone go to stdout
        worker = Worker(*sys.argv[1:])
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                answer = getattr(worker, request.pop("do"))(**request)
        except Exception as e:  # a wrong result, or a peer that cannot do it: told, and named on the page
            answer = {"failed": f"{type(e).__name__}: {e}".split("\n")[0][:200]}
        print(json.dumps(answer, default=float), file=answers, flush=True)


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
