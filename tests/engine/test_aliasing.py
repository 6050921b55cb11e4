"""Views, updates in place and reads in random order: eager, jit and PyTorch must agree, or the engine refuses with an error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.engine.peer import torch
from tinyengine import Tensor, backends, jit

pytestmark = pytest.mark.filterwarnings("ignore:Use of .* on expanded tensors")

Step = tuple[str, int, Any]

VIEWS = ("slice", "step", "row", "column", "T", "flat", "unsqueeze", "detach", "all", "chunk", "diagonal", "expand", "permute")
VALUES = ("add", "mul", "sum", "clone", "flip", "square")
WRITES = (
    *("iadd", "imul", "iadd_t", "set_row", "set_slice", "set_from", "shift", "set_at", "set_mask", "assign", "assign_flip"),
    "row_iadd",
)
OTHERS = ("read", "drop")


def view(t: Any, kind: str, k: int, peer: bool) -> Any:
    if kind == "slice":
        return t[k % t.shape[0] :]
    if kind == "step":
        return t[::2]
    if kind == "row":
        return t[k % t.shape[0]]
    if kind == "column":
        return t[..., k % t.shape[-1]]
    if kind == "T":
        return t.transpose(0, -1)
    if kind == "flat":
        return t.reshape(-1)
    if kind == "unsqueeze":
        return t.unsqueeze(k % (t.ndim + 1))
    if kind == "detach":
        return t.detach()
    if kind == "all":
        return t[:]
    if kind == "chunk":
        return t.chunk(2)[k % len(t.chunk(2))]
    if kind == "diagonal":
        return t.diagonal() if t.ndim == 2 else t[:1]
    if kind == "expand":
        return t.unsqueeze(0).expand(2, *t.shape)
    return t.permute(*range(t.ndim)[::-1])


def apply(pool: list[Any], step: Step, peer: bool) -> None:
    """One step on a list of tensors; the same code for both engines but for names that only one of them has."""
    kind, i, k = step
    t = pool[i % len(pool)]
    other = pool[k % len(pool)]
    if kind in VIEWS:
        pool.append(view(t, kind, k, peer))
    elif kind == "add":
        pool.append(t + k)
    elif kind == "mul":
        pool.append(t * 2)
    elif kind == "square":
        pool.append(t * t)
    elif kind == "sum":
        pool.append(t.sum(0, keepdim=True))
    elif kind == "clone":
        pool.append(t.clone())
    elif kind == "flip":
        pool.append(t.flip((0,)) if t.ndim else t + 0)
    elif kind == "iadd":
        t += k
        pool[i % len(pool)] = t
    elif kind == "imul":
        t *= 2
    elif kind == "iadd_t":
        t += other.sum() * 0.5
    elif kind == "set_row":
        t[k % t.shape[0]] = float(k)
    elif kind == "row_iadd":
        t[k % t.shape[0]] += 3
    elif kind == "set_slice":
        t[::2] = t[: len(range(0, t.shape[0], 2))].clone() * 2 if peer else t[: len(range(0, t.shape[0], 2))] * 2
    elif kind == "set_from":
        t[0] = (other.sum() + 1).clone()
    elif kind == "shift":
        t[1:] = t[:-1].clone() if peer else t[:-1]
    elif kind == "set_at":
        at = [k % t.shape[0], 0]
        t[at] = 5.0
    elif kind == "set_mask":
        t[t > 2] = -1.0
    elif kind == "assign":
        value = t * 0 + k
        t.copy_(value) if peer else t.assign(value)
    elif kind == "assign_flip":
        t.copy_(t.flip((0,)).clone()) if peer else t.assign(t.flip((0,)))
    elif kind == "read":
        t.numpy()
    elif kind == "drop" and len(pool) > 2:
        pool.pop(i % len(pool))


def program(seed: int, length: int, kinds: tuple[str, ...]) -> tuple[list[np.ndarray[Any, Any]], list[Step], list[Any]]:
    """Initial arrays, steps that PyTorch can do, and what it makes of them."""
    rng = np.random.default_rng(seed)
    arrays = [rng.integers(-4, 5, s).astype(np.float32) for s in ((4, 4), (6,), (2, 3, 2))]
    pool = [torch.tensor(a) for a in arrays]
    steps: list[Step] = []
    for _ in range(length):
        step = (str(rng.choice(kinds)), int(rng.integers(100)), int(rng.integers(1, 7)))
        t = pool[step[1] % len(pool)]
        if t.ndim == 0 or t.numel() == 0 or t.numel() > 100 or len(pool) > 8 or (t.numel() and float(t.abs().max()) > 1e4):
            step = ("drop", step[1], 0)
        try:
            apply(pool, step, True)
        except RuntimeError:
            continue  # PyTorch refuses, before it writes: an expanded tensor, say
        steps.append(step)
    return arrays, steps, pool


def same(ours: list[Any], theirs: list[Any], what: str) -> None:
    assert len(ours) == len(theirs)
    for k, (x, t) in enumerate(zip(ours, theirs, strict=True)):
        np.testing.assert_allclose(x.numpy(), t.numpy(), rtol=1e-5, err_msg=f"tensor {k} after {what}")


def refused(e: Exception) -> bool:
    return any(w in str(e) for w in ("overlap", "shares memory", "clone() it first"))


def eager(seed: int, length: int = 14) -> bool:
    """One random program; False where the engine refuses it."""
    arrays, steps, expected = program(seed, length, VIEWS + VALUES + WRITES * 2 + OTHERS)
    pool: list[Any] = [Tensor(a) for a in arrays]
    try:
        for s in steps:
            apply(pool, s, False)
        same(pool, expected, f"{steps}")
    except RuntimeError as e:
        if not refused(e):
            raise
        return False
    return True


def jitted(seed: int, length: int = 9) -> bool:
    """The same in jit: the first tensor is captured, the others are arguments; three calls."""
    arrays, steps, _ = program(seed, length, VIEWS + VALUES + WRITES * 2)
    theirs = [torch.tensor(a) for a in arrays]
    ours: list[Any] = [Tensor(a) for a in arrays]

    def body(pool: list[Any], peer: bool) -> list[Any]:
        for s in steps:
            apply(pool, s, peer)
        return pool

    step = jit(lambda a, b: body([ours[0], a, b], False))
    held = ours[0][1:]
    peer_held = theirs[0][1:]
    for call in range(3):
        try:
            got = step(*ours[1:])
        except RuntimeError as e:
            if not refused(e):
                raise
            return False
        want = body(list(theirs), True)
        same(got, [t.clone() for t in want], f"call {call} of {steps}")
        same([*ours, held], [*theirs, peer_held], f"call {call}, state, of {steps}")
    return True


def test_random_programs_agree_with_torch_or_are_refused() -> None:
    with backends.use("reference"):
        done = [eager(seed) for seed in range(60)]
    assert sum(done) > 40


def test_random_programs_in_jit_agree_with_torch_or_are_refused() -> None:
    with backends.use("reference"):
        done = [jitted(seed) for seed in range(40)]
    assert sum(done) > 30


def test_a_random_program_on_the_default_backend() -> None:
    assert any(eager(seed, 8) for seed in (1, 5, 7)) and any(jitted(seed, 6) for seed in (1, 5))


def test_a_part_is_updated_when_nobody_holds_the_whole_any_more() -> None:
    """`x = x.T; x[0] += 1`: two views, of a tensor that has no name."""
    for computed in (False, True):
        x = Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
        y = x * 1
        if computed:
            y = y.detach().realize()
        y = y.transpose(0, 1)
        first = y[0]
        y[0] += 10
        first[1:] *= 2
        assert y.tolist() == [[11.0, 26.0], [2.0, 4.0]] and first.tolist() == [11.0, 26.0]
        if not computed:
            y.sum().backward()
            assert x.grad is not None and x.grad.tolist() == [[1.0, 1.0], [2.0, 1.0]]
