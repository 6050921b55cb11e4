"""One engine in a process of its own: reads one JSON request per line, answers with one JSON line.

The engines' thread pools would disturb each other in one process; while one works, the others' threads sleep."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.benchmarks import cases

ENGINES = {"tinyviz": "tiny", "PyTorch": "pytorch", "NumPy": "by_hand"}  # name -> module


def seconds_per_call(f: Callable[[], object], budget: float) -> float:
    """The fastest of single calls during `budget` seconds, at least 5: what else runs on the machine only adds to the others."""
    best, calls = float("inf"), 0
    end = time.perf_counter() + budget
    while calls < 5 or time.perf_counter() < end:
        began = time.perf_counter()
        f()
        best, calls = min(best, time.perf_counter() - began), calls + 1
    return best


class Worker:
    def __init__(self, engine: str, sizes: str) -> None:
        self.module = importlib.import_module(f"tests.benchmarks.{ENGINES[engine]}")
        self.cases = {c.name: c for c in (cases.QUICK if sizes == "quick" else cases.FULL)}
        self.calls: dict[str, Callable[[], object]] = {}

    def prepare(self, case: str) -> dict[str, Any]:
        """Make it, call it once, and compare the result with the exact one."""
        c = self.cases[case]
        inputs = c.inputs()
        call, read = self.module.make(case, inputs)
        call()
        self.calls[case] = call
        return {"error": cases.check(c, inputs, read())}

    def time(self, case: str, budget: float) -> dict[str, Any]:
        return {"seconds": seconds_per_call(self.calls[case], budget)}

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

    def machine(self) -> dict[str, Any]:
        """The peaks of this machine, measured now by kernels of the engine's own."""
        from tinyengine import probes

        return dict(probes.measure(save=False).to_json())


def main() -> None:
    worker = Worker(*sys.argv[1:])
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except ValueError as e:  # a wrong result
            answer = {"failed": str(e)}
        print(json.dumps(answer, default=float), flush=True)


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
