"""The arena before and after a step of stage plan, drawn; extension/src/parts/arenasteps.ts does the same on the page."""

from __future__ import annotations

from tinyviz import units
from tinyviz.svg import Svg, css, cut
from tinyviz.wire import Program

WIDE, HIGH, APART = 440.0, 150.0, 476.0


def draw(out: Svg, p: Program, stage: int, step: int) -> None:
    """Both beside each other: calls from left to right, addresses downwards. What is placed stays where it is."""
    top = out.y + 8
    _side(out, p, stage, step, "before", 14.0, top, -1)
    _side(out, p, stage, step + 1, "after", 14.0 + APART, top, step)


def _side(out: Svg, p: Program, stage: int, count: int, title: str, left: float, top: float, fresh: int) -> None:
    """The first `count` steps; `fresh`: the one that has just been done."""
    decisions = [p.decisions[d] if d >= 0 else None for d in p.stages[stage].steps.decision]
    arena, calls = max(p.arena_bytes or 0, 1), max(len(p.calls), 1)
    placed = [(k, d) for k, d in enumerate(decisions[:count]) if d is not None and d.kind == "place"]
    used = max((d.numbers["offset"] + d.numbers["bytes"] for _, d in placed), default=0)
    note = f"{len(placed)} placed, {units.nbytes(used)} of {units.nbytes(arena)}" if placed else "nothing is placed yet"
    out.text(left, top + 12, f"arena {title}: {note}", "bold")
    floor = top + 20
    out.rect(left, floor, WIDE, HIGH, "raised")
    now = decisions[fresh] if fresh >= 0 else None
    if now is not None and now.kind == "order":
        out.rect(left + WIDE * now.numbers["call"] / calls, floor, WIDE / calls, HIGH, f"line {css('new')}")
    for k, d in placed:
        first, last = d.numbers["first"], d.numbers["last"]
        x, y = left + WIDE * first / calls, floor + HIGH * d.numbers["offset"] / arena
        width, high = max(WIDE * (last + 1 - first) / calls, 2.0), max(HIGH * d.numbers["bytes"] / arena, 2.0)
        node = d.nodes[0] if d.nodes else -1
        name = d.subject if node < 0 else f"#{node} {p.nodes.op[node]}"
        tip = f"{name}: {units.nbytes(d.numbers['bytes'])} at {d.numbers['offset']:.0f}, calls {first:.0f} to {last:.0f}"
        kind = f"box {css('new' if k == fresh else 'host')}"
        out.rect(x + 0.5, y + 0.5, max(width - 1, 1), max(high - 1, 1), kind, rx=2, tip=tip)
        if width > 54 and high > 13:
            out.text(x + 4, y + min(high / 2 + 4, 16), cut(f"{'+ ' if k == fresh else ''}{name}", int(width / 7.2)))
    out.text(left, floor + HIGH + 14, "call 0", "faint mono")
    out.text(left + WIDE, floor + HIGH + 14, f"call {calls - 1}", "faint mono end")
    out.y = floor + HIGH + 18
