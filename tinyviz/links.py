"""The one selection model: what lights up when something is selected. extension/src/ holds the same query in TypeScript.

Nodes are the hub. A selection stands for a set of nodes; everything that serves one of these nodes is related. Within a kernel
the texts are linked line by line: a source or instruction line stands for the line of the scheduled loops that it does.
"""

from __future__ import annotations

from collections.abc import Iterable

from tinyviz.wire import SELECTABLE, Frames, Program, Recording, Selection, Stage

Related = dict[str, list[str]]


def related(r: Recording, selection: Selection) -> Related:
    """Kind -> ids of everything related to `selection`, itself included; kinds without any are left out.

    Raises ValueError for a selection of an unknown kind, or of something that is not in the recording."""
    if selection.kind not in SELECTABLE:
        raise ValueError(f"nothing of kind {selection.kind!r} can be selected; kinds: {', '.join(SELECTABLE)}")
    found: dict[str, list[str]] = {kind: [] for kind in SELECTABLE}
    try:
        ids = [int(part) for part in selection.id.split(".")]
        if any(i < 0 for i in ids):
            raise IndexError
        if selection.kind in ("line", "rule"):
            (the_one,) = ids
            _ = (r.lines.line if selection.kind == "line" else r.rules.name)[the_one]
            for at in range(len(r.programs)):
                _program(r, at, selection.kind, [the_one], found)
        else:
            _ = r.programs[ids[0]]
            _program(r, ids[0], selection.kind, ids[1:], found)
    except (ValueError, IndexError):
        raise ValueError(f"this recording has no {selection.kind} {selection.id!r}") from None
    found[selection.kind].append(selection.id)
    return {kind: sorted(set(ids), key=_order) for kind, ids in found.items() if ids}


def _order(id: str) -> list[int]:
    return [int(part) for part in id.split(".")]


def _program(r: Recording, at: int, kind: str, ids: list[int], found: dict[str, list[str]]) -> None:
    p = r.programs[at]
    loop_lines: dict[int, set[int]] | None = None  # kernel -> scheduled lines, for a kernel or a line of its texts
    if kind in ("loop", "source", "assembly"):
        kernel, line = ids
        code = getattr(p.kernels[kernel], "scheduled" if kind == "loop" else kind)
        _ = code.text[line]
        link = line if kind == "loop" else code.link[line] if code.link else -1
        loop_lines = {kernel: {link} if link >= 0 else set()}
        nodes = set(p.kernels[kernel].scheduled.nodes[link]) if link >= 0 else set()
    elif kind in ("kernel", "call"):  # not the other kernels that compute some of its nodes again
        kernel = ids[0] if kind == "kernel" else p.calls[ids[0]].kernel
        nodes = {n for n in p.kernels[kernel].nodes if p.nodes.op[n] != "buffer"}  # memory that it reads was made elsewhere
        loop_lines = {kernel: {j for j, row in enumerate(p.kernels[kernel].scheduled.nodes) if nodes.intersection(row)}}
    else:
        nodes = _nodes(p, kind, ids)
    _add(at, p, nodes, loop_lines, found)


def _nodes(p: Program, kind: str, ids: list[int]) -> set[int]:
    """The nodes that a selection stands for."""
    if kind == "line":
        origins = {o for o, stack in enumerate(p.origins.lines) if ids[0] in stack}  # the line itself, or what it called
        return {n for n, row in enumerate(p.nodes.origins) if origins.intersection(row)}
    if kind == "rule":
        found = {n for s in p.stages for k, rule in enumerate(s.frames.rule) if rule == ids[0] for n in made(s.frames, k)}
        return found | {n for s in p.stages for k, rule in enumerate(s.steps.rule) if rule == ids[0] for n in about(p, s, k)}
    if kind == "node":
        (n,) = ids
        _ = p.nodes.op[n]
        return _family(p, n)
    if kind == "module":
        n, depth = ids
        parts = p.nodes.module[n].split(".")
        if not 0 < depth <= len(parts) or not parts[0]:
            raise IndexError
        name = ".".join(parts[:depth])
        return {i for i, m in enumerate(p.nodes.module) if m == name or m.startswith(name + ".")}
    if kind == "firing":
        stage, k = ids
        f = p.stages[stage].frames
        return {f.replaced[k], f.by[k], *f.added[k], *f.removed[k]} if len(f) else about(p, p.stages[stage], k)
    if kind == "decision":
        return set(p.decisions[ids[0]].nodes)
    slot = p.slots[ids[0]]
    return {slot.node} if slot.node >= 0 else set()


def made(f: Frames, k: int) -> list[int]:
    """What a firing put there: what replaces a node, or where it replaces none everything that it added."""
    return [f.by[k]] if f.replaced[k] != f.by[k] or not f.added[k] else f.added[k]


def about(p: Program, s: Stage, k: int) -> set[int]:
    """The nodes that a step of a stage without frames changed, and those that its decision names."""
    d = s.steps.decision[k]
    return {*s.steps.nodes[k], *(p.decisions[d].nodes if d >= 0 else ())}


def _family(p: Program, n: int) -> set[int]:
    """A node with its gradient's nodes, or a backward node with its forward node; and what each has become or came from."""
    forward = p.nodes.forward
    family = {n} | {b for b, f in enumerate(forward) if f == n}
    if forward[n] >= 0:
        family.add(forward[n])
    by = {old: new for s in p.stages for old, new in zip(s.frames.replaced, s.frames.by, strict=True) if old != new}
    for m in list(family):
        while m in by:
            m = by[m]
            family.add(m)
    return family


def _add(at: int, p: Program, nodes: set[int], loop_lines: dict[int, set[int]] | None, found: dict[str, list[str]]) -> None:
    def put(kind: str, ids: Iterable[int | str]) -> None:
        found[kind] += [f"{at}.{i}" for i in ids]

    put("node", nodes)
    found["line"] += [str(line) for n in nodes for line in p.nodes.lines[n]]
    for s, stage in enumerate(p.stages):
        f = stage.frames
        for k in range(len(f)):
            if f.replaced[k] in nodes or not nodes.isdisjoint(made(f, k)):
                put("firing", [f"{s}.{k}"])
                found["rule"].append(str(f.rule[k]))
        for k in range(len(stage.steps)):
            if not nodes.isdisjoint(about(p, stage, k)):
                put("firing", [f"{s}.{k}"])
                found["rule"].append(str(stage.steps.rule[k]))
    put("decision", [i for i, d in enumerate(p.decisions) if nodes.intersection(d.nodes)])
    put("slot", [i for i, slot in enumerate(p.slots) if slot.node in nodes])
    kernels = list(loop_lines) if loop_lines is not None else [i for i, k in enumerate(p.kernels) if nodes.intersection(k.nodes)]
    put("kernel", kernels)
    put("call", [i for i, c in enumerate(p.calls) if c.kernel in kernels])
    for i in kernels:
        kernel = p.kernels[i]
        if loop_lines is not None:
            lines = loop_lines[i]
        else:
            lines = {j for j, row in enumerate(kernel.scheduled.nodes) if nodes.intersection(row)}
        put("loop", [f"{i}.{j}" for j in lines])
        for kind, code in (("source", kernel.source), ("assembly", kernel.assembly)):
            put(kind, [f"{i}.{j}" for j, link in enumerate(code.link) if link in lines])
