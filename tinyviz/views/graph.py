"""graph: which operations, and what flows between them? Backward nodes stand beside the forward node that they serve."""

from __future__ import annotations

from tinyviz import analysis, texts, units
from tinyviz.frames import became
from tinyviz.svg import Svg, css, cut
from tinyviz.viewdata import Box, GraphData
from tinyviz.views import base, choose
from tinyviz.views.lines import where
from tinyviz.wire import PHASES, Program, Recording, Selection

NAME = "graph"
HOWTO = (
    "Each box is one primitive operation with the shape of its result; values flow downwards along the lines.",
    "Gradients stand to the right of their forward node; a short stub marks a value that is kept for the backward pass.",
    "Frames around boxes are modules. Colour and letter give the phase: forward, backward, optimizer.",
)
W, H = 118.0, 46.0
SVG_LIMIT = 600  # nodes that a static drawing still shows one by one


def data(r: Recording, program: int | None = None, selection: Selection | None = None) -> GraphData:
    at = choose(r, program, selection)
    p = r.programs[at]
    name = "simplified" if p.simplified else "recorded"
    drawn = p.simplified or p.recorded
    return GraphData(
        **base(NAME, f"Graph: {p.name}", HOWTO, PHASES, at), layout=name, drawn=list(drawn), boxes=modules(p, drawn, name),
        overlays=overlays(p, drawn),
    )  # fmt: skip


def operands(p: Program, drawn: list[int]) -> dict[int, list[int]]:
    """Node id -> its operands as they are in the drawn graph."""
    if drawn == p.recorded:
        return {n: p.nodes.src[n] for n in drawn}
    final: dict[int, int] = {}
    for s in p.stages:
        for old, new in zip(s.frames.replaced, s.frames.by, strict=True):
            if old != new:
                final[old] = new

    def find(n: int) -> int:
        while n in final:
            n = final[n]
        return n

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
    """Figures to colour nodes by: of the kernels that compute a node, and of its own result."""
    of = analysis.node_kernels(p)
    rows = analysis.kernel_rows(p)
    out: dict[str, list[float | None]] = {"kernel_seconds": [], "kernel_bytes": [], "result_bytes": []}
    size = {"float64": 8, "int64": 8, "uint64": 8, "float32": 4, "int32": 4, "uint32": 4, "float16": 2, "int16": 2, "uint16": 2}
    for n in drawn:
        kernels = [rows[k] for k in of.get(n, ())]
        out["kernel_seconds"].append(analysis.total(k.seconds for k in kernels) if kernels else None)
        moved = [analysis.total([k.bytes_read, k.bytes_written]) for k in kernels]
        out["kernel_bytes"].append(analysis.total(moved) if kernels else None)
        elements = 1
        for d in p.nodes.shape[n]:
            elements *= d
        out["result_bytes"].append(float(elements * size.get(p.nodes.dtype[n], 1)))
    return out


def label(p: Program, n: int) -> str:
    """'sum (1,)', 'buffer weight'."""
    arg = p.nodes.arg[n]
    return p.nodes.op[n] + (f" {arg}" if arg and len(arg) < 40 else "")


def text(r: Recording, d: GraphData) -> str:
    p = r.programs[d.program]
    src = operands(p, d.drawn)
    number = {n: i for i, n in enumerate(d.drawn)}
    of = analysis.node_kernels(p)
    rows = []
    for n in d.drawn:
        args = ", ".join(f"%{number[s]}" for s in src[n] if s in number)
        lines = ", ".join(where(r, line) for line in p.nodes.lines[n][:2])
        forward = number.get(became(p, p.nodes.forward[n])) if p.nodes.forward[n] >= 0 else None
        gradient = f"{p.nodes.derivative[n]} of %{forward}" if forward is not None else ""
        kernels = " ".join(f"k{k}" for k in of.get(n, ()))
        shape = f"{p.nodes.dtype[n]}{p.nodes.shape[n]}"
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
    note = f"{len(d.drawn)} nodes of the {d.layout} graph ({len(p.recorded)} recorded)\n"
    return texts.heading(d.title, d.howto) + note + texts.table(head, rows)


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
        tip = f"{label(p, n)} {p.nodes.dtype[n]}{p.nodes.shape[n]} {' '.join(where(r, i) for i in p.nodes.lines[n][:3])}"
        out.rect(x - W / 2, y - H / 2, W, H, f"box {css(phase)}", rx=6, tip=tip)
        out.text(x - W / 2 + 6, y - 8, cut(f"{phase[:1].upper()} {label(p, n)}", 16), "mono bold")
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
