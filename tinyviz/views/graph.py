"""graph: which operations, and what flows between them? Backward nodes stand beside the forward node that they serve."""

from __future__ import annotations

from tinyviz import analysis, palette, texts, units
from tinyviz.frames import finder
from tinyviz.hierarchy import tree
from tinyviz.svg import Svg, css, cut
from tinyviz.viewdata import Box, Category, GraphData
from tinyviz.views import base, choose
from tinyviz.views.lines import where
from tinyviz.wire import PHASES, Program, Recording, Selection

NAME = "graph"
HOWTO = (
    "Each box is one primitive operation with the shape of its result, or a closed part of the program: ▸ opens it, ▾ closes it.",
    "Values flow downwards. A gradient stands to the right of its forward node and names its derivative rule (d-mul).",
    "Colour and letter give the phase, a bar the figure chosen under “mark”. A short stub: a value kept for the backward pass.",
)
W, H = 118.0, 46.0
SVG_LIMIT = 600  # nodes that a static drawing still shows one by one
TEXT_LIMIT = 400  # nodes that the text still lists one by one
STEPS = 2  # from the node around which it is shown


def data(r: Recording, program: int | None = None, selection: Selection | None = None) -> GraphData:
    at = choose(r, program, selection)
    p = r.programs[at]
    name = "simplified" if p.simplified else "recorded"
    drawn = p.simplified or p.recorded
    parts = tree(p, drawn, operands(p, drawn))
    return GraphData(
        **base(NAME, f"Graph: {p.name}", HOWTO, PHASES, at), layout=name, drawn=list(drawn), boxes=modules(p, drawn, name),
        groups=parts.groups, home=parts.home, overlays=overlays(p, drawn), measured=bool(p.launches.median),
        dtypes=dtypes(p, drawn), around=_around(p, drawn, selection),
    )  # fmt: skip


def dtypes(p: Program, drawn: list[int]) -> list[Category]:
    """A colour and a sign for each dtype that occurs."""
    count: dict[str, int] = {}
    for n in drawn:
        count[p.nodes.dtype[n]] = count.get(p.nodes.dtype[n], 0) + 1
    order = sorted(count, key=lambda d: (-count[d], d))
    return [palette.dtype(d, i, f"{d}: {units.some(count[d], 'node')}") for i, d in enumerate(order)]


def _around(p: Program, drawn: list[int], selection: Selection | None) -> int:
    """The drawn node that a selected node is or has become; -1."""
    if selection is None or selection.kind != "node":
        return -1
    node = int(selection.id.split(".")[1])
    found = finder(p)(node) if p.simplified else node
    if found not in drawn:
        raise ValueError(f"there is no node {node} in the {'simplified' if p.simplified else 'recorded'} graph")
    return found


def operands(p: Program, drawn: list[int]) -> dict[int, list[int]]:
    """Node id -> its operands as they are in the drawn graph."""
    if drawn == p.recorded:
        return {n: p.nodes.src[n] for n in drawn}
    find = finder(p)
    return {n: [find(s) for s in p.nodes.src[n]] for n in drawn}


def modules(p: Program, drawn: list[int], name: str) -> list[Box]:
    """A frame around the forward nodes of each module, outer modules first."""
    at = p.layouts.get(name)
    members: dict[str, list[int]] = {}
    for n in drawn:
        if p.nodes.module[n] and p.nodes.phase[n] == "forward":
            parts = p.nodes.module[n].split(".")
            for depth in range(1, len(parts) + 1):
                members.setdefault(".".join(parts[:depth]), []).append(n)
    order = sorted(members, key=lambda m: (m.count("."), m))
    out: list[Box] = []
    for m in order:
        spots = [(x, y) for n in members[m] if at is not None and (x := at.x[n]) is not None and (y := at.y[n]) is not None]
        if not spots:
            continue
        x0, x1 = min(x for x, _ in spots) - W / 2 - 6, max(x for x, _ in spots) + W / 2 + 6
        y0, y1 = min(y for _, y in spots) - H / 2 - 8, max(y for _, y in spots) + H / 2 + 6
        parent = m.rpartition(".")[0]
        up = next((i for i, b in enumerate(out) if b.name == parent), -1)
        own = [n for n in members[m] if p.nodes.module[n] == m]
        out.append(Box(m, "module", up, own, (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0))
    return out


def overlays(p: Program, drawn: list[int]) -> dict[str, list[float | None]]:
    """Figures to mark nodes by. Time, bytes moved and FLOPs of a kernel are split over its nodes by their predicted time, as
    they are over lines; memory is what keeps a node's value. None: not computed, or not kept."""
    sums: dict[str, dict[int, float | None]] = {"time": {}, "bytes": {}, "FLOPs": {}, "memory": {}}
    for row in analysis.kernel_rows(p):
        k = p.kernels[row.kernel]
        seconds = row.seconds if p.launches.median else row.seconds_predicted
        moved = analysis.total([row.bytes_read, row.bytes_written])
        for name, whole in (("time", seconds), ("bytes", moved), ("FLOPs", row.flops)):
            for n, weight in zip(k.nodes, k.weights, strict=False):
                if not weight:
                    continue
                sums[name][n] = analysis.plus(sums[name].get(n), whole, weight)
    for slot in p.slots:
        if slot.node >= 0:
            sums["memory"][slot.node] = analysis.plus(sums["memory"].get(slot.node), slot.nbytes, 1.0)
    return {name: [by.get(n) for n in drawn] for name, by in sums.items()}


def label(p: Program, n: int) -> str:
    """'sum (1,)', 'buffer weight'."""
    arg = p.nodes.arg[n]
    return p.nodes.op[n] + (f" {arg}" if arg and len(arg) < 40 else "")


def box_name(p: Program, n: int) -> str:
    """The label where there is little room: a slice whose ranges are long is known by them."""
    name = label(p, n)
    return p.nodes.arg[n] if p.nodes.op[n] == "slice" and len(name) > 14 else name


def text(r: Recording, d: GraphData) -> str:
    p = r.programs[d.program]
    src = operands(p, d.drawn)
    number = {n: i for i, n in enumerate(d.drawn)}
    of = analysis.node_kernels(p)
    find = finder(p)
    shown = d.drawn if len(d.drawn) <= TEXT_LIMIT else []
    if d.around >= 0:
        near = set(neighbourhood(src, d.around, STEPS))
        shown = [n for n in d.drawn if n in near]
    rows = []
    for n in shown:
        args = ", ".join(f"%{number[s]}" for s in src[n] if s in number)
        lines = ", ".join(where(r, line) for line in p.nodes.lines[n][:2])
        forward = number.get(find(p.nodes.forward[n])) if p.nodes.forward[n] >= 0 else None
        gradient = f"{p.nodes.derivative[n]} of %{forward}" if forward is not None else ""
        kernels = " ".join(f"k{k}" for k in of.get(n, ()))
        shape = f"{p.nodes.dtype[n]}{units.shape(p.nodes.shape[n])}"
        rows.append(
            [
                f"%{number[n]}",
                cut(f"{label(p, n)}({args})", 60),
                shape,
                p.nodes.phase[n][0].upper(),
                p.nodes.module[n],
                kernels,
                lines,
                gradient,
            ]
        )
    head = ["node", "operation", "result", "ph", "module", "kernel", "line", "gradient"]
    note = f"{units.some(len(d.drawn), 'node')} of the {d.layout} graph ({len(p.recorded)} recorded)"
    if d.around >= 0:
        note += f": the {len(rows)} within {units.some(STEPS, 'step')} of %{number.get(d.around, '?')}"
    body = texts.table(head, rows) if rows else outline(r, d)
    return texts.heading(d.title, d.howto) + note + "\n" + body


def neighbourhood(src: dict[int, list[int]], node: int, steps: int) -> list[int]:
    """The nodes within so many edges of one, in either direction, itself included; near ones first."""
    users: dict[int, list[int]] = {}
    for n, operands_ in src.items():
        for s in operands_:
            users.setdefault(s, []).append(n)
    found = dict.fromkeys([node])
    edge = [node]
    for _ in range(steps):
        edge = [m for n in edge for m in (*src.get(n, ()), *users.get(n, ())) if m not in found and m in src]
        edge = list(dict.fromkeys(edge))
        found.update(dict.fromkeys(edge))
    return list(found)


def outline(r: Recording, d: GraphData) -> str:
    """What the nodes are part of, as a tree, with the figures of each part."""
    sums = [dict.fromkeys(("time", "bytes", "FLOPs"), None) for _ in d.groups]  # type: list[dict[str, float | None]]
    for i, home in enumerate(d.home):
        at = home
        while at >= 0:
            for name in sums[at]:
                sums[at][name] = analysis.plus(sums[at][name], d.overlays[name][i], 1.0)
            at = d.groups[at].parent
    depth: list[int] = []
    children: dict[int, list[int]] = {}
    for i, g in enumerate(d.groups):
        depth.append(0 if g.parent < 0 else depth[g.parent] + 1)
        children.setdefault(g.parent, []).append(i)
    rows, stack = [], children.get(-1, [])[::-1]
    while stack:
        i = stack.pop()
        g, x = d.groups[i], sums[i]
        name = where(r, g.line) + "  " + r.lines.text[g.line] if g.kind == "line" else g.name
        figures = [units.seconds(x["time"]), units.nbytes(x["bytes"]), units.count(x["FLOPs"])]
        rows.append(["  " * depth[i] + cut(name, 60), g.kind, str(g.nodes), *figures])
        stack += children.get(i, [])[::-1]
    alone = sum(home < 0 for home in d.home)
    word = "measured" if d.measured else "predicted"
    note = 'each node: rec.table("nodes"); around one node: rec.view("graph", selection=("node", "PROGRAM.NODE"))'
    table = texts.table(["part", "kind", "nodes", f"time, {word}", "bytes", "FLOPs"], rows, (2, 3, 4, 5))
    return f"{table}\nin no part: {units.some(alone, 'node')}; {note}"


def svg(r: Recording, d: GraphData) -> str:
    p = r.programs[d.program]
    at = p.layouts[d.layout]
    if len(d.drawn) > SVG_LIMIT:
        return _folded(p, d)
    out = Svg(at.width + 24, d.title, d.howto, d.legend)
    left, top = 12.0, out.y + 12
    for box in d.boxes:
        x, y = left + box.x - box.width / 2, top + box.y - box.height / 2
        out.rect(x, y, box.width, box.height, "rule", rx=8, dash="4 3")
        out.text(x + 6, y + 2, cut(box.name, int(box.width / 6.5)), "faint mono")
    stubs = {(a, b) for a, b in at.stubs}

    def spot(n: int) -> tuple[float, float] | None:
        x, y = at.x[n], at.y[n]
        return None if x is None or y is None else (left + x, top + y)

    for n, operands_ in operands(p, d.drawn).items():
        for s in operands_:
            start, end = spot(s), spot(n)
            if start is None or end is None:
                continue
            (x0, y0), (x1, y1) = start, end
            if (s, n) in stubs:
                out.path(f"M{x1:.1f} {y1 - H / 2 - 9:.1f}v9", f"line {css(p.nodes.phase[s])}", dash="2 2")
            elif y0 == y1:
                a, b = (x0 + W / 2, x1 - W / 2) if x0 < x1 else (x0 - W / 2, x1 + W / 2)
                out.path(f"M{a:.1f} {y0:.1f}L{b:.1f} {y1:.1f}", "edge", arrow=True)
            else:
                h = H / 2 if y1 > y0 else -H / 2
                m = (y0 + y1) / 2
                out.path(f"M{x0:.1f} {y0 + h:.1f}C{x0:.1f} {m:.1f} {x1:.1f} {m:.1f} {x1:.1f} {y1 - h:.1f}", "edge", arrow=True)
    for n in d.drawn:
        place = spot(n)
        if place is None:
            continue
        x, y = place
        phase = p.nodes.phase[n]
        result = f"{p.nodes.dtype[n]}{units.shape(p.nodes.shape[n])}"
        tip = f"{label(p, n)} {result} {' '.join(where(r, i) for i in p.nodes.lines[n][:3])}"
        out.rect(x - W / 2, y - H / 2, W, H, f"box {css(phase)}", rx=6, tip=tip)
        out.text(x - W / 2 + 6, y - 8, cut(f"{phase[:1].upper()} {box_name(p, n)}", 16), "mono bold")
        out.text(
            x - W / 2 + 6, y + 6, cut(f"{'×'.join(map(str, p.nodes.shape[n])) or 'scalar'} {p.nodes.dtype[n]}", 16), "mono faint"
        )
        out.text(x - W / 2 + 6, y + 18, cut(" ".join(where(r, i) for i in p.nodes.lines[n][:1]), 16), "mono faint")
    out.reach(top + at.height)
    return str(out)


def _folded(p: Program, d: GraphData) -> str:
    from tinyviz.boxes import draw_boxes, module_boxes

    boxes, edges, width, height = module_boxes(p)
    howto = [*d.howto[:1], f"{len(d.drawn)} nodes are too many for a still picture: each box is a module here.", d.howto[2]]
    out = Svg(width + 24, d.title, howto, d.legend)
    draw_boxes(out, p, boxes, edges, 12, out.y + 12, width, height)
    out.reach(out.y + 12 + height)
    return str(out)


__all__ = ["NAME", "data", "svg", "text", "units"]
