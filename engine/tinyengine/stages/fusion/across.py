"""Sums of one kernel that read along memory in different loops.

A sum of each row reads along memory as it adds up; one of each column from one result to the next. Vectors go along one loop of a
nest: what reads along memory in another takes a line of memory for each lane, and so does a row that is stored on the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyengine import index
from tinyengine.loopnest import Expr, var
from tinyengine.node import Node
from tinyengine.stages.fusion.blocks import leaves
from tinyengine.stages.fusion.groups import Group

if TYPE_CHECKING:
    from tinyengine.stages.fuse import Fuser

Sum = tuple[Node, tuple[Expr, ...]]  # a reduction and the index at which it is needed
WHY = "one sum reads along memory as it adds up, another from one result to the next, and vectors go along one loop"


def across(fuser: Fuser, n: Node, at: tuple[Expr, ...], results: Expr) -> tuple[int, int]:
    """Bytes that the reduction `n` at `at` reads across vectors that go along `results`, and along the best of its own loops."""
    src = n.src[0]
    own = {a: var(f"sum{a}", 0, src.shape[a] - 1) for a in n.arg if src.shape[a] > 1}
    found = dict.fromkeys((results, *own.values()), 0)
    for leaf, here in leaves(fuser, src, tuple([own.get(a, e) for a, e in enumerate(at)])):
        last = next((e for e, extent in zip(reversed(here), reversed(leaf.shape), strict=True) if extent > 1), None)
        near = index.variables(last) if last is not None else ()
        for v in {v for e in here for v in index.variables(e)}:
            if v in found and v not in near:
                found[v] += leaf.nbytes
    return found[results], min([found[v] for v in own.values()], default=0)


def uses(fuser: Fuser, n: Node, g: Group) -> list[Sum]:
    """Where g adds up `n`, no matrix product, in its innermost body."""
    if fuser.costs.is_contraction(n):
        return []
    own, loops = fuser.own_index(n, g) if n in g.outputs else None, fuser.roots[g].loops
    found = [(n, at) for s, at in fuser.uses[n] if fuser.find(s.group) is g and s.loops == loops]
    return found if own is None else [(n, own), *found]


def reductions(fuser: Fuser, g: Group) -> list[Sum]:
    """What g adds up in its innermost body."""
    inside = [v for v, axes in g.at.items() if len(axes) == len(g.space)]
    return [found for v in [*g.outputs, *g.inlined, *inside] if v.is_reduce for found in uses(fuser, v, g)]


def rows(g: Group) -> int:
    """Bytes that g stores by whole rows, from inside its loops: along memory as it adds up, across it from one result to the
    next."""
    return sum(v.nbytes for v in g.also_stored if g.rows.get(v))


def seconds(fuser: Fuser, g: Group, more: list[Sum], stored: int = 0) -> float:
    """How much longer kernel g takes with `more` to add up, and `stored` bytes of rows to store, because vectors cannot follow
    all of its sums and rows: of the smaller side a vector takes a line of memory for each lane."""
    mine = reductions(fuser, g) if more and g.space else []
    if not mine:
        return 0.0
    last = fuser.space_vars(g.space)[-1]

    def worst(sums: list[Sum], stored: int) -> int:
        sides = [across(fuser, n, at, last) for n, at in dict.fromkeys(sums)]
        return min(sum(a for a, _ in sides) + stored, sum(b for _, b in sides))

    lanes = fuser.costs.machine.vector_bytes // more[0][0].dtype.itemsize
    return (worst([*mine, *more], rows(g) + stored) - worst(mine, rows(g))) * (lanes - 1) / fuser.costs.bandwidth
