"""What `fuse` produces: groups (kernels to be), the scopes in which values are used, and the Fusion with its text."""

from __future__ import annotations

from dataclasses import dataclass, field

from tinyengine import hooks
from tinyengine.loopnest import Expr
from tinyengine.node import Graph, Node, Shape
from tinyengine.ops import SCAN, SCATTER


class Scope:
    """The loops around a use: their variables, from the kernel's own space inwards; `trips`: iterations in all;
    `contraction`: whether they run inside a matrix product or convolution."""

    __slots__ = ("contraction", "group", "loops", "trips")

    def __init__(self, group: Group, loops: tuple[Expr, ...], trips: int, contraction: bool = False) -> None:
        self.group, self.loops, self.trips, self.contraction = group, loops, trips, contraction


@dataclass(eq=False)
class Group:
    """One kernel to be. `space`: the extents it loops over, without those of 1. `outputs`: values it stores, all of that space;
    `also_stored`: values of `at` that are stored as well; `at`: value -> the axes of the space that are open where it
    is computed once; the rest of its own axes are a local row. `inlined`: the other values computed in it."""

    space: Shape
    outputs: list[Node] = field(default_factory=list)
    at: dict[Node, frozenset[int]] = field(default_factory=dict)
    also_stored: list[Node] = field(default_factory=list)
    inlined: list[Node] = field(default_factory=list)
    merged_into: Group | None = None
    rows: dict[Node, tuple[int, ...]] = field(default_factory=dict)  # value in `at` -> which of its axes are a local row
    at_axes: dict[Node, tuple[int, ...]] = field(
        default_factory=dict
    )  # value in `at` -> per axis of it the axis of the space (-1: row)
    products: list[Node] = field(default_factory=list)  # matrix products and convolutions in it

    @property
    def writes_by_data(self) -> bool:
        """Its stores go to addresses that depend on data: it shares no loops with other outputs."""
        return any(v.op in SCATTER for v in self.outputs)

    @property
    def scans(self) -> list[Node]:
        """The scans in it: they go along one axis of the space, in one direction."""
        return [v for v in (*self.outputs, *self.inlined) if v.op in SCAN]

    @property
    def scan(self) -> tuple[int, bool] | None:
        """The axis of the space along which it scans, and whether from the end."""
        for v in (*self.outputs, *self.inlined):  # asked for every edge: no calls
            if v.op in SCAN:
                return scan_axis(v)
        return None

    @property
    def order(self) -> tuple[int, ...]:
        """The axes of the space, outermost first: axes that more at-loop values need stand further out, that of a scan inside."""
        scan = self.scan
        sets = sorted(set(self.at.values()), key=len)
        rank = {a: next((i for i, s in enumerate(sets) if a in s), len(sets)) for a in range(len(self.space))}
        return tuple(sorted(range(len(self.space)), key=lambda a: (scan is not None and a == scan[0], rank[a], a)))

    def depth(self, value: Node) -> int:
        """How many loops of the space are open where `value` is computed."""
        return len(self.at[value])

    def place(self, value: Node) -> str:
        """Where `value` is computed once, in words."""
        axes = ", ".join(f"i{a}" for a in sorted(self.at[value]))
        return f"once per {axes}" if axes else "once, before the loops"

    @property
    def values(self) -> list[Node]:
        return [*self.outputs, *self.at, *self.inlined]


def scan_axis(n: Node) -> tuple[int, bool]:
    """(axis among those that are not 1, whether reversed) of a scan."""
    axis, reverse = n.arg
    return sum(d != 1 for d in n.shape[:axis]), reverse


def scan_apart(g: Group, axis: int, reverse: bool) -> str:
    """Why a scan along this axis of the space cannot run inside `g`; empty when it can."""
    if g.writes_by_data:
        return "it writes to addresses that depend on data"
    if g.products:
        return "a scan goes along its axis in order: a matrix product would get no register tile"
    if g.scan not in (None, (axis, reverse)):
        return "a kernel scans along one axis, in one direction"
    if any(axis in axes for axes in g.at.values()):
        return "a value is kept in a loop that would stand inside the scan's"
    return ""


@dataclass(frozen=True)
class Fusion:
    """`groups` in an order in which they can run; `stored`: value -> its group; `decisions`: one per edge producer -> consumer,
    and more; `readers`: value -> (consumer value, operand position), seen through views."""

    graph: Graph
    groups: tuple[Group, ...]
    stored: dict[Node, Group]
    decisions: tuple[hooks.Decision, ...]
    verdicts: dict[Node, str]
    readers: dict[Node, list[tuple[Node, int]]]

    def text(self) -> str:
        """Kernels with what they store and hold, then every edge with its verdict and reason."""
        num = self.graph.number
        count = len(self.groups)
        out = [f"{count} kernel" + "s" * (count != 1)]
        for i, g in enumerate(self.groups):
            held = ", ".join(f"%{num[v]} {v.op} ({g.place(v)})" for v in g.at)
            inl = ", ".join(f"%{num[v]} {v.op}" for v in sorted(g.inlined, key=num.__getitem__))
            stores = ", ".join(f"%{num[v]} {v.op}" for v in [*g.outputs, *g.also_stored])
            out.append(
                f"  kernel {i}: stores {stores} over {list(g.space)}"
                + (f"; keeps {held}" if held else "")
                + (f"; inlines {inl}" if inl else "")
            )
        for d in self.decisions:
            out.append("  " + decision_text(d))
        return "\n".join(out)

    __repr__ = text


def decision_text(d: hooks.Decision) -> str:
    """One decision as a line: subject, verdict, reason, numbers, and what was refused."""
    between = ", " if d.kind == "join" else " -> "  # kernels side by side are no edge
    subject = between.join(f"%{s}" if isinstance(s, int) else str(s) for s in d.subject)
    numbers = ", ".join(f"{k}={v:,.4g}" for k, v in d.numbers.items())
    refused = "; ".join(f"not {k}: {v}" for k, v in d.alternatives.items())
    return f"{subject}: {d.verdict}. {d.reason}" + (f" [{numbers}]" if numbers else "") + (f" ({refused})" if refused else "")
