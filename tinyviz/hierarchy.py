"""A program's graph as a tree: modules as they were called, lines outside of modules, and the optimizer by parameter.

Every node gets one home. A parameter or a constant stands where it is used first; a gradient without a module of its own beside
the forward node that it serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tinyviz.frames import finder
from tinyviz.viewdata import NodeGroup
from tinyviz.wire import Program

Path = tuple[tuple[str, str], ...]  # (kind, name) from the outermost group inwards; (): none
OPTIMIZER = ("optimizer", "optimizer")


@dataclass
class Tree:
    groups: list[NodeGroup] = field(default_factory=list)
    home: list[int] = field(default_factory=list)  # by position in `drawn`; -1

    def path(self, group: int) -> list[int]:
        """The groups from the outermost to this one."""
        out = []
        while group >= 0:
            out.append(group)
            group = self.groups[group].parent
        return out[::-1]


def tree(p: Program, drawn: Sequence[int], src: dict[int, list[int]]) -> Tree:
    """The groups of `drawn` (node ids, operands first). `src`: operands of each in the drawn graph."""
    paths = _paths(p, drawn, src)
    many: dict[Path, int] = {}
    for n in drawn:
        many[paths[n]] = many.get(paths[n], 0) + 1
    out = Tree()
    known: dict[Path, int] = {}

    def group(path: Path) -> int:
        if not path:
            return -1
        at = known.get(path)
        if at is None:
            parent = group(path[:-1])
            kind, name = path[-1]
            at = known[path] = len(out.groups)
            out.groups.append(NodeGroup(name, kind, parent, 0, int(name) if kind == "line" else -1))
        return at

    for n in drawn:
        path = paths[n]
        if path and path[-1][0] in ("line", "parameter") and many[path] == 1:
            path = path[:-1]  # a group of one would only hide it
        at = group(path)
        out.home.append(at)
        while at >= 0:
            out.groups[at].nodes += 1
            at = out.groups[at].parent
    return out


def _paths(p: Program, drawn: Sequence[int], src: dict[int, list[int]]) -> dict[int, Path]:
    nodes, find = p.nodes, finder(p)
    updated = _parameters(p, drawn, src)
    out: dict[int, Path] = {}
    for n in drawn:
        if nodes.phase[n] == "optimizer":
            name = updated.get(n, "")
            out[n] = (OPTIMIZER, ("parameter", name)) if name else (OPTIMIZER,)
        elif nodes.module[n]:
            out[n] = tuple(("module", part) for part in nodes.module[n].split("."))
        elif nodes.phase[n] == "backward" and nodes.forward[n] >= 0 and find(nodes.forward[n]) in out:
            out[n] = out[find(nodes.forward[n])]
        elif src[n] or nodes.op[n] not in ("buffer", "const"):
            out[n] = (("line", str(nodes.lines[n][0])),) if nodes.lines[n] else ()
    users: dict[int, list[int]] = {}
    for n in drawn:
        for s in src[n]:
            users.setdefault(s, []).append(n)
    for n in reversed(drawn):  # users come later
        if n not in out:
            mine = users.get(n, [])
            forward = [u for u in mine if nodes.phase[u] == "forward" and out.get(u)]
            out[n] = next((out[u] for u in [*forward, *mine] if out.get(u)), ())
    return out


def _parameters(p: Program, drawn: Sequence[int], src: dict[int, list[int]]) -> dict[int, str]:
    """Of the optimizer's nodes those that serve one parameter alone, with its name: its own state ('w.m') is part of it."""
    written = {p.nodes.arg[src[n][0]] for n in drawn if p.nodes.op[n] == "assign" and src[n]}
    out: dict[int, str] = {}
    for n in reversed(drawn):  # users come later
        if p.nodes.phase[n] != "optimizer":
            continue
        if p.nodes.op[n] == "assign" and src[n]:
            name = p.nodes.arg[src[n][0]]
            outer = name.rpartition(".")[0]
            name = outer if outer in written else name
            out[n] = name if out.get(n, name) == name else ""
        if n in out:
            for s in src[n]:
                out[s] = out[n] if out.get(s, out[n]) == out[n] else ""
    return out
