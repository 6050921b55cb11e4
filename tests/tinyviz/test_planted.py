"""Findings on real programs: one with a planted fault, beside a healthy one that differs in nothing else. What is lowered is
judged by its predictions for the described machine, so nothing here depends on a clock."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import numpy as np
import pytest

import tinyviz as tv
from tinyengine import Tensor, backends, hooks, jit, machine, nn
from tinyviz import record, wire
from tinyviz.explore import make


def zeros(*shape: int, dtype: type = np.float32) -> Tensor:
    return Tensor(np.zeros(shape, dtype))


def lowered(build: Callable[[], Tensor]) -> wire.Recording:
    with mock.patch.object(machine, "current", lambda: machine.FIXTURE), backends.use("llvm"):
        return record.build_lowered(tv.lower(build()))


def codes(r: wire.Recording) -> set[str]:
    """What is found about any of its programs."""
    made = [make(r, "roofline", i) for i in range(len(r.programs))]
    assert made and not any(m.error for m in made)
    return {x.code for m in made for x in m.data.diagnoses}


ROWS = np.zeros(4096, np.int32)
WIDE = 1 << 20
LOWERED: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
    "conversion": (lambda: zeros(WIDE, dtype=np.float64).cast("float32"), lambda: zeros(WIDE) + 1),
    "gather": (lambda: zeros(WIDE, 8)[Tensor(ROWS)], lambda: zeros(64, 8)[Tensor(ROWS)]),
    "launch-bound": (lambda: zeros(4) + 1, lambda: zeros(1 << 22) + 1),
    "compute-bound": (lambda: zeros(512, 512) @ zeros(512, 512), lambda: zeros(512, 512) + 1),
    "memory-bound": (lambda: zeros(4096, 4096).sum(1), lambda: zeros(512, 512) @ zeros(512, 512)),
    "strided": (lambda: zeros(1 << 14, 17).exp().sum(1), lambda: zeros(1 << 14, 64).exp().sum(1)),
    "one-buffer": (lambda: zeros(20_000, 32).T.contiguous().sum(1), lambda: zeros(20_000, 32).sum(0)),
    "stored-once": (
        lambda: (zeros(1024, 1024) @ zeros(1024, 1024)).exp() @ zeros(1024, 1024), lambda: zeros(1024, 1024) @ zeros(1024, 1024)
    ),
}  # fmt: skip


@pytest.mark.parametrize("code", LOWERED)
def test_a_planted_fault_is_found_and_its_healthy_twin_has_none(code: str) -> None:
    faulty, healthy = (lowered(build) for build in LOWERED[code])
    assert code in codes(faulty) and code not in codes(healthy)


def asked_in_the_middle() -> None:
    x = Tensor(np.ones((8, 8), np.float32))
    for _ in range(6):
        y = x @ x
        first = y.sum().item()
        (y + first).max().item()


def asked_at_the_end() -> None:
    x = Tensor(np.ones((8, 8), np.float32))
    step = jit(lambda x: ((x @ x) + (x @ x).sum()).max())
    for _ in range(12):
        step(x).item()


def of_sizes(*sizes: int) -> Callable[[], None]:
    def run() -> None:
        step = jit(lambda x: (x * 2).sum())
        for n in sizes:
            step(Tensor(np.ones(n, np.float32))).item()

    return run


class Scaled(nn.Module):
    def __init__(self, scale: float) -> None:
        self.fc, self.scale = nn.Linear(8, 8), scale

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * self.scale


class Network(nn.Module):
    def __init__(self, scale: float) -> None:
        self.small = Scaled(scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.small(x) + 1


def scaled(by: float) -> Callable[[], None]:
    def run() -> None:
        model = Network(by)
        x = Tensor(np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32))
        jit(lambda x: model(x).sum())(x).item()

    return run


RUN: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
    "in-pieces": (asked_in_the_middle, asked_at_the_end),
    "compiled-again": (of_sizes(8, 9, 10, 11, 12), of_sizes(8, 8, 8, 8, 8)),
    "denormals": (scaled(1e-40), scaled(1.0)),
}


@pytest.mark.parametrize("code", RUN)
def test_a_planted_fault_of_a_run_is_found_and_its_healthy_twin_has_none(code: str) -> None:
    found = []
    for run in RUN[code]:
        with tv.watch(values=1) as rec:
            run()
        assert not hooks.errors
        found.append(codes(rec.data))
    assert code in found[0] and code not in found[1]
