"""The spec of loop nests: every form satisfies it, and one broken program per sentence does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.engine import forms
from tests.engine.forms import F, loop, v
from tinyengine import dtypes, spec
from tinyengine import loopnest as ir
from tinyengine.loopnest import Alloc, Buf, Expr, Kernel, Let, Loop, Store, const, index, load, name, ramp
from tinyengine.stages.specs.nests import SCHEDULED, SPEC

x, out = Buf("x", F, (16,)), Buf("out", F, (16,))
reg = Buf("reg", F, (16,), "register")
i = v("i", 16)


def kernel(*body: ir.Stmt, outputs: tuple[str, ...] = ("out",)) -> Kernel:
    return Kernel("k", (x, out), body, outputs)


def shared(v: Expr, *body: ir.Stmt) -> ir.Loop:
    return replace(loop(v, *body), kind="parallel")


BROKEN: dict[str, list[Kernel]] = {
    "every variable, value and buffer is defined before it is used": [
        kernel(Store(out, (i,), const(0, F))),
        kernel(loop(i, Store(out, (i,), name("v", F)))),
        kernel(loop(i, Let("v", const(0, F)), Store(out, (ramp(index(0), 4),), name("v", F, 4)))),
        kernel(loop(i, Store(out, (i,), load(Buf("other", F, (16,)), (i,))))),
    ],
    "on each path from the root a name is defined once": [
        kernel(loop(i, loop(i, Store(out, (i,), const(0, F))))),
        kernel(Let("v", const(0, F)), loop(i, Let("v", const(1, F)))),
        kernel(Alloc(reg, 0), loop(i, Alloc(reg, 0))),
    ],
    "a loop variable's bounds are those of its loop": [kernel(Loop(i, 0, 8, 1, (Store(out, (i,), const(0, F)),)))],
    "a mask is bool and has one lane or those of its access": [
        kernel(loop(i, Store(out, (i,), const(0, F), load(x, (i,))))),
        kernel(Store(out, (ramp(index(0), 4),), const(0, F, 4), const(True, dtypes.bool_, 8))),
    ],
    "operands, results and places have equal lanes": [
        kernel(Store(out, (ramp(index(0), 4),), const(0, F))),
        kernel(loop(i, Store(out, (i,), Expr("add", F, 1, (const(0, F), const(0, F, 4)))))),
    ],
    "what is stored has the dtype of its buffer": [kernel(loop(i, Store(out, (i,), const(0, dtypes.int32))))],
    "an access without a mask is in bounds by intervals": [
        kernel(loop(i, Store(out, (ir.apply("add", (i, index(1))),), const(0, F)))),
        kernel(loop(i, Store(out, (i,), load(x, (ir.apply("sub", (i, index(1))),))))),
    ],
    "every global buffer that is written is an output": [kernel(loop(i, Store(x, (i,), const(0, F))))],
    "the index of a register is constant once loops are unrolled": [
        kernel(Alloc(reg, 0), loop(i, Store(reg, (i,), const(0, F))))
    ],
    "the ends of an unrolled loop are numbers once the loops around it are unrolled": [
        kernel(loop(i, replace(loop(v("j", 16), Store(out, (v("j", 16),), const(0, F))), kind="unroll", limit=i))),
        kernel(loop(i, replace(loop(v("j", 16), Store(out, (v("j", 16),), const(0, F))), kind="unroll", first=i))),
    ],
    "a register buffer is accessed by one number of lanes": [
        kernel(Alloc(reg, 0), Store(reg, (index(0),), const(0, F)), Store(reg, (ramp(index(0), 4),), const(0, F, 4)))
    ],
    "only one loop of the outermost level, with its tail beside it, is parallel": [
        kernel(loop(i, replace(loop(v("j", 2), Store(out, (i,), const(0, F))), kind="parallel"))),
        kernel(*(replace(loop(x, Store(out, (x,), const(0, F))), kind="parallel") for x in (i, v("j", 2)))),
        kernel(*(replace(loop(i, Store(out, (i,), const(0, F))), kind=k) for k in ("parallel", "serial", "parallel"))),
    ],
    "work-items of a group share no loop where each goes its own way": [
        kernel(shared(i, loop(v("a", 2), shared(v("j", 2), loop(v("b", 2), shared(v("c", 2), Store(out, (i,), const(0, F))))))))
    ],
}


@pytest.mark.parametrize("form", list(forms.FORMS))
def test_every_form_satisfies_the_spec(form: str) -> None:
    spec.check("loops", SPEC, forms.FORMS[form])


def test_every_sentence_has_a_program_that_breaks_it() -> None:
    assert list(BROKEN) == [sentence for sentence, _ in SCHEDULED]


@pytest.mark.parametrize("sentence", list(BROKEN))
def test_a_broken_program_breaks_its_sentence(sentence: str) -> None:
    predicate = dict(SCHEDULED)[sentence]
    for k in BROKEN[sentence]:
        assert list(predicate(k)), k.text()
        with pytest.raises(spec.SpecError):
            spec.check("schedule", SCHEDULED, k)
