"""The reference of the tuner: what counts as wrong, and what does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.engine import forms
from tinyengine import dtypes, oracle
from tinyengine.choices import DEFAULT
from tinyengine.loopnest import Loop
from tinyengine.machine import FIXTURE
from tinyengine.stages import schedule


def flat(k: forms.Kernel, seed: int = 0) -> dict[str, np.ndarray]:
    types = {p.name: p.dtype for p in k.params}
    return {name: types[name].decode(a).reshape(-1).copy() for name, a in forms.arrays(k, seed).items()}


@pytest.mark.parametrize("form", sorted(forms.FORMS))
def test_the_engines_own_schedule_agrees(form: str) -> None:
    k = forms.FORMS[form]
    given = flat(k)
    want = oracle.answer(k, given, "llvm")
    got = {name: a.copy() for name, a in given.items()}
    oracle.compute(schedule.run(k, DEFAULT, FIXTURE)[0], got, "llvm")
    verdict = oracle.compare(k, got, want, got)
    assert verdict.wrong == "" and verdict.error < 1e-5
    assert all(known.any() for known in want.known.values())


def test_a_large_kernel_is_asked_for_some_iterations() -> None:
    k = forms.matmul(300, 200, 100)
    assert oracle.work(k.body) > oracle.INTERPRETED
    part = oracle.sample(k)
    assert oracle.work(part.body) <= oracle.INTERPRETED
    want = oracle.answer(k, flat(k), "llvm")
    (out,) = k.outputs
    assert want.known[out].sum() == oracle.SAMPLES**2 and "some of the iterations" in want.how
    a, b, bias, _ = (flat(k)[p.name].astype(np.float64).reshape(p.shape) for p in k.params)
    exact = np.maximum(a @ b + bias, 0).reshape(-1)
    np.testing.assert_allclose(want.values[out][want.known[out]], exact[want.known[out]], rtol=1e-12)


def test_a_large_sum_is_computed_in_double_precision() -> None:
    k = forms.full_sum(2000, 1000)
    given = flat(k)
    want = oracle.answer(k, given, "llvm")
    assert want.how == "plain loops in double precision"
    np.testing.assert_allclose(want.values[k.outputs[0]], given[k.params[0].name].astype(np.float64).sum(), rtol=1e-12)


def test_wrong_elements_are_named() -> None:
    k = forms.elementwise(6, 7)
    given = flat(k)
    want = oracle.answer(k, given, "llvm")
    right = {name: (want.values[name].astype(np.float32) if name in k.outputs else a) for name, a in given.items()}
    (out,) = k.outputs
    assert oracle.compare(k, right, want, right).wrong == ""
    bad = {**right, out: right[out].copy()}
    bad[out][17] += 0.5
    verdict = oracle.compare(k, bad, want, right)
    assert verdict.wrong.startswith(f"1 of 42 elements of {out} differ from the reference interpreter: element 17 is ")
    bad[out][17] = np.nan
    assert oracle.compare(k, bad, want, right).wrong
    # where the engine's own schedule gives the very same, it is no fault of the candidate
    assert oracle.compare(k, bad, want, bad).wrong == ""


def test_integers_must_be_equal() -> None:
    k = forms.elementwise(4, 5, dtype=dtypes.int32)
    given = flat(k)
    want = oracle.answer(k, given, "llvm")
    (out,) = k.outputs
    right = {**given, out: want.values[out].copy()}
    off = {**right, out: right[out] + 1}
    assert oracle.compare(k, right, want, right).wrong == "" and oracle.compare(k, off, want, right).wrong


def test_sampling_leaves_dependent_iterations_alone() -> None:
    k = forms.recurrence(500)
    assert oracle.sample(k) == k
    rows = forms.softmax(40, 30)
    part = oracle.sample(rows)
    assert [s.trips for s in part.body if isinstance(s, Loop)] == [1] * oracle.SAMPLES
    assert oracle.wide(replace(rows)) is not None
