"""What every Fusion must satisfy: sentences with predicates for `spec.check`. A predicate yields one text per violation."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from tinyengine.node import Node
from tinyengine.spec import Sentence
from tinyengine.stages.fusion.groups import Fusion, Group
from tinyengine.stages.values import base, is_leaf, squeeze


def _name(f: Fusion, n: Node) -> str:
    return f"%{f.graph.number[n]} {n.op}"


def _roots(f: Fusion) -> Iterator[str]:
    for r in f.graph.roots:
        b = base(r)
        if b.op != "buffer" and b not in f.stored:
            yield f"{_name(f, b)} is not stored"


def _spaces(f: Fusion) -> Iterator[str]:
    for g in f.groups:
        for v in g.outputs:
            if squeeze(v.shape) != g.space:
                yield f"{_name(f, v)} has shape {v.shape}, its kernel loops over {g.space}"


def _once(f: Fusion) -> Iterator[str]:
    for v, g in f.stored.items():
        holders = [h for h in f.groups if v in h.outputs or v in h.also_stored]
        if holders != [g]:
            yield f"{_name(f, v)} is stored by {len(holders)} kernels"
    for g in f.groups:
        for v in g.at:
            if v in g.inlined or v in g.outputs:
                yield f"{_name(f, v)} is kept in a loop and elsewhere in the same kernel"


def _nested(f: Fusion) -> Iterator[str]:
    for g in f.groups:
        sets = sorted(set(g.at.values()), key=len)
        for a, b in pairwise(sets):
            if not a <= b:
                yield f"the kernel of {_name(f, g.outputs[0])} keeps values in loops {sorted(a)} and {sorted(b)}"


def _reads(f: Fusion, g: Group) -> set[Node]:
    """The stored values of other kernels that g reads."""
    seen: set[Node] = set()
    out: set[Node] = set()
    stack = [s for v in [*g.outputs, *g.also_stored] for s in (v.src[1:] if v.op == "assign" else v.src)]
    while stack:
        n = stack.pop()
        if n in seen:
            continue
        seen.add(n)
        if n in f.stored and f.stored[n] is not g:
            out.add(n)
        else:
            stack += n.src[1:] if n.op == "assign" else n.src
    return out


def _order(f: Fusion) -> Iterator[str]:
    position = {g: i for i, g in enumerate(f.groups)}
    for g in f.groups:
        for v in _reads(f, g):
            if position[f.stored[v]] >= position[g]:
                yield f"{_name(f, v)} is read by kernel {position[g]} and stored by kernel {position[f.stored[v]]}"


def _decided(f: Fusion) -> Iterator[str]:
    said = {d.subject[0] for d in f.decisions if d.kind == "edge"}
    for g in f.groups:
        for v in g.values:
            if not is_leaf(v) and not v.is_movement and f.graph.number[v] not in said:
                yield f"{_name(f, v)} has no Decision"
    for d in f.decisions:
        if not d.reason:
            yield f"the Decision about {d.subject} has no reason"


SPEC: tuple[Sentence, ...] = (
    ("Every result of the program is stored by a kernel, or is given memory.", _roots),
    ("A kernel loops over the axes of what it stores.", _spaces),
    ("A value is stored by one kernel, and kept in one way inside a kernel.", _once),
    ("The loops in which a kernel keeps values are nested in each other.", _nested),
    ("A kernel comes after the kernels whose results it reads.", _order),
    ("Every value that is computed has a Decision with a reason.", _decided),
)
