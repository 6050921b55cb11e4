"""The rules of `simplify` for scans, and `split-long-scan`, which makes work for every core."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from tinyengine.dtypes import bool_, int32
from tinyengine.extent import Extent
from tinyengine.hooks import Decision
from tinyengine.machine import Machine
from tinyengine.node import Graph, Node, Shape, const
from tinyengine.ops import SCAN
from tinyengine.rules import Rule
from tinyengine.stages.rules.movement import view
from tinyengine.stages.rules.reduce import BUSY, PART_SIZE, PARTS_PER_CORE, SPLIT_SIZE, busy_share, reduced, unsplit

SCANS = tuple(sorted(SCAN))
_TOTAL = {"scan_add": "sum", "scan_max": "max", "scan_mul": "prod"}


def _one(n: Node) -> Node | None:
    return n.src[0] if n.shape[n.arg[0]] == 1 or n.size == 0 else None


def _turned(n: Node) -> Node | None:
    s = n.src[0]
    if not s.is_scan or s.src[0].op != "flip" or s.src[0].arg != n.arg or isinstance(n.shape[s.arg[0]], Extent):
        return None
    axis, reverse = s.arg
    return s._replace(src=s.src[0].src, arg=(axis, reverse != (axis in n.arg)))


RULES: tuple[Rule, ...] = (
    Rule("scan-unit-axis", "A single element is its own total.", SCANS, _one),
    Rule("scan-between-flips", "Turned around before and after, the totals are taken from the other end.", ("flip",), _turned),
)


def split_rule(graph: Graph, machine: Machine) -> tuple[Rule | None, Mapping[int, Decision]]:
    """The rule for this machine and graph, or None where it would not fire; and, by node number, a Decision for every scan with
    fewer rows than the cores could share: split, or not, and why."""
    wanted = PARTS_PER_CORE * machine.cores
    decisions: dict[int, Decision] = {}
    plans: dict[tuple[str, Shape, tuple[int, bool]], int] = {}
    for number, n in enumerate(graph.nodes):
        if not n.is_scan or n.size == 0:
            continue
        axis, extent = n.arg[0], n.shape[n.arg[0]]
        rows = _rows(n, machine)
        if rows >= wanted:
            continue
        busy = busy_share(rows, machine)
        parts = _parts(n, -(-wanted // rows)) if busy < BUSY and n.size >= SPLIT_SIZE and not isinstance(extent, Extent) else 0
        if parts:
            plans[n.op, n.shape, n.arg] = parts
            verdict, reason = f"split in {parts}", (
                f"{rows} row{'s' * (rows > 1)} would keep {busy:.0%} of {machine.cores} cores busy; the totals of {parts} parts"
                f" along axis {axis} are taken first, and every part begins with those before it"
            )  # fmt: skip
            other = {"one scan": "it would run on few of the cores"}
        else:
            verdict = "one scan"
            reason = unsplit(machine, rows, "rows", n.size, "the axis does not divide")
            other = {"split": reason}
        numbers = {"elements": float(n.size), "rows": float(rows), "cores": float(machine.cores), "parts": float(parts)}
        decisions[number] = Decision("simplify", "split-scan", (number,), verdict, reason, numbers, other)

    def build(n: Node) -> Node | None:
        parts = plans.get((n.op, n.shape, n.arg))
        return _split(n, parts) if parts else None

    reason = "Totals are taken in another order: those of whole parts first, which the cores share."
    return Rule("split-long-scan", reason, SCANS, build) if plans else None, decisions


def _rows(n: Node, machine: Machine) -> int:
    """Pieces of work that need nothing of each other: rows, or, where the axis is not the last, vectors of neighbouring rows."""
    axis = n.arg[0]
    inside = prod(map(int, n.shape[axis + 1 :]))
    return prod(map(int, n.shape[:axis])) * -(-inside // max(1, machine.vector_bytes // n.dtype.itemsize))


def _parts(n: Node, least: int) -> int:
    """The fewest parts, at least `least`, into which the axis divides; 0 where there are none of a good size."""
    extent = n.shape[n.arg[0]]
    most = min(extent, n.size // PART_SIZE, 64 * least)
    return next((p for p in range(least, most + 1) if extent % p == 0), 0)


def _split(n: Node, parts: int) -> Node:
    """n as a scan of every part, combined with what a scan of the parts' totals says was before it."""
    (x,), (axis, reverse) = n.src, n.arg
    shape = (*x.shape[:axis], parts, x.shape[axis] // parts, *x.shape[axis + 1 :])
    inside = view("reshape", x, shape)
    total = reduced(_TOTAL[n.op], inside, (axis + 1,))
    stored = Node("contiguous", n.dtype, total.shape, (total,), None, ())
    totals = Node(n.op, n.dtype, total.shape, (stored,), (axis, reverse), ())
    # shifted by one part: the first has nothing before it
    kept = tuple([(int(reverse), 1) if a == axis else (0, 1) for a in range(len(shape))])
    others = view("slice", totals, (*total.shape[:axis], parts - 1, *total.shape[axis + 1 :]), kept)
    ends = (0, 1, 0) if reverse else (1, 0, 0)
    before = view("pad", others, total.shape, tuple([ends if a == axis else (0, 0, 0) for a in range(len(shape))]))
    nothing = {"scan_add": 0, "scan_max": n.dtype.min, "scan_mul": 1}[n.op]
    if nothing:
        place = Node("iota", int32, total.shape, (), axis, ())
        first = Node("eq", bool_, total.shape, (place, const(parts - 1 if reverse else 0, int32, total.shape)), None, ())
        before = Node("where", n.dtype, total.shape, (first, const(nothing, n.dtype, total.shape), before), None, ())
    own = Node(n.op, n.dtype, shape, (inside,), (axis + 1, reverse), ())
    whole = Node(SCAN[n.op], n.dtype, shape, (own, view("expand", before, shape)), None, ())
    return view("reshape", whole, n.shape)
