"""`split-scatter`, the rule of `simplify` that gives every core a table of its own to scatter to."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from tinyengine.dtypes import bool_, int32
from tinyengine.extent import symbolic
from tinyengine.hooks import Decision
from tinyengine.machine import Machine
from tinyengine.node import Graph, Node, const
from tinyengine.ops import SCATTER, TOTALS
from tinyengine.rules import Rule
from tinyengine.stages.rules.movement import view
from tinyengine.stages.rules.reduce import BUSY, between, busy_share

MOST = 8  # tables; each is filled and read once more
STEP_CYCLES = 6.0  # for one value, or one vector of neighbours, that is added at its place
REASON = "What is scattered is combined in another order: in tables of the cores, then as one."


def split_rule(graph: Graph, machine: Machine) -> tuple[Rule | None, Mapping[int, Decision]]:
    """The rule for this machine and graph, or None where it would not fire; and, by node number, a Decision for every scatter
    whose rows are too few for the cores: split, or not, and what both cost."""
    decisions: dict[int, Decision] = {}
    chosen = set[Node]()
    tables = min(machine.cores, MOST)
    for number, n in enumerate(graph.nodes):
        if n.op not in TOTALS or symbolic((*n.shape, *n.src[2].shape)) or machine.cores < 2:
            continue
        values, rows = n.src[2], _rows(n)
        busy = busy_share(rows, machine)
        if busy >= BUSY:
            continue
        row, lanes = prod(values.shape[n.arg + 1 :]), max(1, machine.vector_bytes // n.dtype.itemsize)
        steps = values.size / row * -(-row // lanes) if row > 1 else values.size
        saved = steps * STEP_CYCLES / machine.clock * (1 - 1 / tables)
        added = 2 * tables * n.nbytes / machine.bandwidth + 2 * machine.launch_seconds
        split = values.shape[n.arg] >= tables and added < saved
        if split:
            chosen.add(n)
        reason = f"{rows} row{'s' * (rows > 1)} would keep {busy:.0%} of {machine.cores} cores busy"
        if not split:
            reason = f"filling and adding up {tables} tables would take longer than sharing the values saves"
        verdict, other = (f"split in {tables}", "one scatter") if split else ("one scatter", "split")
        numbers = {"values": float(values.size), "places": float(n.size), "seconds_saved": saved, "seconds_added": added}
        decisions[number] = Decision("simplify", "split-scatter", (number,), verdict, reason, numbers, {other: reason})

    known = {(n.op, n.shape, n.src[2].shape, n.arg) for n in chosen}

    def build(n: Node) -> Node | None:
        return _split(n, tables) if (n.op, n.shape, n.src[2].shape, n.arg) in known else None

    return Rule("split-scatter", REASON, TOTALS, build) if chosen else None, decisions


def _rows(n: Node) -> int:
    """Pieces of work that need nothing of each other: along the axes in front of the one that data chooses."""
    table, values = n.shape[: n.arg], n.src[2].shape[: n.arg]
    return int(prod(table)) if table == values else 1


def _split(n: Node, tables: int) -> Node:
    """n as scatters of parts of the values into tables of their own, the first of which begins with the base; what is left over
    after equal parts comes last."""
    base, index, values = n.src
    axis, extent = n.arg, values.shape[n.arg]
    whole = extent - extent % tables
    shape = (tables, *n.shape)

    def parts(x: Node) -> Node:
        x = between(x, axis, 0, whole)
        cut = (*x.shape[:axis], tables, whole // tables, *x.shape[axis + 1 :])
        order = (axis, *(a for a in range(len(cut)) if a != axis))
        return view("permute", view("reshape", x, cut), tuple([cut[a] for a in order]), order)

    # added to -0.0 every float stays what it is
    unit = {"scatter_add": -0.0 if n.dtype.is_float else 0, "scatter_max": n.dtype.min, "scatter_mul": 1}[n.op]
    nothing = const(unit, n.dtype, shape)
    number = Node("iota", int32, shape, (), 0, ())
    first = Node("eq", bool_, shape, (number, const(0, int32, shape)), None, ())
    start = Node("where", n.dtype, shape, (first, view("expand", view("reshape", base, (1, *n.shape)), shape), nothing), None, ())
    scattered = Node(n.op, n.dtype, shape, (start, parts(index), parts(values)), axis + 1, ())
    out = view("reshape", between(scattered, 0, 0, 1), n.shape)
    for k in range(1, tables):
        more = view("reshape", between(scattered, 0, k, k + 1), n.shape)
        out = Node(SCATTER[n.op], n.dtype, n.shape, (out, more), None, ())
    if whole == extent:
        return out
    return n._replace(src=(out, between(index, axis, whole, extent), between(values, axis, whole, extent)), origin=())
