"""The run: workers, rounds, cold starts. What comes out is plain data; `report` makes the page of it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks import cases, waits
from tests.benchmarks.worker import ENGINES

ROOT = Path(__file__).parents[2]
PAUSE = 0.05  # seconds between two engines: threads of the last one go to sleep


@dataclass(frozen=True)
class Plan:
    """How much is measured. `budget`: seconds per case, engine and round."""

    sizes: str = "full"
    rounds: int = 15
    cold_rounds: int = 4
    budget: float = 0.04
    small_ops: int = 20_000
    waits: tuple[str, ...] = tuple(waits.NETWORKS)


QUICK = Plan("quick", 2, 1, 0.005, 200, ("MLP",))


@dataclass
class Results:
    """`steady[case][engine]`, `cold[case][engine]`, `small_op[engine]`: seconds per round; `errors[case][engine]`: relative."""

    machine: dict[str, Any]
    steady: dict[str, dict[str, list[float]]]
    cold: dict[str, dict[str, list[float]]]
    errors: dict[str, dict[str, float]]
    small_op: dict[str, list[float]]
    waits: dict[str, list[float]]  # see `waits.run`
    versions: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    load: float = 0.0  # processes that wanted a core when the run began
    seconds: float = 0.0


def environment(cache: str) -> dict[str, str]:
    """For the workers: an empty cache, and no settings that hold NumPy back."""
    env = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "TINYENGINE_BACKEND")}
    path = [str(ROOT / "engine"), str(ROOT), *filter(None, [env.get("PYTHONPATH")])]
    return env | {"TINYENGINE_CACHE": cache, "PYTHONPATH": os.pathsep.join(path)}


class Engine:
    """A worker process."""

    def __init__(self, name: str, plan: Plan, env: dict[str, str]) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.worker", name, plan.sizes]
        self.process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.name = name

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker for {self.name} ended during {do} {arguments}")
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise RuntimeError(f"{self.name} computed a wrong result: {answer['failed']}")
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


@contextlib.contextmanager
def workers(names: list[str], plan: Plan, cache: str) -> Iterator[list[Engine]]:
    engines = [Engine(n, plan, environment(cache)) for n in names]
    try:
        yield engines
    finally:
        for e in engines:
            e.close()


def cold_start(engine: str, case: str, inputs: Path) -> float:
    """Seconds from the start of a process to the end of its first training step, with an empty kernel cache."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "tests.benchmarks.cold", engine, case, str(inputs)]
        began = time.perf_counter()
        done = subprocess.Popen(command, cwd=ROOT, env=environment(cache), stdout=subprocess.PIPE, text=True)
        assert done.stdout is not None
        loss = done.stdout.readline()
        seconds = time.perf_counter() - began
        done.wait(30)
        if not loss or not np.isfinite(float(loss)):
            raise RuntimeError(f"cold start of {engine}, {case}: no loss was printed")
        return seconds


def run(plan: Plan, say: Any = print, engines: Sequence[str] = tuple(ENGINES)) -> Results:
    """All of it, interleaved: in each round every case runs on every engine, one after the other."""
    began = time.perf_counter()
    names, missing = [*engines], []
    if "PyTorch" in names and importlib.util.find_spec("torch") is None:
        names.remove("PyTorch")
        missing.append("PyTorch was left out: it is not installed (pip install torch==2.13.0)")
    chosen = cases.QUICK if plan.sizes == "quick" else cases.FULL
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as cache, workers(names, plan, cache) as running:
        machine = running[0].ask("machine")
        errors = {c.name: {e.name: e.ask("prepare", case=c.name)["error"] for e in running} for c in chosen}
        say("every result agrees with float64 NumPy; timing")
        steady: dict[str, dict[str, list[float]]] = {c.name: {n: [] for n in names} for c in chosen}
        small: dict[str, list[float]] = {e.name: [] for e in running if e.name != "NumPy"}
        for i in range(plan.rounds):
            for c in chosen:
                for e in running[i % len(running) :] + running[: i % len(running)]:  # nobody is always first
                    time.sleep(PAUSE)
                    steady[c.name][e.name].append(e.ask("time", case=c.name, budget=plan.budget)["seconds"])
            for e in running:
                if e.name in small:
                    small[e.name].append(e.ask("small_op", times=plan.small_ops)["seconds"])
            say(f"round {i + 1} of {plan.rounds}")
        again = running[0].ask("machine")
    machine = best(machine, again)
    cold: dict[str, dict[str, list[float]]] = {c: {n: [] for n in names} for c in cases.STEPS}
    with tempfile.TemporaryDirectory() as folder:
        for case in cases.STEPS:
            np.savez(Path(folder) / f"{case}.npz", **next(c for c in chosen if c.name == case).inputs())
        for i in range(plan.cold_rounds):
            for case in cases.STEPS:
                for name in names:
                    cold[case][name].append(cold_start(name, case, Path(folder) / f"{case}.npz"))
            say(f"cold starts, round {i + 1} of {plan.cold_rounds}")
    say("waits")
    waited = waits.run(plan.cold_rounds, plan.waits, plan.small_ops)
    spent = time.perf_counter() - began
    return Results(machine, steady, cold, errors, small, waited, versions(names), missing, load, spent)


def best(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Of two measurements of one machine the higher peaks: a neighbour only ever takes away."""
    out = dict(a)
    for k, v in b.items():
        if isinstance(v, dict):
            out[k] = best(a[k], v)
        elif isinstance(v, float) and k not in ("spread", "launch_seconds", "start_seconds"):
            out[k] = max(a[k], v)
    return out


def versions(names: list[str]) -> dict[str, str]:
    from importlib.metadata import version

    packages = {"tinyviz": "llvmlite", "PyTorch": "torch", "NumPy": "numpy"}
    return {"Python": sys.version.split()[0]} | {packages[n]: version(packages[n]) for n in names}
