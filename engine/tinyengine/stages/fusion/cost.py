"""The predicted price of each verdict of `fuse`, from bytes, arithmetic and the machine's peaks.

A value is judged before its operands are, so what stands below it is priced as computed, down to what certainly is in memory:
buffers, reductions, and values of which several others are computed and below which a matrix product stands. A product is not
computed twice, so that such a value is stored, or kept in the one kernel that needs it, whatever its readers are told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tinyengine import units
from tinyengine.index import divisions
from tinyengine.node import Graph, Node
from tinyengine.ops import ELEMENTWISE, REDUCE
from tinyengine.stages.fusion import across
from tinyengine.stages.fusion.blocks import below_in_rows, in_rows, operand_row, operand_seconds, products_in, uses_of
from tinyengine.stages.fusion.blocks import seconds as block_seconds
from tinyengine.stages.fusion.groups import Group, scan_apart, scan_axis
from tinyengine.stages.values import is_contraction, repeated

if TYPE_CHECKING:
    from tinyengine.machine import Machine
    from tinyengine.stages.fuse import Fuser

# arithmetic instructions per element after expansion (stages/arithmetic/expand.py)
WORK = {
    "exp": 12,
    "exp2": 10,
    "log": 14,
    "sin": 16,
    "tanh": 14,
    "erf": 16,
    "div": 4,
    "reciprocal": 4,
    "sqrt": 4,
    "threefry": 90,
    "floordiv": 8,
    "mod": 8,
}
EFFICIENCY_TILED = 0.8  # of the FMA peak: a matrix product in a register tile
EFFICIENCY_ROW = 0.12  # computed row by row, its operand streamed again for each row
EFFICIENCY_PLAIN = 0.25  # vectorised elementwise arithmetic and reductions
EFFICIENCY_ALONE = 0.03  # element by element
FLOPS_PER_LANE, HERTZ = 4, 4e9  # two FMA units
CORE_BANDWIDTH = 40e9  # bytes/s of one core for what other kernels left behind, in part still in the last cache
BEYOND = 2.0  # times as long for a value that is larger than the last cache
LAUNCH = 0.5e-6  # seconds of one kernel inside a running program
LOCAL_SPEEDUP = 8.0  # bandwidth of a cache-resident row against memory
POSITION_WORK = 8.0  # operations per element that are cheaper than reading it back
SHARED_ELEMENTS = 1 << 15  # a kernel with as many results is worth several threads
BRANCH_LIMIT = 24  # nodes looked at below a value


@dataclass(frozen=True, slots=True)
class Option:
    seconds: float
    reason: str
    refused: str = ""


def beside(o: Option, chosen: Option | None) -> str:
    """Why `o` was not taken, next to what was."""
    if chosen is None:
        return o.reason
    mine, theirs = (units.seconds(x.seconds) for x in (o, chosen))
    if mine == theirs:
        return f"no faster ({mine} predicted for both), and keeps more: {o.reason}"
    return f"predicted {mine} against {theirs}: {o.reason}"


TURNS = "the loop along memory would stand outside the others, which then walk down columns"


class Costs:
    """Prices of the options of one value. All in seconds on `machine`; relative size is what matters."""

    def __init__(self, graph: Graph, machine: Machine) -> None:
        # nominal peaks from the facts that are part of every cache key, so that a new measurement never changes a decision
        self.machine = machine
        self.flops = machine.cores * machine.vector_bytes / 4 * FLOPS_PER_LANE * HERTZ
        self.bandwidth = machine.cores * CORE_BANDWIDTH
        self.launch = LAUNCH
        self.row_limit = machine.l2_bytes // 4
        self._contractions: dict[Node, bool] = {}
        self._repeated = repeated(graph.nodes)
        self._work: dict[Node, float] = {}
        self._leaves: dict[Node, dict[Node, int]] = {}
        self.anyway: frozenset[Node] = frozenset()  # values that are taken to be stored; see `expect`

    def expect(self, readers: Mapping[Node, Iterable[tuple[Node, int]]]) -> None:
        """Learn which values are stored anyway: two read them at least, and a matrix product is below them."""
        several = [n for n, who in readers.items() if n.op in ELEMENTWISE and len({r for r, _ in who}) > 1]
        self.anyway = frozenset(n for n in several if self.products_below(n))
        self._leaves = {}

    def is_contraction(self, n: Node) -> bool:
        if n not in self._contractions:
            self._contractions[n] = is_contraction(n, self._repeated)
        return self._contractions[n]

    def work(self, n: Node) -> float:
        """Arithmetic per element of n when everything elementwise below it is inlined; reductions below it cost nothing here, nor
        does what is stored anyway."""
        if n not in self._work:
            below = 0.0
            if n.op in ELEMENTWISE or n.is_movement:
                below = sum(0.0 if s.is_reduce or s in self.anyway else self.work(s) for s in n.src)
            own = WORK.get(n.op, 1.0 if n.op in ELEMENTWISE else 0.0)
            if n.op in ("pad", "place"):
                own = 2.0
            if n.is_scan:
                below, own = self.work(n.src[0]), 1.0
            if n.is_reduce:
                extent = n.src[0].size / max(n.size, 1)
                below, own = extent * (1.0 + (0.0 if n.src[0] in self.anyway else self.work(n.src[0]))), 0.0
            self._work[n] = own + below
        return self._work[n]

    def leaves(self, n: Node) -> dict[Node, int]:
        """What computing n reads: leaf -> bytes. Reductions below it are leaves, and so is what is stored anyway or asked for."""
        if n not in self._leaves:
            out: dict[Node, int] = {}
            for s in n.src:
                if s.op in ("buffer", "gather", "contiguous") or s.is_reduce or s.is_scan or s in self.anyway:
                    out[s] = s.nbytes
                elif s.op not in ("const", "iota", "size"):
                    for leaf, size in self.leaves(s).items():
                        out[leaf] = size
                if len(out) > BRANCH_LIMIT:
                    break
            self._leaves[n] = out
        return self._leaves[n]

    def products_below(self, n: Node) -> list[Node]:
        """The matrix products and convolutions of which n could be the epilogue."""
        return [] if n.is_reduce else [m for m in self.leaves(n) if m.size == n.size and self.is_contraction(m)]

    def gathers(self, n: Node) -> bool:
        """Whether each element of n is read at an address that depends on data."""
        return n.op == "gather" or any(m.op == "gather" and m.size == n.size for m in self.leaves(n))

    def compute(self, n: Node, evaluations: float, efficiency: float) -> float:
        return evaluations * self.work(n) / (self.flops * efficiency)

    def options(self, n: Node, fuser: Fuser, groups: list[Group]) -> dict[str, Option]:
        """Every verdict with its price, or why it is refused."""
        bw = self.bandwidth
        evaluations, size, nbytes = fuser.evaluations(n), n.size, n.nbytes
        leaf_bytes = sum(self.leaves(n).values())
        contraction = self.is_contraction(n)
        own = EFFICIENCY_TILED if contraction else EFFICIENCY_PLAIN
        uses = len(fuser.uses[n])
        out: dict[str, Option] = {}

        # a product below n becomes an epilogue when n is stored at its own index, and must itself be stored when n is inlined
        # elsewhere
        below = self.products_below(n)
        elsewhere = [
            m
            for m in below
            if len(fuser.readers[m]) == 1
            and any(at != fuser.own_index(n, fuser.find(s.group)) for s, at in fuser.uses[n])
            and not below_in_rows(fuser, n, m)
        ]
        stored_below = sum(m.nbytes for m in elsewhere) / bw + self.launch * len(elsewhere)
        leaf_bytes -= sum(m.nbytes for m in below)

        whole = self.compute(n, size, own) + leaf_bytes / bw + self.stored(nbytes) * (1 + len(groups)) + self.launch
        out["whole"] = Option(whole, f"stored once ({units.nbytes(nbytes)}) and read by {units.some(len(groups), 'kernel')}")

        busy = [g for g in groups if contraction and g.products and n not in g.products]
        apart = next((why for g in busy if (why := in_rows(fuser, n, g))), "")
        if contraction and busy and (apart or evaluations > size):
            out["inline"] = Option(0, "", apart or f"the product would run {_many(evaluations / max(size, 1))} times per result")
        elif n.is_scan and (alone := _scanned_apart(fuser, n, groups)):
            out["inline"] = Option(0, "", alone)
        elif beside := next((x for g in groups if (x := self.beside_scan(n, g))), ""):
            out["inline"] = Option(0, "", beside)
        elif self.gathers(n) and any(g.products for g in groups):
            out["inline"] = Option(0, "", "the check of its data-dependent addresses would stand between the loops of a product")
        elif n.is_reduce and evaluations > size and self.work(n) > 8:
            out["inline"] = Option(0, "", f"the reduction would run {_many(evaluations / max(size, 1))} times per result")
        elif uses >= fuser.MAX_USES:
            out["inline"] = Option(0, "", "it is used in too many different ways")
        else:
            efficiency, blocks = own, 0.0
            if contraction:
                tiled = evaluations <= size and not any(in_rows(fuser, n, g) for g in groups)
                at_own_index = all(at == fuser.own_index(n, fuser.find(s.group)) for s, at in fuser.uses[n])
                efficiency = EFFICIENCY_TILED if tiled or at_own_index else EFFICIENCY_ROW
                if not at_own_index:
                    blocks = sum(block_seconds(fuser, n, at, g) for g in groups for at in uses_of(fuser, n, g))
            divided = n.op in REDUCE and not contraction and any(divisions(e) for _, at in fuser.uses[n] for e in at)
            if divided:
                efficiency = EFFICIENCY_ALONE
            seconds = self.compute(n, evaluations, efficiency) / self._parallel(n, groups, None) + leaf_bytes * len(groups) / bw
            seconds += stored_below + blocks + sum(m.nbytes for m in elsewhere) * len(groups) / bw
            lanes = sum(across.seconds(fuser, g, across.uses(fuser, n, g)) for g in groups) if n.is_reduce else 0.0
            seconds += lanes
            if lanes:
                reason = across.WHY
            elif evaluations <= size:
                reason = "each element is used once, so nothing is computed twice"
                reason += "; but its place is found by divisions, which leaves no vectors" if divided else ""
            else:
                reason = f"cheaper to compute {_many(evaluations / max(size, 1))} times{self._out_of(n, fuser)} than to store"
            out["inline"] = Option(seconds, reason)

        if not out["inline"].refused and not n.is_reduce and not self.leaves(n) and self.work(n) <= POSITION_WORK:
            why = "it follows from the position alone in a few operations: there is nothing to keep"
            return {"inline": Option(0, why), "whole": Option(0, "", why), "at loop": Option(0, "", why)}
        if len(groups) != 1:
            out["at loop"] = Option(0, "", f"{len(groups)} kernels use it" + self._again(n, fuser, len(groups)))
        else:
            out["at loop"] = self._at_loop(n, fuser, groups[0], leaf_bytes, apart, evaluations, stored_below)
        if _widens(n) and not out["inline"].refused:
            out["whole"] = out["at loop"] = Option(0, "", "it only widens a value: the narrower one is what is worth keeping")
        return out

    def _out_of(self, n: Node, fuser: Fuser) -> str:
        """What n is computed from and is taken to be stored anyway, in words; empty where there is nothing."""
        there = [f"%{fuser.graph.number[m]}" for m in self.leaves(n) if m in self.anyway]
        return f" from {' and '.join(there)}, taken to be stored anyway," if there else ""

    def _again(self, n: Node, fuser: Fuser, kernels: int) -> str:
        """Of a value that a matrix product gives, such as the scores of attention, for several kernels: what its bytes cost, and
        what the arithmetic would, if each kernel computed it for itself. In words, and empty where no product is below it."""
        below = products_in(fuser, n)
        if not below or self.is_contraction(n):
            return ""
        flops = max(2.0 * m.src[0].size for m in below)  # at least one of them
        arithmetic = (kernels - 1) * (flops / (self.flops * EFFICIENCY_TILED) + self.compute(n, n.size, EFFICIENCY_PLAIN))
        moved = self.stored(n.nbytes) * (1 + kernels)
        verdict = "more than" if arithmetic > moved else "which is not done, although that is less than"
        return (
            f": computed again in {kernels - 1} of them it is at least {units.seconds(arithmetic)} of arithmetic, {verdict} the"
            f" {units.seconds(moved)} of its {units.nbytes(n.nbytes)} stored once and read {units.some(kernels, 'time')}"
        )

    def _at_loop(self, n: Node, fuser: Fuser, g: Group, leaf_bytes: float, apart: str, evaluations: int, below: float) -> Option:
        axes, row, why = fuser.at_loop(n, g)
        row_bytes = row * n.dtype.itemsize
        contraction = self.is_contraction(n)
        if n.is_scan:
            return Option(0, "", "each of its elements needs the one before it, which only the loop along its axis has")
        if axes is None:
            return Option(0, "", why)
        if apart:
            return Option(0, "", apart)
        operand = any(s.contraction for s, _ in fuser.uses[n])
        if not n.is_reduce and evaluations <= n.size:
            return Option(0, "", "each element is used once: there is nothing to keep")
        if operand and (why := operand_row(fuser, n, g)):
            return Option(0, "", why)
        if not axes and self._elements(g) >= SHARED_ELEMENTS:
            return Option(0, "", "it would stand in front of all loops, which only one thread could then run")
        if row_bytes > self.row_limit:
            most = units.nbytes(self.row_limit)
            return Option(0, "", f"its row of {units.nbytes(row_bytes)} does not fit in a quarter of L2 ({most})")
        points = 1
        for a in axes:
            points *= g.space[a]
        everywhere = len(axes) == len(g.space)  # inner loops around a product leave no register tile
        tiled = contraction and ((row == 1 and everywhere) or not in_rows(fuser, n, g))
        efficiency = (EFFICIENCY_TILED if tiled else EFFICIENCY_ROW) if contraction else EFFICIENCY_PLAIN
        blocks = operand_seconds(fuser, n, g) if operand else 0.0
        if contraction and row > 1:
            blocks += sum(block_seconds(fuser, n, at, g) for at in uses_of(fuser, n, g))
        local = row_bytes * points * (1 + len(fuser.uses[n])) / (self.bandwidth * LOCAL_SPEEDUP) if row > 1 else 0.0
        seconds = (
            self.compute(n, points * row, efficiency) / self._parallel(n, [g], points)
            + leaf_bytes / self.bandwidth
            + local
            + below
            + blocks
        )
        if n.is_reduce and everywhere and (lanes := across.seconds(fuser, g, across.uses(fuser, n, g))):
            return Option(seconds + lanes, across.WHY)
        if row == 1 and self.turns(n, g, axes):
            turned = 2 * self._elements(g) * n.dtype.itemsize / self.bandwidth
            return Option(seconds + turned, TURNS)
        what = "kept in a register" if row == 1 else f"kept as a row of {units.nbytes(row_bytes)} in cache"
        once = f"computed once per iteration of the outer loops{self._out_of(n, fuser)} and {what}"
        return Option(seconds, f"{once}; {units.nbytes(n.nbytes)} never reach memory")

    def turns(self, n: Node, g: Group, axes: frozenset[int]) -> bool:
        """Whether keeping `n`, of which no part is a sum, in the loops of `axes` would alone turn the loops of g around: the
        last axis outside of others."""
        last = len(g.space) - 1
        outside = [a for a in (axes, *g.at.values()) if last in a and len(a) <= last]
        summed = n.is_reduce or any(m.is_reduce for m in self.leaves(n))
        return last in axes and len(outside) == 1 and not g.products and not summed

    def beside_scan(self, n: Node, g: Group) -> str:
        """Why `n` should not be computed by a kernel that scans; empty where it may, or g does not scan."""
        if g.scan is None:
            return ""
        if self.is_contraction(n):
            return "a scan goes along its axis in order: the product would get no register tile"
        rows = self._elements(g) // max(1, g.space[g.scan[0]])
        if n.is_reduce and rows < self.machine.cores and n.src[0].size >= SHARED_ELEMENTS:
            return f"the scan has {rows} row{'s' * (rows > 1)}: the reduction would run on as many cores"
        return ""

    def stored(self, nbytes: int) -> float:
        """Seconds to write a value to memory, or to read it."""
        return nbytes / self.bandwidth * (BEYOND if nbytes > self.machine.l3_bytes else 1.0)

    def _elements(self, g: Group) -> int:
        """How often the innermost body of the group runs, reductions left out."""
        points = 1
        for d in g.space:
            points *= d
        return points

    def _parallel(self, n: Node, groups: list[Group], points: int | None) -> float:
        """The share of the machine that computes n: one core's where there are fewer points than cores."""
        worst = 1.0
        for g in groups:
            p = points
            if p is None:
                p = 1
                for d in g.space:
                    p *= d
            worst = min(worst, min(p, self.machine.cores) / self.machine.cores)
        return max(worst, 1.0 / self.machine.cores)


def _many(x: float) -> str:
    """A number of times, never as a power of ten."""
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def _scanned_apart(fuser: Fuser, n: Node, groups: list[Group]) -> str:
    """Why the scan `n` cannot be computed by the kernel that uses it; empty when it can."""
    if len(groups) != 1:
        return f"{len(groups)} kernels use it: each would go along the whole axis"
    (g,) = groups
    if any(s.contraction or at != fuser.own_index(n, g) for s, at in fuser.uses[n]):
        return "its elements are used in another order than that in which they come"
    return scan_apart(g, *scan_axis(n))


def _widens(n: Node) -> bool:
    """Whether n is a float of one or two bytes as a wider one: an instruction or two."""
    return n.op == "cast" and n.dtype.is_float and n.src[0].dtype.is_float and n.src[0].dtype.itemsize <= 2 < n.dtype.itemsize
