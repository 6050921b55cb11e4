"""The graph folded to its modules: one box for each top-level module and phase, laid out in ranks."""

from __future__ import annotations

from tinyviz import layout, units
from tinyviz.frames import finder
from tinyviz.svg import Svg, css
from tinyviz.viewdata import Box
from tinyviz.wire import Nodes, Program

OUTSIDE = {"optimizer": "optimizer"}
WIDTH, HEIGHT = 116.0, 42.0


def top(module: str, depth: int = 2) -> str:
    """'model.fc1.gelu' -> 'model.fc1'."""
    return ".".join(module.split(".")[:depth])


def module_boxes(p: Program) -> tuple[list[Box], list[list[int]], float, float]:
    """(boxes, edges between them, width, height). Nodes outside of modules are grouped by phase."""
    ids = p.simplified or p.recorded
    find = finder(p)
    src = {n: [find(s) if p.simplified else s for s in p.nodes.src[n]] for n in ids}
    names = {n: (p.nodes.phase[n], top(p.nodes.module[n]) or OUTSIDE.get(p.nodes.phase[n], "(no module)")) for n in ids}
    for n in reversed(ids):  # a parameter belongs to what uses it first
        for s in src[n]:
            if not src[s] and p.nodes.phase[n] == "forward":
                names[s] = names[n]
    place: dict[tuple[str, str], int] = {}
    boxes: list[Box] = []
    for n in ids:
        key = names[n]
        if key not in place:
            place[key] = len(boxes)
            boxes.append(Box(key[1], "module", -1, [], 0.0, 0.0, WIDTH, HEIGHT))
        boxes[place[key]].nodes.append(n)
    pairs: set[tuple[int, int]] = set()
    for n in ids:
        for s in src[n]:
            if s in names and names[s] != names[n]:
                pairs.add((place[names[s]], place[names[n]]))
    edges = sorted(pairs)
    _place(boxes, edges, [key[0] for key in place])
    width = max([b.x + WIDTH / 2 for b in boxes], default=0.0)
    height = max([b.y + HEIGHT / 2 for b in boxes], default=0.0)
    return boxes, [list(e) for e in edges], width, height


def _place(boxes: list[Box], edges: list[tuple[int, int]], phases: list[str]) -> None:
    """Only edges that go on in the order of first use rank; gradients stand beside the module they belong to."""
    forward = {b.name: i for i, b in enumerate(boxes) if phases[i] == "forward"}
    src = [[a for a, b in edges if b == i and a < i] for i in range(len(boxes))]
    nodes = Nodes(
        phase=list(phases), forward=[forward.get(b.name, -1) if phases[i] == "backward" else -1 for i, b in enumerate(boxes)]
    )
    for name in ("op", "dtype", "shape", "src", "arg", "module", "lines", "origins", "derivative"):
        setattr(nodes, name, [""] * len(boxes))
    at = layout.layout(nodes, range(len(boxes)), src)
    for i, b in enumerate(boxes):
        b.x, b.y = at.x[i] or 0.0, at.y[i] or 0.0


def draw_boxes(
    out: Svg, p: Program, boxes: list[Box], edges: list[list[int]], x: float, y: float, width: float, height: float
) -> None:
    """Scaled to fit; edges behind boxes."""
    if not boxes:
        return
    right, bottom = max(b.x + b.width / 2 for b in boxes), max(b.y + b.height / 2 for b in boxes)
    scale = min(1.0, width / right, height / bottom)
    for i, j in edges:
        s, t = boxes[i], boxes[j]
        x0, y0, x1, y1 = x + s.x * scale, y + (s.y + s.height / 2) * scale, x + t.x * scale, y + (t.y - t.height / 2) * scale
        if t.y > s.y:
            out.path(
                f"M{x0:.1f} {y0:.1f}C{x0:.1f} {(y0 + y1) / 2:.1f} {x1:.1f} {(y0 + y1) / 2:.1f} {x1:.1f} {y1:.1f}",
                "edge",
                arrow=True,
            )
    for b in boxes:
        phase = p.nodes.phase[b.nodes[0]]
        left, upper = x + (b.x - b.width / 2) * scale, y + (b.y - b.height / 2) * scale
        out.rect(
            left,
            upper,
            b.width * scale,
            b.height * scale,
            f"box {css(phase)}",
            rx=5,
            tip=f"{b.name}, {phase}: {units.some(len(b.nodes), 'node')}",
        )
        if scale > 0.45:
            fits = int(b.width * scale / 7.0) - 2
            name = b.name if len(b.name) <= fits else "…" + b.name[1 - fits :]  # the end tells them apart
            out.text(left + 5, upper + 14, f"{phase[:1].upper()} {name}", "mono")
        if scale > 0.8:
            out.text(left + 5, upper + 30, units.some(len(b.nodes), "node"), "faint")
