"""addresses: which elements of memory does each element of a result read, and is that known before anything runs?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from tinyviz import access, palette, texts, units
from tinyviz.svg import LINE, Svg, css, cut
from tinyviz.viewdata import AccessRow, AddressesData
from tinyviz.views import base, choose
from tinyviz.views.lines import where
from tinyviz.wire import Program, Recording, Selection, Space, Trace

NAME = "addresses"
HOWTO = (
    "One iteration of a kernel's outer loops is picked: cells show which elements it reads and which it writes, drawn from the "
    "index arithmetic before anything runs.",
    "Static: the addresses are the same whatever the data is. Data-dependent: an index is read from memory, so only a run tells.",
    "A trace on the reference backend can be laid over it, for two inputs side by side: tv.addresses(f, input, other_input).",
)


def data(r: Recording, program: int | None = None, selection: Selection | None = None) -> AddressesData:
    at = choose(r, program, selection)
    p = r.programs[at]
    rows = [row for i, k in enumerate(p.kernels) if k.space is not None for row in _rows(p, i, k.space)]
    shared = base(NAME, f"Addresses: {p.name}", HOWTO, (), at)
    kinds = {"inline": "read in this iteration", "backward": "written in this iteration"}
    shared["legend"] = [replace(palette.CATEGORIES[x], label=words) for x, words in kinds.items()]
    static = sum(x.executions for x in rows if x.verdict == "static")
    dynamic = sum(x.executions for x in rows if x.verdict != "static")
    shown = next((x.kernel for x in rows if x.verdict != "static"), 0)
    if selection is not None and selection.kind == "kernel":
        shown = int(selection.id.split(".")[1])
    return AddressesData(**shared, rows=rows, kernel=shown, static=static, dynamic=dynamic)


def _rows(p: Program, kernel: int, space: Space) -> Iterator[AccessRow]:
    chosen = access.middle(space)
    for at, a in access.shared(space):
        flat, whole = access.touched(space, a, chosen)
        if flat is None:
            example = "depends on data"
        else:
            example = access.ranges_text(flat, space.operands[a.operand].shape) + ("" if whole else " …")
        traces = [t for t in p.traces if t.kernel == kernel and t.access == at]
        verdict = "data-dependent" if flat is None else "static"
        yield AccessRow(kernel, at, verdict, access.executions(space, a), example, traced(traces))


def traced(traces: list[Trace]) -> str:
    """How the traces of one access compare: '64 touched; the same for both inputs'."""
    if not traces:
        return ""
    counts = " and ".join(dict.fromkeys(f"{t.count}" for t in traces))
    if len(traces) == 1:
        return f"{counts} touched"
    a, b = traces[0], traces[1]
    if a.count == b.count and a.elements == b.elements:
        return f"{counts} touched, the same ones for both inputs"
    if a.count != b.count:
        return f"{counts} touched: not even the number is the same"
    n = sum(x != y for x, y in zip(a.elements, b.elements, strict=True))
    return f"{counts} touched, {n} of the first {len(a.elements)} at other addresses"


def text(r: Recording, d: AddressesData) -> str:
    p = r.programs[d.program]
    out = [texts.heading(d.title, d.howto) + summary(d)]
    for i, k in enumerate(p.kernels):
        if k.space is None:
            out.append(f"k{i} {k.name}: {units.MISSING} its accesses were not recorded")
            continue
        space = k.space
        loops = ", ".join(f"{v.name} {v.start}:{v.stop}" + (" (combines)" if v.reduce else "") for v in space.loops)
        mine = [x for x in d.rows if x.kernel == i]
        rows = [[_what(space, x.access), x.verdict, units.count(x.executions), cut(x.example, 70), x.traced] for x in mine]
        head = ["access", "verdict", "times", f"in iteration {_place(space)}", "traced"]
        out.append(f"k{i} {k.name}: loops {loops or 'none'}{_line(r, p, i)}\n" + texts.table(head, rows, (2,)))
    return "\n\n".join(out)


def summary(d: AddressesData) -> str:
    if not d.rows:
        return f"{units.MISSING} no accesses were recorded"
    total = d.static + d.dynamic
    if not d.dynamic:
        return f"all {units.count(total)} accesses are static: their addresses are known before anything runs"
    part = units.percent(d.dynamic / total) if d.dynamic / total >= 0.0005 else "less than 0.1 %"
    return f"{units.count(d.static)} accesses are static, {units.count(d.dynamic)} ({part}) depend on data"


def _what(space: Space, at: int) -> str:
    a = space.accesses[at]
    of = space.operands[a.operand]
    return f"{'write' if a.write else 'read'} {of.name}{of.shape}" + (" where masked" if a.mask else "")


def _place(space: Space) -> str:
    return ", ".join(f"{space.loops[i].name}={c}" for i, c in access.middle(space).items()) or "(the only one)"


def _line(r: Recording, p: Program, kernel: int) -> str:
    shares = p.kernels[kernel].shares
    lines = [line for line in dict.fromkeys(shares.line) if line >= 0][:2]
    return "; " + ", ".join(where(r, line) for line in lines) if lines else ""


GRID, MOST = 150.0, 48  # size of a picture; rows and columns that it shows at most


def svg(r: Recording, d: AddressesData) -> str:
    p = r.programs[d.program]
    out = Svg(1000, d.title, d.howto, d.legend)
    out.y += LINE
    out.text(12, out.y, summary(d), "bold")
    drawn = [(i, k, k.space) for i, k in enumerate(p.kernels) if k.space is not None]
    drawn.sort(key=lambda x: x[0] != d.kernel)
    for i, k, space in drawn[:6]:
        out.y += LINE * 2
        out.text(12, out.y, f"k{i} {k.name}, iteration {_place(space)}", "mono bold")
        x, top = 12.0, out.y + 10
        bottom = top
        for name, shape, reads, writes, dynamic in grids(space)[:6]:
            height = _grid(out, x, top + LINE, shape, reads, writes)
            out.text(x, top + 12, cut(f"{name} {'×'.join(map(str, shape)) or 'scalar'}", 22), "mono")
            counts = [f"{len(x)} {how}" for x, how in ((reads, "read"), (writes, "written")) if x]
            note = dynamic or ", ".join(counts) or "nothing"
            out.text(x, top + LINE + height + 14, cut(note, 24), "faint", tip=note)
            bottom = max(bottom, top + LINE + height + 18)
            x += GRID + 14
        out.y = bottom
    if len(drawn) > 6:
        out.y += LINE
        out.text(12, out.y, f"… and {units.some(len(drawn) - 6, 'more kernel')}: see the live view or the text", "faint")
    return str(out)


Grid = tuple[str, list[int], list[int], list[int], str]


def grids(space: Space) -> list[Grid]:
    """(buffer, shape, elements read, elements written, on what data a read depends) by buffer, in the middle iteration."""
    chosen = access.middle(space)
    found: dict[int, Grid] = {}
    for _, a in access.shared(space):
        of = space.operands[a.operand]
        name, shape, reads, writes, dynamic = found.get(a.operand, (of.name, of.shape, [], [], ""))
        flat, _ = access.touched(space, a, chosen)
        if flat is None:
            dynamic = "depends on data"
        elif a.write:
            writes = sorted({*writes, *flat})
        else:
            reads = sorted({*reads, *flat})
        found[a.operand] = (name, shape, reads, writes, dynamic)
    return list(found.values())


def _grid(out: Svg, x: float, y: float, shape: list[int], reads: list[int], writes: list[int]) -> float:
    """The buffer as rows (all axes but the last) and columns, thinned out; returns the height."""
    columns = max(shape[-1], 1) if shape else 1
    rows = max(math.prod(shape[:-1]), 1)
    across, down = min(columns, MOST), min(rows, MOST)
    cell = min(GRID / across, GRID / down, 18.0)
    out.rect(x, y, across * cell, down * cell, "raised")
    for elements, classes in ((reads, f"fill {css('inline')}"), (writes, f"fill {css('backward')}")):
        cells = {(e // columns * down // rows, e % columns * across // columns) for e in elements}
        for i, j in sorted(cells):
            out.rect(x + j * cell, y + i * cell, cell, cell, classes)
    return down * cell
