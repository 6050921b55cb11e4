"""Checks of a recording that types cannot say: every id in range, nothing that could make a reader loop."""

from __future__ import annotations

from collections.abc import Iterable

from tinyviz import steps, units, wire

MAX_NODES = 2_000_000
MAX_EXTENT = 1 << 48
MAX_SECONDS = 1e12
MAX_INDENT = 1000  # that a line of a text moves in one step
MAX_SIDE = 1e7  # of a layout, drawing units


def validate(r: wire.Recording) -> None:
    """Raises ValueError that names the place and what is wrong there."""
    if r.version != wire.VERSION:
        raise ValueError(f"recording.version: this tinyviz reads version {wire.VERSION}, the file has {r.version}")
    _ids("recording.lines.file", r.lines.file, len(r.files))
    for i, p in enumerate(r.programs):
        _program(f"recording.programs[{i}]", p, r)
    _times("recording.waits", [t for w in r.waits for t in (w.began, w.seconds)])
    _times("recording.caches", [c.began for c in r.caches])
    for i, e in enumerate(r.realized):
        _times(f"recording.realized[{i}]", [e.began])
        _ids(f"recording.realized[{i}].line", [e.line], len(r.lines), none=True)
        _ids(f"recording.realized[{i}].program", [e.program], len(r.programs), none=True)


def _program(at: str, p: wire.Program, r: wire.Recording) -> None:
    nodes, lines = len(p.nodes), len(r.lines)
    if nodes > MAX_NODES:
        raise ValueError(f"{at}.nodes: {nodes} nodes are more than {MAX_NODES}")
    for n, src in enumerate(p.nodes.src):
        # operands come first, so there is no cycle
        if src and (min(src) < 0 or max(src) >= n):
            raise ValueError(f"{at}.nodes.src[{n}]: operands {src[:4]} do not all come before it: a cycle, or unknown ids")
    for name, rows, size in (("lines", p.nodes.lines, lines), ("origins", p.nodes.origins, len(p.origins))):
        _ids(f"{at}.nodes.{name}", (i for row in rows for i in row), size)
    for n, shape in enumerate(p.nodes.shape):
        if any(not 0 <= units.most(d) < 1 << 48 for d in shape) or len(shape) > 64:
            raise ValueError(f"{at}.nodes.shape[{n}]: {str(shape)[:60]} is no shape")
    _ids(f"{at}.nodes.forward", p.nodes.forward, nodes, none=True)
    _phases(f"{at}.nodes.phase", p.nodes.phase)
    _phases(f"{at}.origins.phase", p.origins.phase)
    _ids(f"{at}.origins.lines", (i for row in p.origins.lines for i in row), lines)
    for name in ("recorded", "simplified", "roots"):
        _ids(f"{at}.{name}", getattr(p, name), nodes)
    _stages(at, p, r)
    by = {old: new for s in p.stages for old, new in zip(s.frames.replaced, s.frames.by, strict=True) if old != new}
    _closed(f"{at}.recorded", p.recorded, p, {})
    _closed(f"{at}.simplified", p.simplified, p, by)
    for i, d in enumerate(p.decisions):
        _ids(f"{at}.decisions[{i}].nodes", d.nodes, nodes)
        _ids(f"{at}.decisions[{i}].kernel", [d.kernel], len(p.kernels), none=True)
    for i, k in enumerate(p.kernels):
        _kernel(f"{at}.kernels[{i}]", k, nodes, lines)
        _ids(f"{at}.kernels[{i}].shares.origin", k.shares.origin, len(p.origins), none=True)
    for i, c in enumerate(p.calls):
        _ids(f"{at}.calls[{i}].kernel", [c.kernel], len(p.kernels))
        _ids(f"{at}.calls[{i}].slots", c.slots, len(p.slots))
    for i, s in enumerate(p.slots):
        _ids(f"{at}.slots[{i}].first and last", [s.first, s.last], len(p.calls), none=True)
        _ids(f"{at}.slots[{i}].node", [s.node], nodes, none=True)
    for i, x in enumerate(p.recomputed):
        _ids(f"{at}.recomputed[{i}].slots", x.slots, len(p.slots))
    for name in ("recorded", *(("simplified",) if p.simplified else ())):
        if name not in p.layouts and p.recorded:
            raise ValueError(f"{at}.layouts: there is no layout {name!r}")
    for name, layout in p.layouts.items():
        _layout(f"{at}.layouts[{name[:40]!r}]", layout, nodes)
    _launches(f"{at}.launches", p)
    _asked(at, p, lines)


def _asked(at: str, p: wire.Program, lines: int) -> None:
    """What a recording holds only where somebody asked for it."""
    for i, v in enumerate(p.values):
        _ids(f"{at}.values[{i}].node", [v.node], len(p.nodes), none=True)
        shown = v.picture
        if shown is not None and not all(0 < len(tile) == shown.rows * shown.columns for tile in shown.tiles):
            raise ValueError(f"{at}.values[{i}].picture: a tile of {shown.rows} × {shown.columns} has another number of elements")
    for i, f in enumerate(p.faults):
        _ids(f"{at}.faults[{i}].node", [f.node], len(p.nodes), none=True)
        _ids(f"{at}.faults[{i}].line", [f.line], lines, none=True)
        _ids(f"{at}.faults[{i}].kernels", f.kernels, len(p.kernels))
    for i, t in enumerate(p.traces):
        _ids(f"{at}.traces[{i}].kernel", [t.kernel], len(p.kernels))
        space = p.kernels[t.kernel].space
        _ids(f"{at}.traces[{i}].access", [t.access], len(space.accesses) if space is not None else 0)


def _phases(at: str, values: list[str]) -> None:
    for i, v in enumerate(values):
        if v not in wire.PHASES:
            raise ValueError(f"{at}[{i}]: {v[:40]!r} is no phase; phases: {', '.join(wire.PHASES)}")


def _closed(at: str, drawn: list[int], p: wire.Program, by: dict[int, int]) -> None:
    """A graph: each node once, its operands before it. `by`: what stands in the place of a node."""
    seen: set[int] = set()
    for n in drawn:
        for s in p.nodes.src[n]:
            while s in by:
                s = by[s]
            if s not in seen:
                raise ValueError(f"{at}: node {n} reads node {s}, which does not stand before it")
        if n in seen:
            raise ValueError(f"{at}: node {n} stands there twice")
        seen.add(n)


def _stages(at: str, p: wire.Program, r: wire.Recording) -> None:
    nodes = len(p.nodes)
    replaced: set[int] = set()
    for i, s in enumerate(p.stages):
        here = f"{at}.stages[{i}]"
        for name in ("before", "after", "roots"):
            _ids(f"{here}.{name}", getattr(s, name), nodes)
        f = s.frames
        _ids(f"{here}.frames.rule", f.rule, len(r.rules))
        for name in ("replaced", "by"):
            _ids(f"{here}.frames.{name}", getattr(f, name), nodes)
        for name in ("added", "removed"):
            _ids(f"{here}.frames.{name}", (n for row in getattr(f, name) for n in row), nodes)
        for k, (old, new) in enumerate(zip(f.replaced, f.by, strict=True)):
            if old == new:
                continue
            # a node that is gone can neither be replaced again nor replace another: so following replacements ends
            if old in replaced or new in replaced:
                raise ValueError(f"{here}.frames[{k}]: node {old if old in replaced else new} was replaced before: a cycle")
            replaced.add(old)
        _steps(here, p, s, r)


def _steps(at: str, p: wire.Program, s: wire.Stage, r: wire.Recording) -> None:
    """Ids in range; and every edit lies in the text that it changes, so that stepping never leaves it."""
    x = s.steps
    if len(x) and len(s.frames):
        raise ValueError(f"{at}: it has {len(s.frames)} frames and {len(x)} steps; a stage has one of both")
    _ids(f"{at}.steps.rule", x.rule, len(r.rules))
    _ids(f"{at}.steps.decision", x.decision, len(p.decisions), none=True)
    _ids(f"{at}.steps.kernel", x.kernel, len(p.kernels), none=s.name not in ("loops", "emit"))
    _ids(f"{at}.steps.nodes", (n for row in x.nodes for n in row), len(p.nodes))
    _ids(f"{at}.edits.step", s.edits.step, len(x))
    lines: dict[int, int] = {}
    for k, made in enumerate(steps.edits(s)):
        of = x.kernel[k]
        size = lines.setdefault(of, len(steps.begin(p, s, of).text) if of >= 0 else 0)
        end = 0
        for e in made:
            if not (end <= e.at and e.gone >= 0 and e.at + e.gone <= size):
                raise ValueError(f"{at}.edits of step {k}: lines {e.at} to {e.at + e.gone} of {size}, behind line {end}")
            if len(e.nodes) not in (0, len(e.text)):
                raise ValueError(f"{at}.edits of step {k}: {len(e.text)} lines of text, {len(e.nodes)} of nodes")
            _ids(f"{at}.edits.nodes", (n for row in e.nodes for n in row), len(p.nodes))
            end = e.at + e.gone
        size = lines[of] = size + sum(len(e.text) - e.gone for e in made)
        for row in x.moved[k]:
            if len(row) != 3 or not 0 <= row[0] <= row[1] <= size or abs(row[2]) > MAX_INDENT:
                raise ValueError(f"{at}.steps.moved[{k}]: {row[:4]} is no [from, to, by] of a text of {size} lines")


def _kernel(at: str, k: wire.Kernel, nodes: int, lines: int) -> None:
    _ids(f"{at}.nodes", k.nodes, nodes)
    for name in ("loops", "scheduled", "source", "assembly"):
        code: wire.Code = getattr(k, name)
        if len(code.nodes) not in (0, len(code.text)) or len(code.link) not in (0, len(code.text)):
            raise ValueError(f"{at}.{name}: {len(code.text)} lines of text, {len(code.nodes)} of nodes, {len(code.link)} links")
        _ids(f"{at}.{name}.nodes", (n for row in code.nodes for n in row), nodes)
        _ids(f"{at}.{name}.link", code.link, len(k.scheduled.text), none=True)
    _ids(f"{at}.shares.line", k.shares.line, lines, none=True)
    _phases(f"{at}.shares.phase", k.shares.phase)
    if len(k.weights) not in (0, len(k.nodes)):
        raise ValueError(f"{at}.weights: {len(k.weights)} for {len(k.nodes)} nodes")
    if k.space is not None:
        _space(f"{at}.space", k.space)


def _space(at: str, s: wire.Space) -> None:
    for i, loop in enumerate(s.loops):
        _ids(f"{at}.loops[{i}].parent", [loop.parent], i, none=True)  # outer loops come first, so there is no cycle
        if loop.step < 1 or abs(loop.start) > MAX_EXTENT or abs(loop.stop) > MAX_EXTENT:
            raise ValueError(f"{at}.loops[{i}]: {loop.start}..{loop.stop} step {loop.step} is no loop")
    for i, o in enumerate(s.operands):
        if any(not 0 <= extent <= MAX_EXTENT for extent in o.shape):
            raise ValueError(f"{at}.operands[{i}]: {str(o.shape)[:60]} is no shape")
    for i, a in enumerate(s.accesses):
        _ids(f"{at}.accesses[{i}].operand", [a.operand], len(s.operands))
        _ids(f"{at}.accesses[{i}].loops", a.loops, len(s.loops))
        if len(a.index) != len(s.operands[a.operand].shape):
            raise ValueError(f"{at}.accesses[{i}]: {len(a.index)} indices for {len(s.operands[a.operand].shape)} axes")


def _layout(at: str, layout: wire.Layout, nodes: int) -> None:
    if len(layout.x) != len(layout.y) or len(layout.x) > nodes:
        raise ValueError(f"{at}: {len(layout.x)} x and {len(layout.y)} y for {nodes} nodes")
    for name in ("x", "y"):
        if any(v is not None and not 0 <= v <= MAX_SIDE for v in getattr(layout, name)):
            raise ValueError(f"{at}.{name}: a position is outside of 0 to {MAX_SIDE:.0e}")
    if not (0 <= layout.width <= 2 * MAX_SIDE and 0 <= layout.height <= 2 * MAX_SIDE):
        raise ValueError(f"{at}: a size of {layout.width:.3g} × {layout.height:.3g} cannot be drawn")
    for stub in layout.stubs:
        if len(stub) != 2:
            raise ValueError(f"{at}.stubs: {stub[:4]} is no pair of nodes")
        _ids(f"{at}.stubs", stub, nodes)


_FOLDED = ("median", "low", "high")


def _launches(at: str, p: wire.Program) -> None:
    for name in (*_FOLDED, "typical", "total"):
        size = len(getattr(p.launches, name))
        if size not in (0, len(p.calls)) or (name in _FOLDED and size != len(p.launches.median)):
            raise ValueError(f"{at}.{name}: {size} times for {len(p.calls)} calls")
    _times(f"{at}.gap", [p.launches.gap_median, p.launches.gap_low, p.launches.gap_high, p.launches.gap_total])
    _times(f"{at}.host", [getattr(p.launches, f"host_{name}") for name in (*_FOLDED, "typical", "total")])
    for name in (*_FOLDED, "typical", "total"):
        _times(f"{at}.{name}", getattr(p.launches, name))
    for i, run in enumerate(p.launches.runs):
        _times(f"{at}.runs[{i}]", [run.began, run.host_seconds, run.gap, *run.starts, *run.seconds])
        if len(run.seconds) not in (0, len(p.calls)) or len(run.starts) != len(run.seconds):
            raise ValueError(f"{at}.runs[{i}]: {len(run.starts)} starts and {len(run.seconds)} times for {len(p.calls)} calls")


def _times(at: str, values: Iterable[float | None]) -> None:
    for v in values:
        if v is not None and abs(v) > MAX_SECONDS:
            raise ValueError(f"{at}: {v:.3g} seconds are no time")


def _ids(at: str, values: Iterable[int], size: int, none: bool = False) -> None:
    low = -1 if none else 0
    for v in values:
        if not low <= v < size:
            raise ValueError(f"{at}: {v} is not one of the {size} that there are")
