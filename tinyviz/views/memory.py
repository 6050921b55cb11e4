"""memory: which buffers are alive when, where in the arena do they stand, and who holds the peak?"""

from __future__ import annotations

from itertools import accumulate

from tinyviz import texts, units
from tinyviz.svg import LINE, Svg, css, cut
from tinyviz.viewdata import Buffer, Holder, MemoryData
from tinyviz.views import base, choose
from tinyviz.views.lines import where
from tinyviz.wire import PHASES, Program, Recomputed, Recording, Selection, Slot

NAME = "memory"
HOWTO = (
    "The picture is the arena: calls of the program from left to right, addresses upwards; a box is a buffer from its first call"
    " to its last.",
    "The steps above it add up what is alive at each call; ▼ marks the peak. Boxes that share addresses never share a call.",
    "Given memory (inputs, state, outputs) stays for the whole run and is listed below. All of it is known before anything runs.",
)
ROLES = ("input", "state", "output", "temporary")


def data(r: Recording, program: int | None = None, selection: Selection | None = None) -> MemoryData:
    at = choose(r, program, selection)
    p = r.programs[at]
    live = alive(p)
    peak = max(range(len(live)), key=lambda c: (live[c], -c)) if any(live) else -1
    buffers = [_buffer(p, i, peak) for i in range(len(p.slots))]
    given = sum(s.nbytes for s in p.slots if s.role != "temporary") if p.slots else None
    arena = p.arena_bytes if p.slots else None
    return MemoryData(
        **base(NAME, f"Memory: {p.name}", HOWTO, PHASES, at), buffers=buffers, live=live, peak_call=peak, given_bytes=given,
        arena_bytes=arena, arena_live=max(live) if live else None,
        peak_bytes=None if given is None or arena is None else given + arena, peak_measured=p.peak_bytes,
        holders=holders(r, p, buffers),
    )  # fmt: skip


def span(p: Program, s: Slot) -> tuple[int, int]:
    """(first, last) call of a buffer, within the program; last < first: no call touches it."""
    return (max(s.first, 0), min(s.last, len(p.calls) - 1)) if s.last >= 0 else (0, -1)


def alive(p: Program) -> list[int]:
    """By call: bytes of the temporaries that are alive."""
    change = [0] * (len(p.calls) + 1)
    for s in p.slots:
        first, last = span(p, s)
        if s.role == "temporary" and first <= last:
            change[first] += s.nbytes
            change[last + 1] -= s.nbytes
    return list(accumulate(change[:-1])) if p.slots else []


def _buffer(p: Program, i: int, peak: int) -> Buffer:
    s = p.slots[i]
    first, last = span(p, s)
    made = s.role in ("temporary", "output") and first <= last
    n = s.node
    lines = p.nodes.lines[n] if n >= 0 else []
    return Buffer(
        i, p.nodes.phase[n] if n >= 0 else "host", p.calls[first].kernel if made else -1, lines[0] if lines else -1,
        p.nodes.module[n] if n >= 0 else "", s.role != "temporary" or first <= peak <= last,
    )  # fmt: skip


def holders(r: Recording, p: Program, buffers: list[Buffer]) -> list[Holder]:
    """What is alive at the peak, by role, kernel, line and module: each way adds up to all of it, largest first."""
    here = [b for b in buffers if b.at_peak]
    total = sum(p.slots[b.slot].nbytes for b in here)
    out: list[Holder] = []
    for by in ("role", "kernel", "line", "module"):
        found: dict[tuple[str, int], Holder] = {}
        for b in here:
            key = _holder(r, p, b, by)
            h = found.setdefault(key, Holder(by, *key, 0, 0, None))
            h.buffers += 1
            h.nbytes += p.slots[b.slot].nbytes
        for h in found.values():
            h.share = h.nbytes / total if total else None
        out += sorted(found.values(), key=lambda h: (-h.nbytes, h.name))
    return out


def _holder(r: Recording, p: Program, b: Buffer, by: str) -> tuple[str, int]:
    if by == "role":
        return p.slots[b.slot].role, -1
    if by == "kernel":
        return (p.kernels[b.kernel].name, b.kernel) if b.kernel >= 0 else ("given: made by no kernel of this program", -1)
    if by == "line":
        return (where(r, b.line), b.line) if b.line >= 0 else ("of no known line", -1)
    return b.module or "outside of modules", -1


def code(r: Recording, h: Holder) -> str:
    """What a line says; nothing of other holders."""
    return cut(r.lines.text[h.id].strip(), 60) if h.by == "line" and h.id >= 0 else ""


def figures(d: MemoryData) -> list[tuple[str, int | None]]:
    gaps = None if d.arena_bytes is None or d.arena_live is None else d.arena_bytes - d.arena_live
    return [
        ("peak, predicted", d.peak_bytes), ("peak, counted", d.peak_measured), ("given", d.given_bytes),
        ("arena", d.arena_bytes), ("of it alive at the peak", d.arena_live), ("of it gaps at the peak", gaps),
    ]  # fmt: skip


def text(r: Recording, d: MemoryData) -> str:
    p = r.programs[d.program]
    out = [texts.heading(d.title, d.howto) + texts.table(["", "bytes"], [[n, units.nbytes(v)] for n, v in figures(d)], (1,))]
    if not d.buffers:
        return "\n\n".join([*out, "no memory plan was recorded"])
    if d.peak_call >= 0:
        name = p.kernels[p.calls[d.peak_call].kernel].name
        out[0] += f"\nthe peak is at call {d.peak_call}, {name}"
    rows = []
    for i, x in enumerate(d.live):
        bar = texts.bar(x / max(d.live), 30) if max(d.live) else ""
        rows.append([str(i), p.kernels[p.calls[i].kernel].name, units.nbytes(x), bar + (" ◄ peak" if i == d.peak_call else "")])
    out.append("alive in the arena at each call\n" + texts.table(["#", "kernel", "alive", ""], rows, (0, 2)))
    rows = []
    for b in sorted(d.buffers, key=lambda b: (ROLES.index(p.slots[b.slot].role) if p.slots[b.slot].role in ROLES else 9, b.slot)):
        s = p.slots[b.slot]
        first, last = span(p, s)
        calls = f"{first}–{last}" if first <= last else units.MISSING
        offset = units.MISSING if s.offset is None else str(s.offset)
        line = where(r, b.line) if b.line >= 0 else units.MISSING
        peak = "yes" if b.at_peak else ""
        shape = f"{s.dtype}{units.shape(s.shape)}"
        rows.append([s.role, s.name, shape, units.nbytes(s.nbytes), offset, calls, peak, line, b.module or units.MISSING])
    head = ["role", "buffer", "type", "bytes", "offset", "calls", "at peak", "line", "module"]
    out.append("buffers\n" + texts.table(head, rows, (3, 4, 5)))
    out.append(again_text(p))
    for by in ("role", "kernel", "line", "module"):
        mine = [h for h in d.holders if h.by == by]
        rows = [[h.name, str(h.buffers), units.nbytes(h.nbytes), units.percent(h.share)] for h in mine]
        head = [by, "buffers", "bytes", "share"]
        if by == "line":
            head, rows = [*head, "code"], [[*row, code(r, h)] for row, h in zip(rows, mine, strict=True)]
        out.append(f"alive at the peak, by {by}\n" + texts.table(head, rows, (1, 2, 3)))
    return "\n\n".join(out)


def again_text(p: Program) -> str:
    """Which activations could be computed again instead of being kept, and what that would change, where somebody asked."""
    offered = [s for s in p.slots if s.again]
    if not offered:
        return f"computed again instead of kept: {units.MISSING} there is no stored activation that the gradient reads"
    rows = [[s.name, units.nbytes(s.nbytes), s.kept or f"rec.recompute({s.name!r}) says what it would change"] for s in offered]
    table = texts.table(["buffer", "bytes", "computed again instead of kept?"], rows, (1,))
    out = ["activations that the gradient reads\n" + table]
    for x in p.recomputed:
        out.append(f"{', '.join(p.slots[i].name for i in x.slots)} computed again instead of kept\n" + outcome_text(x))
    return "\n\n".join(out)


def outcome(x: Recomputed) -> list[tuple[str, str, str, str]]:
    """(what, as it is, computed again, remark) in words."""
    counted = (units.nbytes(x.counted_before), units.nbytes(x.counted))
    d = x.difference
    noise = ": inside the noise" if d.low <= 0 <= d.high else ""
    half = f"median of {d.runs} pairs of runs; half of them {units.change(d.low)} to {units.change(d.high)}{noise}"
    ulp = "a NaN on one side" if x.ulp is None else f"{x.ulp:g} ulp"
    saved = units.change(x.peak - x.peak_before, "bytes")
    return [
        ("peak memory, predicted", units.nbytes(x.peak_before), units.nbytes(x.peak), saved),
        ("peak memory, counted", *counted, "" if x.counted is not None else "counting would take long"),
        ("time, predicted", units.seconds(x.seconds_predicted_before), units.seconds(x.seconds_predicted),
         units.change(x.seconds_predicted - x.seconds_predicted_before)),
        ("time, measured", units.seconds(x.before.seconds), units.seconds(x.after.seconds), f"{units.change(d.seconds)}, {half}"),
        ("kernels", str(x.kernels_before), str(x.kernels), ""),
        ("FLOPs", units.count(x.flops_before), units.count(x.flops), ""),
        ("largest difference", "", ulp, f"of {x.result}" if x.result else "the results are equal, bit by bit"),
        *(("stays", name, "", why) for name, why in x.refused.items()),
    ]  # fmt: skip


def outcome_text(x: Recomputed) -> str:
    table = texts.table(["", "as it is", "computed again", ""], outcome(x), (1, 2))
    return "\n".join([table, *(f"to keep it: {pin}" for pin in x.pins)])


LEFT, WIDE, STEPS, ARENA = 84.0, 880.0, 64.0, 240.0


def svg(r: Recording, d: MemoryData) -> str:
    p = r.programs[d.program]
    out = Svg(1000, d.title, d.howto, d.legend)
    out.y += LINE
    for i, (name, value) in enumerate(figures(d)):
        out.text(12 + 164 * i, out.y, name, "faint")
        out.text(12 + 164 * i, out.y + LINE, units.nbytes(value), "bold")
    out.y += 2 * LINE + 8
    if not d.buffers:
        out.text(12, out.y + LINE, f"{units.MISSING} no memory plan was recorded", "faint")
        return str(out)
    if d.arena_bytes and d.live:
        _arena(out, p, d)
    else:
        out.text(12, out.y + LINE, "no temporaries: nothing is in the arena", "faint")
        out.y += LINE
    out.y += 14
    _holders(out, r, d)
    for x in p.recomputed:
        out.y = out.height + LINE
        out.text(12, out.y, cut(f"{', '.join(p.slots[i].name for i in x.slots)} computed again instead of kept", 120), "bold")
        for name, was, now, remark in outcome(x):
            out.y += LINE
            out.text(12, out.y, name, "faint")
            out.text(300, out.y, was, "mono end")
            out.text(420, out.y, now, "mono end")
            out.text(434, out.y, cut(remark, 90), "faint")
    return str(out)


def _arena(out: Svg, p: Program, d: MemoryData) -> None:
    arena, calls, top = d.arena_bytes or 1, len(d.live), out.y + 14.0
    step = WIDE / calls
    out.text(12, top + 12, "alive", "bold")
    out.text(12, top + 12 + LINE, units.nbytes(d.arena_live), "faint")
    floor = top + STEPS
    way = f"M{LEFT:.1f} {floor:.1f}"
    for c, size in enumerate(d.live):
        way += f"V{floor - (STEPS - 6) * size / arena:.1f}H{LEFT + step * (c + 1):.1f}"
    out.path(way + f"V{floor:.1f}", "edge")
    middle = LEFT + step * (d.peak_call + 0.5)
    out.text(middle, top + 2, "▼ peak", "bold mid" if LEFT + 30 < middle < LEFT + WIDE - 30 else "bold")
    top = floor + 10
    out.rect(LEFT, top, WIDE, ARENA, "raised")
    out.text(12, top + 12, "arena", "bold")
    out.text(12, top + 12 + LINE, units.nbytes(arena), "faint")
    for b in d.buffers:
        s = p.slots[b.slot]
        first, last = span(p, s)
        if s.offset is None or first > last:
            continue
        high = min(max(ARENA * s.nbytes / arena, 1.0), ARENA)
        low = min(max(ARENA * s.offset / arena, 0.0), ARENA - high)
        x, y, width = LEFT + step * first, top + ARENA - low - high, step * (last - first + 1)
        tip = f"{s.name}: {units.nbytes(s.nbytes)} at {s.offset}, calls {first} to {last}"
        out.rect(x + 0.5, y + 0.5, max(width - 1, 0.5), max(high - 1, 0.5), f"box {css(b.category)}", rx=2, tip=tip)
        if high > 15 and width > 44:
            mark = {c.name: c.mark for c in d.legend}.get(b.category, "")
            out.text(x + 5, y + min(high / 2 + 4, 16), cut(f"{mark} {s.name} {units.nbytes(s.nbytes)}", int(width / 7.2)))
    out.path(f"M{middle:.1f} {floor - STEPS + 6:.1f}V{top + ARENA:.1f}", "edge", dash="4 3")
    out.y = top + ARENA
    every = max(1, -(-calls // 20))
    out.y += LINE
    for c in range(0, calls, every):
        out.text(LEFT + step * (c + 0.5), out.y, str(c), "faint mono mid")
    out.text(12, out.y, "call", "faint")


def _holders(out: Svg, r: Recording, d: MemoryData) -> None:
    """What is alive at the peak, in four short columns."""
    out.text(12, out.y + LINE, "alive at the peak", "bold")
    top = out.y + LINE
    for i, by in enumerate(("role", "kernel", "line", "module")):
        x, y = 12 + 246.0 * i, top + LINE
        out.text(x, y, f"by {by}", "faint")
        mine = [h for h in d.holders if h.by == by]
        for h in mine[:8]:
            y += LINE
            out.text(x, y, cut(h.name, 17), tip=h.name)
            out.text(x + 226, y, f"{units.nbytes(h.nbytes)}  {units.percent(h.share)}", "mono end")
            if line := code(r, h):
                y += LINE
                out.text(x + 10, y, cut(line, 30), "faint mono", tip=line)
        if len(mine) > 8:
            out.text(x, y + LINE, f"… and {len(mine) - 8} more", "faint")
