"""The default schedule of contractions: matrix products of every layout, batched ones, convolutions, sums over an outer axis.

One recipe for all (Goto & van de Geijn 2008, without packing of the left operand): run one space loop `v` in the lanes of vectors, keep a
tile of results in registers, `mr` steps of a loop `m` along which the vector operand does not change, times `nv` vectors, and copy the
vector operand where it is not contiguous, is padded, or is too large for the cache. The tile fits when mr * nv + nv + 1 <= registers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from tinyengine.dependence import Access, accesses
from tinyengine.index import terms
from tinyengine.loopnest import Accumulate, Alloc, Let, Loop, Store, load_mask, stmt_exprs, subexprs, walk
from tinyengine.stages.schedule_cost import stride

if TYPE_CHECKING:
    from tinyengine.stages.schedule import Chooser

VECTORS = 4  # of a panel
MOST_ROWS = 12  # of a register tile: more only lengthen the code
PACK_ROWS = 32  # fewer rows than this do not pay for a copy of a contiguous operand
TRANSPOSE_ROWS = 8  # nor fewer than this for a transposed one
PAGE = 2048  # bytes between the elements of a column from which on each costs a page translation
MOST_CODE = 400  # statements, unrolled, of a tile with its tails: compile time counts too
PARALLEL_CYCLES = 12_000.0


@dataclass(frozen=True)
class Contraction:
    """`space`: the loops of the result from the outside in; `reduce`: those of the sum; `reads`: the accesses inside; `masked`: buffers
    that are read under a mask."""

    space: tuple[Loop, ...]
    reduce: tuple[Loop, ...]
    reads: tuple[Access, ...]
    stores: tuple[Access, ...]
    masked: frozenset[str]

    def depends(self, a: Access, loop: Loop) -> bool:
        return stride(a.buf, a.at, loop.name) != 0


def find(around: list[Loop]) -> Contraction | None:
    """The contraction that this nest is, or None."""
    inner = [b for b in around[-1].body if isinstance(b, Loop)]
    if len(inner) != 1 or not inner[0].reduce or any(s.reduce for s in around):
        return None
    if not any(isinstance(b, Alloc) and b.buf.space == "register" for b in around[-1].body):
        return None
    reduce = [inner[0]]
    while True:
        below = [b for b in reduce[-1].body if isinstance(b, Loop)]
        if not below:
            break
        if len(below) != 1 or not below[0].reduce or any(not isinstance(b, (Loop, Let)) for b in reduce[-1].body):
            return None
        reduce.append(below[0])
    body = reduce[-1].body
    if not any(isinstance(b, Accumulate) for b in body) or any(not isinstance(b, (Let, Accumulate)) for b in body):
        return None
    reads = tuple(a for a in accesses((reduce[0],)) if a.op == "read" and a.buf.space != "register")
    stores = tuple(a for a in accesses(tuple(b for b in around[-1].body if isinstance(b, Store))) if a.op == "write")
    masked = frozenset(
        x.arg.name for s in walk((reduce[0],)) if not isinstance(s, Loop) for e in stmt_exprs(s) for x in subexprs(e)
        if x.op == "load" and load_mask(x) is not None
    )  # fmt: skip
    return Contraction(tuple(around), tuple(reduce), reads, stores, masked) if reads and stores else None


def axis_of(a: Access, v: Loop) -> int | None:
    """The one axis of the buffer along which `v` moves by one element, or None."""
    found = None
    for axis, e in enumerate(a.at):
        for atom, c in terms(e)[0]:
            if any(x.op == "var" and x.arg[0] == v.name for x in subexprs(atom)):
                if found is not None or atom.op != "var" or c != 1:
                    return None
                found = axis
    return found


@dataclass
class Tile:
    """What was chosen: loops by name, sizes in iterations."""

    v: Loop
    m: Loop | None
    l: Loop | None
    batch: tuple[Loop, ...]
    nv: int  # vectors along v
    mr: int
    lr: int
    packs: dict[str, tuple[int, ...]]  # buffer -> order of its axes in the copy


def choose(c: Chooser, k: Contraction) -> Tile | None:
    """The loops and sizes of the register tile; None when lanes along a space loop do not pay."""
    best: tuple[float, Loop] | None = None
    rows_of: dict[str, Loop | None] = {}
    for v in k.space:
        vector = [a for a in k.reads if k.depends(a, v)]
        if not vector or v.trips < 2:
            continue
        rows = [m for m in k.space if m is not v and m.trips > 1 and not any(k.depends(a, m) for a in vector)]
        m = _rows(rows, [a for a in k.reads if a not in vector])
        rows_of[v.name] = m
        vectors = -(-v.trips // c.lanes)
        cost = vectors * c.lanes / v.trips  # lanes that idle
        for a in vector:
            s = stride(a.buf, a.at, v.name)
            if s == 1:
                continue
            if m is not None and m.trips >= TRANSPOSE_ROWS and axis_of(a, v) is not None and a.buf.space == "global":
                reuse = prod(x.trips for x in k.space if not k.depends(a, x))
                cost += 0.05 + 16.0 / reuse  # the transposing copy
            else:
                cost += c.lanes
        depth = prod(s.trips for s in k.reduce)
        for a in k.stores:
            if stride(a.buf, a.at, v.name) != 1:
                cost += 2.0 * c.lanes / depth + 0.2
        if best is None or cost < best[0]:
            best = (cost, v)
    if best is None:
        return None
    cost, v = best
    # the alternative: lanes along the sum, joined at the end
    dots = [r for r in k.reduce if all(stride(a.buf, a.at, r.name) in (0, 1) for a in k.reads)]
    if dots and cost > 1.0:
        r = max(dots, key=lambda s: s.trips)
        idle = -(-r.trips // c.lanes) * c.lanes / r.trips
        if idle + 1.0 + 16.0 * c.lanes / (r.trips * c.lanes) < cost:
            c.refuse(
                "register tile",
                v.name,
                f"lanes along the sum over {r.name} are cheaper",
                {"cost": cost, "cost_along_sum": idle + 1.0},
            )
            return None
    if cost > c.lanes:
        c.refuse("register tile", v.name, "no loop of the result runs along contiguous memory", {"cost": cost})
        return None
    m = rows_of[v.name]
    vector = [a for a in k.reads if k.depends(a, v)]
    others = [a for a in k.reads if not k.depends(a, v)]
    panels = -(-v.trips // (c.lanes * VECTORS))
    nv = -(-v.trips // (c.lanes * panels))
    if m is None:  # only a sum: long contiguous pieces of each row, and enough pieces for the threads
        nv = max(1, min(16, v.trips // (c.lanes * c.machine.threads)))
    l, lr = None, 1
    if (others and any(a.buf.name in k.masked for a in vector)) or (nv <= VECTORS // 2 and others):
        ls = [s for s in k.space if s not in (v, m) and s.trips > 1 and any(k.depends(a, s) for a in vector)
              and not any(k.depends(a, s) for a in others)]  # fmt: skip
        ls = [s for s in ls if any(_mixed(a, s, k) for a in vector)]
        if ls:
            l = ls[-1]
            lr = factor(l.trips, max(1, VECTORS // nv))
    whole = nv * lr
    mr = 1 if m is None else factor(m.trips, min(MOST_ROWS, (c.machine.vector_registers - 1 - whole) // whole))
    while mr > 2 and m is not None and code(k, v, m, c.lanes * nv, c.lanes, mr) * lr > MOST_CODE:
        mr -= 1
    packs: dict[str, tuple[int, ...]] = {}
    for a in k.reads:
        axis = axis_of(a, v)
        s = stride(a.buf, a.at, v.name)
        if m is None or a.buf.space != "global" or a.buf.name in c.kernel.outputs:
            continue
        masked = a.buf.name in k.masked
        natural = tuple(range(len(a.buf.shape)))
        if a not in vector:
            far = any(abs(stride(a.buf, a.at, r.name) or 0) * a.buf.dtype.itemsize >= PAGE for r in k.reduce)
            if masked or (far and stride(a.buf, a.at, m.name) == 1 and a.buf.nbytes > c.machine.l2_bytes // 2):
                packs[a.buf.name] = natural
        elif s == 1 and (masked or (m.trips >= PACK_ROWS and a.buf.nbytes > c.machine.l2_bytes // 2)):
            packs[a.buf.name] = natural
        elif s != 1 and axis is not None and m.trips >= TRANSPOSE_ROWS:
            packs[a.buf.name] = (*(x for x in natural if x != axis), axis)
    batch = tuple(s for s in k.space if s not in (v, m, l))
    return Tile(v, m, l, batch, nv, mr, lr, packs)


def code(k: Contraction, v: Loop, m: Loop, width: int, lanes: int, mr: int) -> int:
    """About how many statements the tile and its tails are, unrolled."""
    rows = mr + (m.trips % mr if m.trips > mr else 0)
    vectors = width // lanes + (-(-(v.trips % width) // lanes) if v.trips > width else 0)
    return rows * vectors * (len(k.space[-1].body) + 2)


def _rows(candidates: list[Loop], others: list[Access]) -> Loop | None:
    """The loop for the rows of the tile: long enough, and near in memory where the other operand is read."""
    enough = [s for s in candidates if s.trips >= 4] or candidates

    def distance(s: Loop) -> tuple[int, int]:
        steps = [abs(stride(a.buf, a.at, s.name) or 0) for a in others]
        return max(steps, default=0), -s.trips

    return min(enough, key=distance, default=None)


def _mixed(a: Access, s: Loop, k: Contraction) -> bool:
    """Whether `s` shares an axis of the buffer with a reduce loop: a sliding window."""
    names = {r.name for r in k.reduce}
    for e in a.at:
        here = {x.arg[0] for x in subexprs(e) if x.op == "var"}
        if s.name in here and here & names:
            return True
    return False


def factor(trips: int, most: int) -> int:
    """At most `most`; a divisor of `trips` if there is one not much smaller, so that there is no tail."""
    if trips <= most:
        return trips
    return next((f for f in range(most, max(1, most // 2), -1) if trips % f == 0), most)


def run(c: Chooser, around: list[Loop]) -> bool:
    """Schedule the nest if it is a contraction; False when it is not, or when lanes along the sum are better."""
    k = find(around)
    if k is None:
        return False
    t = choose(c, k)
    if t is None:
        return False
    start, count = c.kernel, len(c.decisions)
    if _apply(c, k, t):
        return True
    # one of the steps was refused: keep its Decision, go back, and leave the nest to the general plan
    c.kernel = start
    for i, d in enumerate(c.decisions[count:], count):
        if d.verdict != "refused":
            c.decisions[i] = replace(d, verdict="undone", reason="a later step of the register tile was not legal")
    return False


def _apply(c: Chooser, k: Contraction, t: Tile) -> bool:
    lanes, v, m, l = c.lanes, t.v.name, t.m.name if t.m else "", t.l.name if t.l else ""
    width = t.nv * lanes
    threads = c.machine.threads
    work = prod(s.trips for s in (*k.space, *k.reduce)) / lanes
    sizes = {"mr": t.mr, "nv": t.nv * t.lr, "lanes": lanes, "registers": t.mr * t.nv * t.lr + t.nv * t.lr + 1}
    many = work >= PARALLEL_CYCLES and threads > 1
    batch = [s.name for s in t.batch]
    panels = -(-t.v.trips // width)

    def do(text: str, kind: str, reason: str, numbers: Mapping[str, float] | None = None) -> bool:
        return c.do(text, kind, reason, numbers)

    fixed = [a.buf.name for a in k.reads if a.buf.name in t.packs and not k.depends(a, t.v) and a.buf.name not in k.masked]
    rows_packed = bool(fixed)  # the left operand, copied once for a piece of the rows
    # which loop goes to the threads
    where = ""
    chunk = 0
    if many:
        if batch and t.batch[0].trips >= threads:
            where = batch[0]
        elif l:
            where = l + "o"
        elif batch and t.batch[0].trips > 1:
            where = batch[0]
        elif (even(panels, threads) >= 0.9 and not rows_packed) or t.m is None or t.m.trips < 2 * threads:
            where = v + "o"
        else:
            pieces = threads * max(1, min(4, t.m.trips // (threads * t.mr * 4)))
            chunk = -(-t.m.trips // pieces)
            chunk = -(-chunk // t.mr) * t.mr if t.m.trips % chunk else chunk
            where = m + "o"
    if rows_packed and not chunk and not l and t.m is not None:
        chunk = t.m.trips
    if rows_packed:  # the copy of the rows and a panel of the other operand share the cache
        chunk = min(chunk, max(t.mr, c.machine.l2_bytes // 2 // (4 * prod(r.trips for r in k.reduce)) // t.mr * t.mr))
    # weights that are copied once serve several images
    shared = [n for n in t.packs if not any(k.depends(a, b) for a in k.reads if a.buf.name == n for b in t.batch)]
    if shared and batch and where == batch[0] and t.batch[0] is k.space[0]:
        images = t.batch[0].trips // (threads * 4)
        images = next((n for n in range(images, 1, -1) if t.batch[0].trips % n == 0), 1)
        if images > 1:
            if not do(f"tile({where}, {images})", "tile", "one copy of the weights serves several images", {"images": images}):
                return False
            where += "o"
            batch = [where, batch[0] + "i", *batch[1:]]
    order = [*batch, *([l] if l else []), *([x for x in ((m, v) if l or chunk else (v, m)) if x])]
    if order != [n for s in k.space for n in ((s.name + "o", s.name + "i") if s.name + "o" in batch else (s.name,))]:
        if not do(
            f"reorder({', '.join(order)})", "reorder", "panels outside, rows inside: the vector operand stays in the cache"
        ):
            return False
    rows = m
    if chunk:
        if not do(
            f"tile({m}, {chunk})",
            "tile",
            "a piece of the rows per ticket: there are too few panels",
            {"rows": chunk, "panels": panels},
        ):
            return False
        rows = m + "i"
        if not do(f"reorder({v}, {rows})", "reorder", "panels outside, rows inside"):
            return False
    li = ""
    if l:
        li = l + "i"
        inner = [x for x in (m, v) if x]
        if not do(f"tile({l}, {t.lr})", "tile", f"{t.lr} rows of the window share the weights", sizes):
            return False
        if not do(f"reorder({', '.join(inner)}, {li})", "reorder", "rows of one tile together"):
            return False
        if m:
            ok = do(f"tile({m}, {t.mr})", "tile", "rows of the register tile", sizes) and do(
                f"reorder({v}, {m}i, {li})", "reorder", "the register tile inside"
            )
            if not ok:
                return False
        if not do(f"tile({v}, {width})", "tile", "vectors of the register tile", sizes):
            return False
        inner = [*([m + "i"] if m else []), li, v + "i"]
    else:
        if not do(f"tile({v}, {width})", "tile", "a panel: vectors of the register tile", sizes):
            return False
        if m:
            ok = do(f"reorder({rows}, {v}i)", "reorder", "rows outside the panel's vectors") and do(
                f"tile({rows}, {t.mr})", "tile", "rows of the register tile: mr * nv + nv + 1 registers", sizes
            )
            if not ok:
                return False
        inner = [*([rows + "i"] if m else []), v + "i"]
    copies = _pack(c, t, k, l, v, batch, m + "o")
    scattered = [a for a in k.stores if stride(a.buf, a.at, v) != 1]
    tile_loop = (rows + "o") if m and not l else v + "o"
    for a in scattered:
        axis = axis_of(a, t.v)
        if axis is not None:
            order_of = (*(x for x in range(len(a.buf.shape)) if x != axis), axis)
            text = f"unpack({a.buf.name}, at={tile_loop}, axes={order_of})"
            do(text, "unpack", "vectors of results are not contiguous in the output: they go through a small tile")
    reduce = [s.name for s in k.reduce]
    if not do(
        f"reorder({', '.join([*reduce, *inner])})", "register tile", "results stay in registers during the whole sum", sizes
    ):
        return False
    if not do(
        f"vectorize({v}i, {vector_lanes(t.v.trips, width, lanes)})", "vectorize", "contiguous in the result", {"lanes": lanes}
    ):
        return False
    taps = [s for s in k.reduce if s.trips <= 5]
    if l and taps and taps[-1] is k.reduce[-1]:
        do(f"unroll({taps[-1].name})", "unroll", "a few taps: their addresses become constants", {"iterations": taps[-1].trips})
    for copy in copies:
        _copy(c, *copy)
    for a in scattered:
        _copy(c, a.buf.name, tuple(range(len(a.buf.shape))), False)
    if where:
        do(f"parallel({where})", "parallel", "independent", {"cycles": work, "threads": threads})
    elif threads > 1:
        c.refuse(
            "parallel", order[0], "too little work to wake a second thread", {"cycles": work, "least_cycles": PARALLEL_CYCLES}
        )
    return True


def vector_lanes(trips: int, width: int, lanes: int) -> int:
    """Narrower where even the longest piece does not fill a vector."""
    while lanes >= 2 * min(trips, width):
        lanes //= 2
    return max(2, lanes)


def even(pieces: int, threads: int) -> float:
    """The share of the threads' time that is used when they take `pieces` equal pieces."""
    return pieces / (-(-pieces // threads) * threads)


def _pack(
    c: Chooser, t: Tile, k: Contraction, l: str, v: str, batch: list[str], rows: str
) -> list[tuple[str, tuple[int, ...], bool]]:
    """Copies of the vector operand, with the order of their axes; those that were legal."""
    out = []
    for name, axes in t.packs.items():
        a = next(a for a in k.reads if a.buf.name == name)
        natural = tuple(range(len(axes)))
        at = v + "o"
        if name in k.masked:
            at = _window_place(c, t, k, a, at, l)
            at = at + "i" if at + "i" in batch else at
        elif not k.depends(a, t.v):
            at = rows
        elif batch and a.buf.nbytes <= c.machine.l2_bytes // 2:
            of = [n for n, b in zip(batch[-len(t.batch) :], t.batch, strict=True) if k.depends(a, b)]
            at = of[-1] if of else batch[0]
        elif l:
            at = l + "o"
        why = "padding becomes zeros in the copy: no masks in the loop" if name in k.masked else (
            "rows of the panel become neighbours: one stream, few pages" if axes == natural else "the copy is contiguous along the vectors"
        )  # fmt: skip
        order = "" if axes == natural else f", axes={axes}"
        if c.do(f"pack({name}, at={at}{order})", "pack", why, {"bytes": a.buf.nbytes, "rows": t.m.trips if t.m else 1}):
            out.append((name, axes, axes != natural))
    return out


def _window_place(c: Chooser, t: Tile, k: Contraction, a: Access, otherwise: str, l: str) -> str:
    """The loop in which a padded operand is copied: one image if that fits into half of the cache, else a strip of it."""
    images = [b for b in t.batch if not _mixed(a, b, k)]
    size = prod(n + 4 if i >= len(a.buf.shape) - 2 else n for i, n in enumerate(a.buf.shape))
    for b in images:
        if k.depends(a, b):
            size //= b.trips
    if images and size * a.buf.dtype.itemsize <= c.machine.l2_bytes // 2:
        return images[-1].name
    strips = [b.name for b in t.batch if _mixed(a, b, k)]
    return l + "o" if l else strips[-1] if strips else otherwise


def _copy(c: Chooser, name: str, axes: tuple[int, ...], transposed: bool) -> None:
    """Vectorize the loops of a copy; a transposing one goes in blocks of 16, so that lines of both sides are used whole."""
    made = {s.name: s for s in walk(c.kernel.body) if isinstance(s, Loop) and s.name.startswith(f"{name}_")}
    target = f"{name}_{axes[-1]}"
    if not transposed:
        if target in made:
            last = made[target]
            c.do(
                f"vectorize({target}, {vector_lanes(last.trips, last.trips, c.lanes)})",
                "vectorize",
                "a contiguous copy",
                {"iterations": last.trips},
            )
        return
    if target not in made:
        return
    after = [f"{name}_{x}" for x in range(axes[-1] + 1, len(axes)) if f"{name}_{x}" in made]
    if made[target].trips > c.lanes:
        if not c.do(f"tile({target}, {c.lanes})", "tile", "as many rows of the source at once as a line of the copy holds"):
            return
        target += "i"
    if c.do(f"reorder({', '.join([*after, target])})", "reorder", "along the rows of the source"):
        c.do(f"unroll({target})", "unroll", "whole lines of the copy")
