"""The run: workers, rounds, cold starts. What comes out is plain data; `report` makes the page of it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks import cases
from tests.benchmarks.engines import COLD, ENGINES, LAZY, OURS, ROOT, absent, environment, installed, versions
from tests.benchmarks.worker import save

PAUSE = 0.12  # seconds between two engines: threads of the last one go to sleep (OpenBLAS's turn for 95 ms after a call)
SLOW_EVERY = 3  # slow engines are measured in every third round
KEPT_ON_DISK = (OURS, "JAX jit")  # whose compiled programs the next process finds
Times = dict[int, float]  # round -> seconds


@dataclass(frozen=True)
class Plan:
    """How much is measured. `budget`: seconds per case, engine and round; `only`: beginnings of names of rows."""

    sizes: str = "full"
    rounds: int = 7
    cold_rounds: int = 3
    budget: float = 0.03
    small_ops: int = 20_000
    only: tuple[str, ...] = ()

    def wants(self, row: str) -> bool:
        return not self.only or any(row.startswith(o) for o in self.only)

    @property
    def cases(self) -> list[cases.Case]:
        every = cases.QUICK if self.sizes == "quick" else cases.FULL
        return [c for c in every if self.wants(c.name) or (c.network and self.wants(f"recording_{c.name}"))]


QUICK = Plan("quick", 1, 1, 0.002, 100)


@dataclass
class Results:
    """`steady[case][engine]`, `limits[case]`, `small_op[engine]`: seconds by round; `cold[network][engine]`: a list of seconds
    with an empty cache and one with a warm one; `recorded[network]`: (seconds watched, unwatched) by round;
    `errors[case][engine]`: relative."""

    machine: dict[str, Any] = field(default_factory=dict)
    steady: dict[str, dict[str, Times]] = field(default_factory=dict)
    limits: dict[str, Times] = field(default_factory=dict)
    probes: dict[str, list[float]] = field(default_factory=dict)  # of every round
    small_op: dict[str, Times] = field(default_factory=dict)
    recorded: dict[str, dict[int, tuple[float, float]]] = field(default_factory=dict)
    cold: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    errors: dict[str, dict[str, float]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    load: float = 0.0  # processes that wanted a core when the run began
    seconds: float = 0.0


class WrongResult(RuntimeError):
    """What an engine computed is not what it should be, or it cannot compute it."""


class Process:
    """A worker process of one engine."""

    def __init__(self, name: str, sizes: str, folder: str) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.worker", name, sizes, f"{folder}/cases"]
        env = environment(name, f"{folder}/cache_{ENGINES[name].module}")
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.name = name

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WrongResult(f"{self.name}: the process ended during {do} {arguments}")
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            raise WrongResult(f"{self.name}: {answer['failed']}")
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(30)


@contextlib.contextmanager
def workers(names: Sequence[str], sizes: str, folder: str) -> Iterator[list[Process]]:
    processes = [Process(n, sizes, folder) for n in names]
    try:
        yield processes
    finally:
        for p in processes:
            p.close()


def cold_start(engine: str, network: str, batch: int, cache: str) -> float:
    """Seconds from the start of a process to the end of its first training step."""
    command = [sys.executable, "-m", "tests.benchmarks.cold", engine, network, str(batch)]
    began = time.perf_counter()
    done = subprocess.Popen(command, cwd=ROOT, env=environment(engine, cache), stdout=subprocess.PIPE, text=True)
    assert done.stdout is not None
    loss = done.stdout.readline()
    seconds = time.perf_counter() - began
    done.wait(60)
    if not loss or not np.isfinite(float(loss)):
        raise WrongResult(f"cold start of {engine}, {network}: no loss was printed")
    return seconds


def run(plan: Plan, say: Callable[[str], None] = print, engines: Sequence[str] = tuple(ENGINES)) -> Results:
    """All of it, interleaved: in each round every case runs on every engine, one after the other, right after its limit was
    measured."""
    began = time.perf_counter()
    names = [n for n in engines if installed(n)]
    r = Results(missing=absent(list(engines)), versions=versions(names), load=os.getloadavg()[0])
    with tempfile.TemporaryDirectory() as folder:
        for c in plan.cases:
            save(Path(folder) / "cases" / c.name, c)
        with workers(names, plan.sizes, folder) as running:
            prepare(plan, r, running, say)
            for i in range(plan.rounds):
                one_round(plan, r, running, i)
                say(f"round {i + 1} of {plan.rounds}")
    cold(plan, r, [n for n in COLD if n in names], say)
    r.seconds = time.perf_counter() - began
    return r


def prepare(plan: Plan, r: Results, running: Sequence[Process], say: Callable[[str], None]) -> None:
    """Every engine makes every case and is checked; two engines at a time, because much of it is compiling. Raises WrongResult
    when this engine fails; that of a peer is noted."""

    def one(p: Process) -> None:
        began = time.perf_counter()
        for c in plan.cases:
            try:
                error = p.ask("prepare", case=c.name)["error"]
            except WrongResult as e:
                if p.name == OURS:
                    raise
                r.failed.append(f"{c.name}: {e}")
            else:
                r.errors.setdefault(c.name, {})[p.name] = error
        say(f"{p.name}: compiled and compared with float64 in {time.perf_counter() - began:.0f} s")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, running))
    r.machine = running[0].ask("machine")


def one_round(plan: Plan, r: Results, running: Sequence[Process], i: int) -> None:
    turn = i % len(running)
    order = [*running[turn:], *running[:turn]]  # nobody is always first
    for c in plan.cases:
        limit = running[0].ask("limit", case=c.name)
        r.limits.setdefault(c.name, {})[i] = limit["seconds"]
        for k, v in limit["measured"].items():
            r.probes.setdefault(k, []).append(v)
        for p in order:
            slow = ENGINES[p.name].slow
            if p.name in r.errors[c.name] and (not slow or i % SLOW_EVERY == 0):
                time.sleep(PAUSE)
                answer = p.ask("time", case=c.name, budget=plan.budget, least=1 if slow else 3)
                r.steady.setdefault(c.name, {}).setdefault(p.name, {})[i] = answer["seconds"]
        if c.network and plan.wants(f"recording_{c.name}"):
            answer = running[0].ask("recorded", case=c.name, budget=2 * plan.budget)
            r.recorded.setdefault(c.name, {})[i] = (answer["on"], answer["off"])
    if plan.wants("lazy_op"):
        for p in order:
            if p.name in LAZY:
                r.small_op.setdefault(p.name, {})[i] = p.ask("small_op", times=plan.small_ops)["seconds"]


def cold(plan: Plan, r: Results, names: Sequence[str], say: Callable[[str], None]) -> None:
    """The first step of a process, with an empty cache, and with what that process left in it. One round before is not counted:
    files come from the disk and bytecode is written."""
    quick = plan.sizes == "quick"
    networks = {n: 4 if quick else cases.STEPS[n][1] for n in cases.STEPS if plan.wants(f"cold_{n}")}
    for i in range(-1, plan.cold_rounds):
        for network, batch in networks.items():
            for name in names:
                if i < 0 and (quick or (network != "mlp")):
                    continue
                with tempfile.TemporaryDirectory() as cache:
                    found = {"empty": cold_start(name, network, batch, cache)}
                    if name in KEPT_ON_DISK:
                        found["warm"] = cold_start(name, network, batch, cache)
                for k, seconds in found.items():
                    if i >= 0:
                        r.cold.setdefault(network, {}).setdefault(name, {}).setdefault(k, []).append(seconds)
        if networks and i >= 0:
            say(f"cold starts, round {i + 1} of {plan.cold_rounds}")
