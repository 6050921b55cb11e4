"""Addresses: the exported arithmetic says what the interpreter really touches; static and data-dependent are told apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tinyviz as tv
from tinyengine import Tensor
from tinyviz import access, wire
from tinyviz.explore import make
from tinyviz.tracing import addresses


def numbers(*shape: int) -> Tensor:
    return Tensor(np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape) / 7)


def programs() -> list[tuple[str, Any, tuple[Tensor, ...]]]:
    return [
        ("matmul", lambda x, w: (x @ w).relu(), (numbers(6, 8), numbers(8, 5))),
        ("softmax", lambda x: x.softmax(1), (numbers(4, 9),)),
        ("conv", lambda x, w: x.conv2d(w, padding=1, stride=2), (numbers(2, 3, 7, 7), numbers(4, 3, 3, 3))),
        ("views", lambda x: (x.permute(1, 0).flip(0).pad((1, 2, 0, 1)) + 1), (numbers(5, 6),)),
        ("transposed", lambda x: x.T.contiguous().sum(0), (numbers(5, 6),)),
    ]


@pytest.mark.parametrize(("name", "f", "args"), programs(), ids=[p[0] for p in programs()])
def test_the_arithmetic_is_what_the_interpreter_touches(name: str, f: Any, args: tuple[Tensor, ...]) -> None:
    """For every static access of all iterations: the same elements, and as many."""
    p = addresses(f, args).recording.programs[0]
    assert p.traces
    seen: dict[tuple[int, int, bool], tuple[list[int], list[int]]] = {}
    for i, k in enumerate(p.kernels):
        assert k.space is not None
        for _, a in access.shared(k.space):
            flat, whole = access.touched(k.space, a, {}, 1 << 20)
            assert flat is not None and whole, "nothing here depends on data"
            seen.setdefault((i, a.operand, a.write), ([], []))[0].extend(flat)
    for t in p.traces:
        space = p.kernels[t.kernel].space
        assert space is not None and t.count == len(t.elements)
        a = space.accesses[t.access]
        seen[t.kernel, a.operand, a.write][1].extend(t.elements)
    for predicted, real in seen.values():
        assert set(predicted) == set(real)


def test_one_output_of_a_product_reads_a_row_and_a_column() -> None:
    p = addresses(lambda x, w: x @ w, (numbers(6, 8), numbers(8, 5))).recording.programs[0]
    (space,) = [k.space for k in p.kernels]
    assert space is not None
    chosen = access.middle(space)
    reads = {}
    for _, a in access.shared(space):
        flat, _ = access.touched(space, a, chosen)
        assert flat is not None
        reads[space.operands[a.operand].name, a.write] = set(flat)
    assert reads["x", False] == {3 * 8 + i for i in range(8)} and reads["w", False] == {i * 5 + 2 for i in range(8)}
    (written,) = [v for (_, write), v in reads.items() if write]
    assert written == {3 * 5 + 2}


def test_a_gather_depends_on_data_and_two_inputs_differ() -> None:
    t = numbers(10, 4)
    first, second = (Tensor(np.array(i, np.int32)) for i in ([1, 3, 5], [2, 3, 9]))
    shown = tv.addresses(lambda t, i: t[i] * 2, (t, first), (t, second))
    d = shown.data
    verdicts = {shown.recording.programs[0].kernels[0].space.operands[r.access].name: r.verdict for r in d.rows}
    assert sorted(verdicts.values()) == ["data-dependent", "static", "static"] and d.dynamic == 12
    gather = next(r for r in d.rows if r.verdict == "data-dependent")
    assert gather.traced == "12 touched, 8 of the first 12 at other addresses"
    assert all("the same ones for both inputs" in r.traced for r in d.rows if r is not gather)
    assert "12 (44 %) depend on data" in shown.text


def test_the_same_gather_as_one_hot_is_static() -> None:
    """The static alternative: every address is known, at many times the accesses."""
    t, i = numbers(10, 4), Tensor(np.array([1, 3, 5], np.int32))
    plain = tv.addresses(lambda t, i: t[i], (t, i)).data
    static = tv.addresses(lambda t, i: i.one_hot(10).cast(t.dtype) @ t, (t, i)).data
    assert plain.dynamic > 0 and static.dynamic == 0
    assert static.static > 3 * (plain.static + plain.dynamic)


def test_evaluation_and_its_errors() -> None:
    at = {"i": 2, "j": 7}
    assert access.evaluate("i 64 * j + 3 -", at) == 132
    assert access.evaluate("i neg 2 // j 4 % max", at) == 3
    assert access.evaluate("i j < j i < & i i = |", at) == 1
    assert access.evaluate("i ? +", at) is None
    for bad in ("i +", "i j", "__import__", ""):
        with pytest.raises(ValueError, match="no index arithmetic"):
            access.evaluate(bad, at)


def test_nothing_of_the_users_changes_and_wrong_uses_say_so(sample: wire.Recording) -> None:
    x = numbers(3, 3)
    before = x.numpy().copy()
    tv.addresses(lambda x: x * 2, x)
    np.testing.assert_array_equal(x.numpy(), before)
    assert "k0" in tv.addresses(x * 2).text
    with pytest.raises(TypeError, match="got int"):
        tv.addresses(3)
    with pytest.raises(ValueError, match="two inputs, got 3"):
        tv.addresses(lambda x: x, x, x, x)
    assert not make(sample, "addresses").error
