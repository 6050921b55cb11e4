"""Whether what an engine computed is right: compared with float64 before anything is timed.

A function is compared with its exact result. A training step is compared step by step, each from the parameters at which the
engine stands: over several steps a network is chaotic. One maximum of a pool that goes to the other of two nearly equal elements
changes a gradient by a thousandth, and with it thousands of such choices two steps later; the exact result itself then moves by
a seventh when its inputs are changed by half a unit in their last place. The gradient of one step moves by a fiftieth at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np

from tests.benchmarks import by_hand
from tests.benchmarks.by_hand import Array
from tests.benchmarks.by_hand_networks import BETA1, BETA2, EPS, LR, NETWORKS, PARAMETERS, SGD_LR
from tests.benchmarks.cases import MIB, Arrays, Case

CHECKED_STEPS = 3  # of a training step: the corrections of Adam's moments differ in each
TOLERANCE = 1e-4  # of a function and of a loss, relative to the largest element
MOVED_TOLERANCE = 0.05  # of a gradient, and of the step that a parameter takes with it: relative 2-norm


def wide(inputs: Arrays) -> Arrays:
    return {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in inputs.items()}


def exact(case: Case, inputs: Arrays) -> list[Array]:
    """The result of a function in float64; nothing for a training step, whose steps depend on those before."""
    if case.network:
        return []
    if case.work == "chain":  # in pieces that fit a cache
        pieces = np.array_split(inputs["x"], max(1, inputs["x"].size >> 16))
        return [np.concatenate([by_hand.chain(p.astype(np.float64)) for p in pieces])]
    return [np.asarray(by_hand.FUNCTIONS[case.work](*wide(inputs).values()))]


def results(case: Case, call: Callable[[], object], read: Callable[[], Sequence[Any]]) -> list[list[Array]]:
    """What an engine gives in its first calls: [[the result]] of a function; of a training step, for each of CHECKED_STEPS steps
    the loss and every parameter after it."""
    out = []
    for _ in range(CHECKED_STEPS if case.network else 1):
        call()
        out.append([np.array(a) for a in read()])
    return out


def check(case: Case, inputs: Arrays, got: Sequence[Sequence[Array]], right: Sequence[Array]) -> float:
    """The largest relative error of a result or a loss. Raises ValueError when one is too large, or a parameter's step is."""
    if case.network:
        return check_steps(case, inputs, got)
    if [len(g) for g in got] != [len(right)]:
        raise ValueError(f"{case.name}: {sum(map(len, got))} results, expected {len(right)}")
    return within(case.name, got[0][0], right[0])


def within(name: str, got: Array, right: Array) -> float:
    """The largest error, relative to the largest element. Raises ValueError when it is too large."""
    found = error(name, got, right)
    if not found <= TOLERANCE:
        raise ValueError(f"{name}: relative error {found:.2g}, allowed {TOLERANCE:.2g}")
    return found


def check_steps(case: Case, inputs: Arrays, got: Sequence[Sequence[Array]]) -> float:
    """`check` of a training step."""
    shapes = PARAMETERS[case.work]
    if [len(g) for g in got] != [1 + len(shapes)] * CHECKED_STEPS:
        raise ValueError(f"{case.name}: results {list(map(len, got))}, expected {CHECKED_STEPS} steps of {1 + len(shapes)}")
    network, worst = NETWORKS[case.work](wide(inputs)), 0.0
    history: dict[str, list[Array]] = {k: [] for k in shapes}
    for i, (loss, *after) in enumerate(got, 1):
        right, gradients = network.gradients()
        worst = max(worst, within(case.name, loss, right))
        for (k, shape), there in zip(shapes.items(), after, strict=True):
            if there.shape != shape:
                raise ValueError(f"{case.name}: {k} has shape {there.shape}, expected {shape}")
            history[k].append(gradients[k])
            step, slack = sgd(history[k]) if case.work == "mlp" else adam(history[k])
            missed = np.maximum(abs(there - network.parameters[k] - step) - slack, 0)
            off = float(np.linalg.norm(missed) / np.linalg.norm(step))
            if not off <= MOVED_TOLERANCE:
                text = f"{case.name}: step {i} of {k} is off by {off:.2g} of its length, allowed {MOVED_TOLERANCE:.2g}"
                raise ValueError(text)
            network.parameters[k] = there.astype(np.float64)
    return worst


def sgd(gradients: Sequence[Array]) -> tuple[Array, float]:
    """The step that follows from the gradients so far, and how far each element may be from it whatever the step's length."""
    return -SGD_LR * gradients[-1], 0.0


def adam(gradients: Sequence[Array]) -> tuple[Array, Array]:
    """As `sgd`. Adam divides a gradient by its own size, so that where it is near 0 an error that is small beside the other
    elements turns a whole step. What such an element may be off is the most that the step changes when every gradient changes
    by MOVED_TOLERANCE of its root mean square, in any direction."""

    def step(history: Sequence[Array]) -> Array:
        t = len(history)
        m = sum((1 - BETA1) * BETA1 ** (t - i) * g for i, g in enumerate(history, 1)) / (1 - BETA1**t)
        v = sum((1 - BETA2) * BETA2 ** (t - i) * g * g for i, g in enumerate(history, 1)) / (1 - BETA2**t)
        return np.asarray(-LR * m / (np.sqrt(v) + EPS))

    here, change = step(gradients), [MOVED_TOLERANCE * np.sqrt(np.mean(g * g)) for g in gradients]
    slack = np.zeros_like(here)
    for signs in product((-1, 1), repeat=len(gradients)):
        there = step([g + s * d for g, s, d in zip(gradients, signs, change, strict=True)])
        slack = np.maximum(slack, abs(there - here))
    return here, slack


def error(name: str, got: Array, right: Array) -> float:
    """The largest, relative to the largest element; in pieces, because arrays may be large."""
    if got.shape != np.shape(right):
        raise ValueError(f"{name}: shape {got.shape}, expected {np.shape(right)}")
    g, r, largest, worst = got.reshape(-1), np.reshape(right, -1), 1e-30, 0.0
    for i in range(0, g.size, MIB):
        piece = np.abs(g[i : i + MIB] - r[i : i + MIB])
        if not np.isfinite(piece).all():
            return float("inf")
        worst, largest = max(worst, float(piece.max())), max(largest, float(np.abs(r[i : i + MIB]).max()))
    return worst / largest
