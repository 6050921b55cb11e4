"""Every sentence of the specs of fuse and plan holds for what the stages make, and each is broken by a program made for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tinyengine import spec
from tinyengine.program import Program
from tinyengine.stages.fusion.groups import Fusion, Group
from tinyengine.stages.specs import fusion as fuse_spec
from tinyengine.stages.specs import plan as plan_spec

from .graphs import buf, ew, expand, fused, matmul, num, reshape, softmax
from .test_plan import held, lowered

rng = np.random.default_rng(0)


def fusion() -> Fusion:
    x, w, b = buf("x", 5, 7), buf("w", 7, 40), buf("b", 40)
    h = ew("maximum", ew("add", matmul(x, w), expand(reshape(b, 1, 40), 5, 40)), num(0, 5, 40))
    f = fused(softmax(matmul(h, buf("v", 40, 33))))
    return Fusion(f.graph, tuple(copied(f)), {v: g for g in copied(f) for v in g.outputs}, f.decisions, f.verdicts, f.readers)


def copied(f: Fusion) -> list[Group]:
    """Groups that a test may break."""
    return [
        dataclasses.replace(g, outputs=[*g.outputs], at={**g.at}, inlined=[*g.inlined], also_stored=[*g.also_stored])
        for g in f.groups
    ]


def consistent(f: Fusion, groups: list[Group]) -> Fusion:
    stored = {v: g for g in groups for v in [*g.outputs, *g.also_stored]}
    return Fusion(f.graph, tuple(groups), stored, f.decisions, f.verdicts, f.readers)


def drop_root(f: Fusion) -> Fusion:
    groups = copied(f)
    groups[-1].outputs.clear()
    return consistent(f, groups)


def wrong_space(f: Fusion) -> Fusion:
    groups = copied(f)
    groups[0].space = (3,)
    return consistent(f, groups)


def twice(f: Fusion) -> Fusion:
    groups = copied(f)
    g = groups[-1]
    g.inlined.append(next(iter(g.at)))
    return consistent(f, groups)


def crossed(f: Fusion) -> Fusion:
    groups = copied(f)
    a, b, *_ = groups[-1].at
    groups[-1].at[a], groups[-1].at[b] = frozenset({0}), frozenset({1})
    return consistent(f, groups)


def backwards(f: Fusion) -> Fusion:
    return consistent(f, copied(f)[::-1])


def silent(f: Fusion) -> Fusion:
    f = consistent(f, copied(f))
    return dataclasses.replace(f, decisions=())


FUSE = dict(zip((s for s, _ in fuse_spec.SPEC), (drop_root, wrong_space, twice, crossed, backwards, silent), strict=True))


@pytest.mark.parametrize("sentence", FUSE)
def test_fuse_sentences_are_broken_one_by_one(sentence: str) -> None:
    f = fusion()
    f = consistent(f, copied(f))
    spec.check("fuse", fuse_spec.SPEC, f)
    broken = FUSE[sentence](f)
    with pytest.raises(spec.SpecError) as e:
        spec.check("fuse", [s for s in fuse_spec.SPEC if s[0] == sentence], broken)
    assert sentence in str(e.value) and "%" in e.value.where


def program() -> Program:
    ms = [rng.standard_normal((12, 12)).astype(np.float32) for _ in range(4)]
    x = held(ms[0])
    for m in ms[1:]:
        x = matmul(x, held(m))
    return lowered(x).plan


def first(p: Program, role: str) -> int:
    return next(i for i, s in enumerate(p.slots) if s.role == role)


def slot(p: Program, i: int, **changes: object) -> Program:
    return replace(p, slots=tuple(replace(s, **changes) if j == i else s for j, s in enumerate(p.slots)))


def too_small(p: Program) -> Program:
    return slot(p, first(p, "input"), shape=(2,))


def shuffled(p: Program) -> Program:
    return replace(p, slots=p.slots[::-1])


def writes_input(p: Program) -> Program:
    c = p.calls[0]
    return replace(p, calls=(replace(c, slots=tuple(first(p, "input") for _ in c.slots)), *p.calls[1:]))


def unwritten(p: Program) -> Program:
    return replace(p, calls=p.calls[1:])


def misplaced(p: Program) -> Program:
    return slot(p, first(p, "temporary"), offset=4)


def overlapping(p: Program) -> Program:
    offsets = [i for i, s in enumerate(p.slots) if s.role == "temporary"]
    for i in offsets:
        p = slot(p, i, offset=0)
    return p


PLAN: dict[str, Callable[[Program], Program]] = dict(
    zip((s for s, _ in plan_spec.SPEC), (too_small, shuffled, writes_input, unwritten, misplaced, overlapping), strict=True)
)


@pytest.mark.parametrize("sentence", PLAN)
def test_plan_sentences_are_broken_one_by_one(sentence: str) -> None:
    p = program()
    spec.check("plan", plan_spec.SPEC, p)
    with pytest.raises(spec.SpecError) as e:
        spec.check("plan", [s for s in plan_spec.SPEC if s[0] == sentence], PLAN[sentence](p))
    assert sentence in str(e.value)
