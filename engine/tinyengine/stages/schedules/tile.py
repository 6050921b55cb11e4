"""The register tile of a contraction as primitives: panels for threads, copies for the cache, rows and vectors for registers."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm, prod
from typing import TYPE_CHECKING

from tinyengine.dependence import Access, accesses
from tinyengine.dtypes import bfloat16
from tinyengine.loopnest import Loop
from tinyengine.stages.arithmetic.affine import NEAR
from tinyengine.stages.primitives.nest import fresh_buffer, loops
from tinyengine.stages.primitives.pack import LOCAL_BYTES
from tinyengine.stages.schedules import ahead
from tinyengine.stages.schedules.cost import LINE, stride
from tinyengine.stages.schedules.lanes import PARALLEL_CYCLES
from tinyengine.stages.schedules.product import Contraction, axis_of, depends, last, variables

if TYPE_CHECKING:
    from tinyengine.stages.schedule import Chooser

PACK_ROWS = 32  # fewer rows than this do not pay for a copy of a contiguous operand that is larger than the cache
PACK_ROWS_NEAR = 128  # the same where it is not, but its rows are far apart: they compete for a few sets of the first cache
DOT_ROWS = 6  # fewer rows than this do not pay for a copy in pairs
LONG_AFTER = 8  # statements after a sum: more are not written out for every register
CONVERSIONS = 4  # tiles that read a half from which on it is converted once for all of them
EVEN = 0.9  # the share of the threads' time from which on panels are what they share
PACK_COST = 4  # a copy of a panel takes about as long as the products of this many rows with it
PAGE = 2048  # bytes between the elements of a column from which on each costs a page translation
TAPS = 5  # a reduce loop of at most this many iterations is unrolled in a window
KEPT = 8  # registers for elements of a row that the taps of a window share, where they are written out
SHORT_ROW = 6  # vectors of an image's row up to which the masks at its ends cost nothing
MOST_MASKS = 16  # vectors of a row whose copy is written out
CHAIN = 64  # terms from which on a sum in one register is several
AHEAD_ROWS = 8  # of a panel that are fetched while as many are copied


@dataclass
class Tile:
    """Loops and sizes in iterations: `nv` vectors along `v`, `mr` steps of `m`, `lr` of `l`, rows of an image."""

    v: Loop
    m: Loop | None
    l: Loop | None
    batch: tuple[Loop, ...]
    nv: int
    mr: int
    lr: int


@dataclass
class Copy:
    """An operand to pack: the order of its axes, why, and the dtype of the copy where it is another one."""

    a: Access
    axes: tuple[int, ...]
    why: str
    dtype: str = ""

    @property
    def transposed(self) -> bool:
        return self.axes != tuple(range(len(self.axes)))


def factor(trips: int, most: int) -> int:
    """At most `most`; a divisor of `trips` if there is one not much smaller, so that there is no tail."""
    if trips <= most:
        return trips
    return next((f for f in range(most, max(1, most // 2), -1) if trips % f == 0), most)


def even(trips: int, nv: int, lanes: int, threads: int) -> float:
    """The share of the threads' time that is used when they take panels of `nv` vectors, the last one of what is left."""
    full, rest = divmod(trips, nv * lanes)
    tail = -(-rest // lanes)
    longest = full // threads * nv + (nv if full % threads else tail)
    return (full * nv + tail) / (longest * threads)


def piece(trips: int, mr: int, threads: int, again: int) -> int:
    """Rows per ticket, whole tiles: the sizes for which the threads are done soonest. `again`: what every piece
    does once, in rows."""

    def rows(size: int) -> int:
        each, rest = divmod(trips, size)
        more = size if each % threads else rest
        return each // threads * (size + again) + (more + again if more else 0)

    sizes = {-(-trips // n // mr) * mr for n in range(threads, max(threads, min(4 * threads, trips // (4 * mr))) + 1)}
    return min(sizes, key=lambda size: (rows(size), size))


def vector_lanes(trips: int, lanes: int) -> int:
    """Narrower where `trips` iterations do not fill half a vector."""
    while lanes >= 2 * trips:
        lanes //= 2
    return max(2, lanes)


def no_dots(c: Chooser, k: Contraction, t: Tile) -> str:
    """Why the machine's dot product does not serve this contraction of bfloat16, in words; empty when it does."""
    if c.machine.dots != "bfloat16":
        return "the machine has no dot product of bfloat16: products are float32"
    if len(k.reduce) != 1 or k.masked or t.l is not None:
        return "windows and padding: the terms are no pairs of neighbours"
    if k.reduce[0].trips % 2:
        return f"{k.reduce[0].trips} terms do not come in pairs"
    if t.m is None or t.m.trips < DOT_ROWS:
        return "too few rows to pay for a copy in pairs"
    return ""


def masks_vary(c: Chooser, k: Contraction, t: Tile) -> bool:
    """Whether the masks of a padded window are worked out again and again: where the taps are not written out, or the rows of the
    image are long. Of short rows with few taps they are constants, and cheaper than a copy."""
    return k.reduce[-1].trips > TAPS or t.v.trips > SHORT_ROW * c.lanes


def copies(c: Chooser, k: Contraction, t: Tile, dots: bool = False) -> dict[tuple[object, ...], Copy]:
    """The operands that are worth a copy, by buffer and index: a product of a matrix with itself may want two. `dots`: pairs of
    terms will be read together."""
    out: dict[tuple[object, ...], Copy] = {}
    half = c.machine.l2_bytes // 2
    each = {s.name: s.trips for s in (*k.space, *k.reduce) if s not in t.batch}
    for a in k.reads:
        if a.buf.space != "global" or a.buf.name in c.kernel.outputs:
            continue
        natural = tuple(range(len(a.buf.shape)))
        along = axis_of(a, k.reduce[0])
        if dots and depends(a, t.v) and stride(a.buf, a.at, t.v.name) == 1:
            out[a.buf.name, a.at] = Copy(a, natural, "pairs of terms lie together")
            continue
        if dots and not depends(a, t.v) and along is not None and stride(a.buf, a.at, k.reduce[0].name) != 1:
            out[a.buf.name, a.at] = Copy(a, last(a, along), "pairs of terms lie together")
            continue
        axis, step, masked = axis_of(a, t.v), stride(a.buf, a.at, t.v.name), a.buf.name in k.masked
        if not dots and converts(k, t, a, c.lanes) and step in (0, 1):
            out[a.buf.name, a.at] = Copy(a, natural, "converted once, not for each product", "float32")
            continue
        if t.m is None and not (t.l is not None and masks_vary(c, k, t)):
            continue  # without rows, nothing is read often enough
        if masked and step is not None and 0 <= step <= NEAR:
            out[a.buf.name, a.at] = Copy(a, natural, "padding becomes zeros in the copy: no masks in the loop")
        elif t.m is None:
            continue
        elif step == 0:
            far = any(abs(stride(a.buf, a.at, r.name) or 0) * a.buf.dtype.itemsize >= PAGE for r in k.reduce)
            if far and stride(a.buf, a.at, t.m.name) == 1 and k.footprint(a, each) > half:
                out[a.buf.name, a.at] = Copy(a, natural, "a piece of the rows: its columns are pages apart")
        elif step is not None and 1 <= step <= NEAR:
            far = any(abs(stride(a.buf, a.at, r.name) or 0) * a.buf.dtype.itemsize >= PAGE for r in k.reduce)
            least = PACK_ROWS if k.footprint(a, each) > half else PACK_ROWS_NEAR if far else t.m.trips + 1
            if t.m.trips >= least:
                out[a.buf.name, a.at] = Copy(a, natural, "rows of the panel become neighbours: one stream, few pages")
        elif axis is not None:
            out[a.buf.name, a.at] = Copy(a, last(a, axis), "the copy is contiguous along the vectors")
    panels = any(depends(x.a, t.v) for x in out.values()) and not dots and not k.masked
    for key, x in out.items():
        along = axis_of(x.a, k.reduce[0])
        if panels and along is not None and not (depends(x.a, t.v) or x.dtype or x.transposed):
            why = "rows of the copy lie along the sum: one for many panels, which are copied again for each piece"
            out[key] = Copy(x.a, last(x.a, along), why)
    return out


def converts(k: Contraction, t: Tile, a: Access, lanes: int) -> bool:
    """Whether floats of fewer bytes are read by enough tiles that a copy in float32 is worth its stores."""
    if not a.buf.dtype.is_float or a.buf.dtype.itemsize >= 4 or t.l is not None or t.batch or k.masked:
        return False
    if t.m is None or t.m.trips < PACK_ROWS:
        return False
    tiles = t.m.trips // t.mr if depends(a, t.v) else t.v.trips // (t.nv * lanes)
    return tiles >= CONVERSIONS


def shared_taps(k: Contraction, t: Tile) -> bool:
    """Whether the taps of a window share elements that stand in registers: the rows of the tile are neighbours in the image."""
    return t.m is not None and any(k.window(a, t.m) for a in k.reads if not depends(a, t.v))


def room_for_taps(c: Chooser) -> bool:
    """Whether there are registers for what the taps share beside the tile."""
    return c.machine.vector_registers > 2 * KEPT


def within_panels(c: Chooser, k: Contraction, v: Loop, m: Loop | None, batch: tuple[Loop, ...]) -> tuple[Loop, ...]:
    """The loops of `batch` that go inside the panels: those on which an operand that is copied does not depend, where the copy is
    too large to be made for each of their iterations."""
    whole = {s.name: s.trips for s in (*k.space, *k.reduce)}
    for a in k.reads if m is not None else ():
        shared = tuple(s for s in batch if not depends(a, s) and s.trips > 1)
        if shared and depends(a, v) and stride(a.buf, a.at, v.name) != 1 and axis_of(a, v) is not None:
            each = {n: 1 if any(s.name == n for s in batch) else trips for n, trips in whole.items()}
            if k.footprint(a, each) > c.machine.l2_bytes // 2:
                return shared
    return ()


def run(c: Chooser, k: Contraction, t: Tile) -> bool:
    """Apply the tile; False when a step was not legal."""
    return _Applier(c, k, t).run()


class _Applier:
    def __init__(self, c: Chooser, k: Contraction, t: Tile) -> None:
        self.c, self.k, self.t = c, k, t
        self.dots = False
        if all(a.buf.dtype is bfloat16 for a in k.reads):
            why = no_dots(c, k, t)
            self.dots = not why
            if why:
                c.refuse("dot", k.reduce[-1].name, why)
        self.copies = copies(c, k, t, self.dots)
        if t.m is None and t.l is not None and not masks_vary(c, k, t):
            for name in sorted(k.masked):
                c.refuse("pack", name, "few taps and short rows: the masks are constants, and cheaper than a copy")
        self.width = t.nv * c.lanes
        self.sizes = {"mr": t.mr, "nv": t.nv * t.lr, "lanes": c.lanes, "registers": t.mr * t.nv * t.lr + t.nv * t.lr + 1}
        self.window = any(k.window(a, s) for a in k.reads for s in k.space)
        self.v, self.m, self.l = t.v.name, t.m.name if t.m else "", t.l.name if t.l else ""
        self.batch = [s.name for s in t.batch]
        self.order = [s.name for s in k.space]
        self.rows = self.m  # the loop that the register tile splits
        self.piece = 0  # rows of an image that are copied together
        self.chunk = 0  # rows per ticket, where rows are what the threads share
        self.threaded = ""
        shared = within_panels(c, k, t.v, t.m, t.batch)
        self.shared, self.outer = [s.name for s in shared], [s.name for s in t.batch if s not in shared]
        self.outside = bool(shared)
        self.far = bool(t.m is not None and self.l and not self.outside and self._far())
        self.work = prod(s.trips for s in (*k.space, *k.reduce)) / c.lanes

    def do(self, text: str, kind: str, reason: str) -> bool:
        return self.c.do(text, kind, reason, self.sizes)

    def arrange(self, names: list[str], reason: str) -> bool:
        """Bring the space loops into this order."""
        if names == self.order:
            return True
        self.order = names
        return self.do(f"reorder({', '.join(names)})", "reorder", reason)

    def run(self) -> bool:
        self._threads()
        if not self._share_weights():
            return False
        done = self._image() if self.l else self._panels()
        if not done:
            return False
        inner = [*([self.rows + "i"] if self.m else []), *([self.l + "i"] if self.l else []), self.v + "i"]
        packed = self._pack()
        scattered = self._unpack()
        if self.dots:
            self.do(f"dot({self.k.reduce[0].name})", "dot", "two products and two sums in one instruction, added up in float32")
        reduce = [s.name for s in self.k.reduce]
        if not self.do(f"reorder({', '.join([*reduce, *inner])})", "register tile", "results stay in registers during the sum"):
            return False
        lanes = vector_lanes(min(self.t.v.trips, self.width), self.c.lanes)
        if not self.do(f"vectorize({self.v}i, {lanes})", "vectorize", "the operand, or its copy, is contiguous along it"):
            return False
        for tap in self.k.reduce[-1:] if self.m else self.k.reduce[-2:]:
            if self.window and 1 < tap.trips <= TAPS and shared_taps(self.k, self.t) and not room_for_taps(self.c):
                why = f"{KEPT} registers for what the taps share would be too many of {self.c.machine.vector_registers}"
                self.c.refuse("unroll", tap.name, why, self.sizes)
            elif self.window and tap.trips <= TAPS:
                self.do(f"unroll({tap.name})", "unroll", "a few taps: their addresses become constants")
        if not (self.m or self.l or self.window) and self.t.nv == 1 and len(reduce) == 1 and self.k.reduce[0].trips >= CHAIN:
            self.do(f"accumulate({reduce[0]}, 4)", "accumulate", "one chain of additions would wait for each result")
        if self.m and self.k.after - 2 > LONG_AFTER:
            why = "what follows the sum is long: its code is written once for each row"
            for acc in self.k.accumulators:
                self.do(f"spill({acc}, at={inner[0]})", "spill", why)
        for name, x in packed:
            copy_loops(self.c, name, x.axes, x.transposed, x.a.buf.name in self.k.masked)
        if self.m and not self.l and not self.k.masked:
            rows_ahead(self.c, self.k, self.t, self.rows + "o", self.k.reduce[-1].name)
            for name, x in packed:
                if depends(x.a, self.t.v) and not x.transposed:
                    panel_ahead(self.c, self.k, x.a, name)
        for a in scattered:
            turned_back(self.c, a.buf.name, axis_of(a, self.t.v))
        if self.window and len(reduce) > 1 and not self.c.within:
            images = [b.name for b in self.t.batch if not any(self.k.window(a, b) for a in self.k.reads)]
            ahead.run(self.c, self.k, reduce[0], (*images, *(n + "i" for n in images)))
        parallel(self.c, self.threaded, self.order[0], self.work)
        return True

    def _threads(self) -> None:
        """Which loop goes to the threads: whole batches, else panels if they come out even, else pieces of the rows."""
        t, threads = self.t, self.c.machine.threads
        tall = any(not depends(x.a, t.v) and x.a.buf.name not in self.k.masked for x in self.copies.values())
        if self.work < PARALLEL_CYCLES or threads < 2:
            pass
        elif self.outside:
            good = [s.name for s in t.batch if s.name in self.outer and s.trips % threads == 0]
            self.threaded = good[0] if good else self.v + "o"
            self.outer.sort(key=lambda n: n != self.threaded)
        elif self.batch and (t.batch[0].trips >= threads or (t.batch[0].trips > 1 and not self.l)):
            self.threaded = self.batch[0]
        elif self.l:
            self.threaded = self.l + "o"
        elif t.m is None or t.m.trips < 2 * threads or (even(t.v.trips, t.nv, self.c.lanes, threads) >= EVEN and not tall):
            self.threaded = self.v + "o"
        else:
            self.chunk = piece(t.m.trips, t.mr, threads, PACK_COST if self.copies else 0)
            self.threaded = self.m + "o"
        if tall and not self.l and t.m is not None:
            # rows along the sum are read as they lie, from the last cache; else copy and panel share the second one
            turned = all(x.transposed for x in self.copies.values() if not depends(x.a, t.v))
            room = min(self.c.machine.l3_bytes // threads // 4, LOCAL_BYTES) if turned else self.c.machine.l2_bytes // 2
            whole = lcm(t.mr, self.c.lanes) if turned else t.mr  # tiles, and blocks to turn
            fit = room // (4 * prod(r.trips for r in self.k.reduce)) // whole * whole
            self.chunk = min(self.chunk or t.m.trips, max(t.mr, fit))

    def _share_weights(self) -> bool:
        """Several images per ticket, where a copy serves them all; all images where there are no tickets."""
        t, threads = self.t, self.c.machine.threads
        shared = any(not any(depends(x.a, b) for b in t.batch) for x in self.copies.values())
        alone = not self.threaded and not self.outside
        if not (shared and self.batch and (alone or self.threaded == self.batch[0])):
            return True
        trips = t.batch[0].trips
        most = trips if alone else trips // (threads * 4)
        images = next((n for n in range(most, 1, -1) if trips % n == 0), 1)
        if images == 1:
            return True
        first = self.batch[0]
        if not self.do(f"tile({first}, {images})", "tile", "one copy of the weights serves several images"):
            return False
        self.threaded = first + "o" if self.threaded else ""
        self.batch = [first + "o", first + "i", *self.batch[1:]]
        at = self.order.index(first)
        self.order[at : at + 1] = [first + "o", first + "i"]
        return True

    def _image(self) -> bool:
        """batch, rows of the image, rows of the tile, vectors."""
        l, m, v = self.l, self.m, self.v
        li = l + "i"
        if self.outside:
            return (
                self.arrange([*self._around(), v, *self.shared, l, m], "panels outside, images inside: one copy of the weights")
                and self.do(f"tile({v}, {self.width})", "tile", "a panel: vectors of the register tile")
                and self.do(f"reorder({', '.join([*self.shared, l, m, v + 'i'])})", "reorder", "images inside a panel")
                and self.do(f"tile({l}, {self.t.lr})", "tile", "rows of the image that share the weights")
                and self.do(f"reorder({m}, {li}, {v}i)", "reorder", "rows of one tile together")
                and self.do(f"tile({m}, {self.t.mr})", "tile", "rows of the register tile")
            )
        inner = [x for x in (m, v) if x]
        if self.far:
            return (
                self.arrange([*self.batch, l, v, m], "panels outside, rows inside: a copy serves all rows")
                and self.do(f"tile({v}, {self.width})", "tile", "a panel: vectors of the register tile")
                and self.do(f"tile({l}, {self.t.lr})", "tile", "rows of the image that share the weights")
                and self.do(f"reorder({v}o, {m}, {li}, {v}i)", "reorder", "rows of one tile together")
                and self.do(f"tile({m}, {self.t.mr})", "tile", "rows of the register tile")
            )
        if not self.arrange([*self.batch, l, *inner], "rows of the image outside, weights inside"):
            return False
        self.piece = self._piece()
        if self.piece:
            if not self.do(f"tile({l}, {self.piece})", "tile", "a piece of the image: its padded copy stays in the cache"):
                return False
            l = self.l = l + "i"
            li = l + "i"
        return (
            self.do(f"tile({l}, {self.t.lr})", "tile", "rows of the image that share the weights")
            and self.do(f"reorder({', '.join([*inner, li])})", "reorder", "rows of one tile together")
            and (not m or self.do(f"tile({m}, {self.t.mr})", "tile", "rows of the register tile"))
            and (not m or self.do(f"reorder({v}, {m}i, {li})", "reorder", "the register tile inside"))
            and self.do(f"tile({v}, {self.width})", "tile", "vectors of the register tile")
        )

    def _piece(self) -> int:
        """Rows of an image of which a padded copy fits into half of the second cache, where the whole image does not; else 0. A
        row is copied once for each tile of rows that needs it, and again for each piece."""
        k, t, half = self.k, self.t, self.c.machine.l2_bytes // 2
        assert t.l is not None
        name = t.l.name
        trips = {s.name: s.trips for s in (*k.space, *k.reduce) if s not in t.batch}
        padded = [x.a for x in self.copies.values() if x.a.buf.name in k.masked and depends(x.a, t.v)]
        most = t.l.trips if self.threaded != name + "o" else -(-t.l.trips // self.c.machine.threads)

        def fits(rows: int) -> bool:
            return all(k.footprint(a, trips | {name: rows}) <= half for a in padded)

        if not padded or fits(most) or not fits(2 * t.lr):
            return 0
        pieces = next(n for n in range(2, most) if fits(-(-most // n // t.lr) * t.lr))
        return -(-most // pieces // t.lr) * t.lr

    def _far(self) -> bool:
        """Whether what is copied for the vectors is more than the cache holds, also for one tile of an image: then a panel of it
        is copied at a time."""
        stand = {s.name for s in self.t.batch}
        trips = {s.name: 1 if s.name in stand else s.trips for s in (*self.k.space, *self.k.reduce)} | {self.l: self.t.lr}
        copied = (x.a for x in self.copies.values() if depends(x.a, self.t.v))
        return any(self.k.footprint(a, trips) > self.c.machine.l2_bytes // 2 for a in copied)

    def _around(self) -> list[str]:
        """The loops around the panels, where the panels stand outside of images."""
        return [n for n in self.outer if n in self.batch]

    def _panels(self) -> bool:
        """batch, (pieces of the rows,) panels, rows, vectors."""
        m, v = self.m, self.v
        outside = "panels outside, rows inside: the vector operand stays in the cache"
        if self.chunk:
            self.rows = m + "i"
            ready = (
                self.arrange([*self.batch, m, v], outside)
                and self.do(f"tile({m}, {self.chunk})", "tile", "a piece of the rows per ticket")
                and self.do(f"reorder({v}, {self.rows})", "reorder", outside)
            )
        else:
            first = [*self._around(), v, *self.shared] if self.outside else [*self.batch, v]
            ready = self.arrange([*first, *([m] if m else [])], outside)
        inner = [*self.shared, self.rows] if self.outside else [self.rows]
        return (
            ready
            and self.do(f"tile({v}, {self.width})", "tile", "a panel: vectors of the register tile")
            and (not m or self.do(f"reorder({', '.join(inner)}, {v}i)", "reorder", "rows outside the panel's vectors"))
            and (not m or self.do(f"tile({self.rows}, {self.t.mr})", "tile", "mr * nv + nv + 1 registers"))
        )

    def _place(self, x: Copy) -> str:
        """The loop in which an operand is copied: as far out as the copy fits into half of the cache."""
        k, t, half = self.k, self.t, self.c.machine.l2_bytes // 2
        whole = {s.name: s.trips for s in (*k.space, *k.reduce)}
        if not depends(x.a, t.v) and x.a.buf.name not in k.masked:
            return self.m + "o"
        named = list(zip(self.batch[-len(t.batch) :], t.batch, strict=True)) if t.batch else []
        inside = dict(whole)
        places: list[tuple[str, dict[str, int]]] = []
        if self.batch and len(self.batch) > len(t.batch):
            places.append((self.batch[0], dict(inside)))
        before = len(places)
        for name, s in named:
            inside.pop(s.name)
            places.append((name, dict(inside)))
        tile = {t.l.name: t.lr} if t.l else {}
        if t.l and self.piece:
            places.append((t.l.name + "o", inside | {t.l.name: self.piece}))
        if t.l:
            places.append((self.l + "o", inside | tile))
        places.append((self.v + "o", inside | {self.v: self.width} | tile))
        # not outside of a loop on which the operand depends and that is no window: nothing would be shared
        must = [i for i, (name, s) in enumerate(named, before) if depends(x.a, s) and not k.window(x.a, s)]
        first = max(must, default=0)
        if x.axes == tuple(range(len(x.axes))) and x.a.buf.name not in k.masked and not any(k.window(x.a, s) for s in k.space):
            return self.v + "o"  # a panel
        return next((name for name, trips in places[first:] if k.footprint(x.a, trips) <= half), self.v + "o")

    def _pack(self) -> list[tuple[str, Copy]]:
        """Copy the operands; returns those for which it was legal, each with what the loops of its copy are named after."""
        out = []
        for x in self.copies.values():
            name, copy = x.a.buf.name, fresh_buffer(self.c.kernel, f"{x.a.buf.name}_pack")
            order = f", axes={x.axes}" if x.transposed else ""
            if any(a.buf == x.a.buf and a.at != x.a.at for a in self.k.reads):  # a product of a matrix with itself
                order += f", of={self.v}i" if depends(x.a, self.t.v) else f", of={self.rows}i"
            if x.dtype:
                order += f", dtype={x.dtype}"
            if self.do(f"pack({name}, at={self._place(x)}{order})", "pack", x.why):
                out.append((name if copy == f"{name}_pack" else copy, x))
        return out

    def _unpack(self) -> list[Access]:
        """Results whose vectors are not contiguous in the output go through a small tile."""
        out = []
        at = self.rows + "o" if self.m and (not self.l or self.outside or self.far) else self.v + "o"
        for a in self.k.stores:
            axis = axis_of(a, self.t.v)
            if stride(a.buf, a.at, self.v) != 1 and axis is not None:
                text = f"unpack({a.buf.name}, at={at}, axes={last(a, axis)})"
                if self.do(text, "unpack", "vectors of results are not contiguous in the output: through a small tile"):
                    out.append(a)
        return out


def parallel(c: Chooser, loop: str, otherwise: str, work: float) -> None:
    """The loop on the threads, or the Decision why none is."""
    if c.within:
        return
    if loop:
        c.do(f"parallel({loop})", "parallel", "iterations are independent", {"cycles": work, "threads": c.machine.threads})
    else:
        why = "all results are one tile: no loop of them is left to share out"
        if work < PARALLEL_CYCLES:
            why = "too little work to wake a second thread"
        elif c.machine.threads < 2:
            why = "there is one thread"
        c.refuse("parallel", otherwise, why, {"cycles": work, "least_cycles": PARALLEL_CYCLES})


def rows_ahead(c: Chooser, k: Contraction, t: Tile, rows: str, at: str) -> None:
    """Hints, in the loop `at` of the sum, for the rows that the next iteration of `rows` reads element by element. All rows of a
    tile come to the ends of their pages at once, and the machine's own prefetching ends there; from the last cache they come soon
    enough."""
    assert t.m is not None
    each = {s.name: s.trips for s in (*k.space, *k.reduce) if s not in t.batch}
    moved = sum({a.buf.name: k.footprint(a, each) for a in (*k.reads, *k.stores)}.values())
    read = {a for a in accesses(c.kernel.body) if a.op == "read"}
    for a in k.reads:
        step = abs(stride(a.buf, a.at, t.m.name) or 0) * a.buf.dtype.itemsize
        copied = not any(at in variables(e) for b in read if b.buf == a.buf for e in b.at)
        if depends(a, t.v) or copied or step < LINE or k.footprint(a, each) <= c.machine.l2_bytes:
            continue
        numbers = {"bytes": moved, "l3_bytes": c.machine.l3_bytes, "mr": t.mr, "nv": t.nv}
        if moved <= c.machine.l3_bytes:
            c.refuse("prefetch", rows, "the last cache holds both operands and the result", numbers)
        elif t.mr + t.nv + 1 > t.mr * t.nv:
            c.refuse("prefetch", rows, "hints would take the loads that the products need", numbers)
        else:
            why = "the rows of the next tile come from memory while this one is computed"
            c.do(f"prefetch({a.buf.name}, {rows}, at={at})", "prefetch", why, numbers)


def panel_ahead(c: Chooser, k: Contraction, a: Access, name: str) -> None:
    """Hints in the copy of a panel for its next rows: each lies on a page of its own. `name`: what the loops of the copy are
    named after."""
    whole = {s.name: s.trips for s in (*k.space, *k.reduce)}
    if len(a.at) != 2 or k.footprint(a, whole) <= c.machine.l2_bytes or prod(r.trips for r in k.reduce) < 4 * AHEAD_ROWS:
        return
    numbers = {"rows": AHEAD_ROWS, "bytes": k.footprint(a, whole), "l2_bytes": c.machine.l2_bytes}
    if c.do(f"tile({name}_0, {AHEAD_ROWS})", "tile", "rows that are fetched ahead", numbers):
        why = "the next rows of the panel come while these are copied"
        c.do(f"prefetch({a.buf.name}, {name}_0o, at={name}_1)", "prefetch", why, numbers)


def _turned(c: Chooser, target: str, after: list[str], trips: dict[str, int]) -> bool:
    """A transposing copy in square blocks: rows are read as they lie, and turned in registers. Of as many vectors as leave the
    fewest rows over, which are gathered."""
    row, numbers = after[-1], {"iterations": trips[target]}
    fitting = [n for n in (c.lanes, c.lanes // 2) if min(trips[target], trips[row]) >= n > 1]
    if not fitting:
        return False
    lanes = min(fitting, key=lambda n: (trips[row] % n, -n))
    order = f"reorder({', '.join([*after[:-1], row + 'o', row + 'i', target + 'i'])})"
    steps = [
        (f"tile({target}, {lanes})", "tile", "a block"),
        (f"tile({row}, {lanes})", "tile", "a block"),
        (order, "reorder", "blocks along the rows of the source"),
        (f"vectorize({target}i, {lanes})", "vectorize", "lines of the copy"),
        (f"unroll({row}i)", "unroll", "the lines of a block share what is loaded: it is turned in registers"),
    ]
    return c.do_all(steps, numbers)


def _row(c: Chooser, after: list[str], trips: dict[str, int]) -> list[str]:
    """The loops along the rows of the source, the innermost ones as one where the last alone fills no whole blocks."""
    while len(after) > 1 and trips[after[-1]] % c.lanes:
        text = f"merge({after[-2]}, {after[-1]})"
        if c.try_all(text) is None:
            break
        c.do(text, "merge", "what is copied is contiguous over these loops: one loop has no short rows")
        last = after.pop()
        trips[after[-1] + last] = trips[after[-1]] * trips[last]
        after[-1] += last
    return after


def copy_loops(c: Chooser, name: str, axes: tuple[int, ...], transposed: bool, masked: bool = False) -> None:
    """Vectors for the loops of a copy; a transposing one takes as many rows of the source at once as a line of the copy holds.
    `masked`: what is copied is read under a mask."""
    trips: dict[str, int] = {}
    for s in loops(c.kernel.body):
        if s.name.startswith(f"{name}_"):
            trips[s.name] = max(trips.get(s.name, 0), s.trips)
    last_axis = next((x for x in reversed(axes) if f"{name}_{x}" in trips), None)
    if last_axis is None:
        return
    target = f"{name}_{last_axis}"
    numbers = {"iterations": trips[target]}
    if not transposed:
        lanes = vector_lanes(trips[target], c.lanes)
        c.do(f"vectorize({target}, {lanes})", "vectorize", "a contiguous copy", numbers)
        if masked and lanes < trips[target] <= MOST_MASKS * lanes:
            c.do(
                f"unroll({target})",
                "unroll",
                "the masks of a short row are constants, and most of its vectors need none",
                numbers,
            )
        return
    after = [f"{name}_{x}" for x in range(last_axis + 1, len(axes)) if f"{name}_{x}" in trips]
    if 2 * trips[target] >= c.lanes:
        after = _row(c, after, trips)
    if after and _turned(c, target, after, trips):
        return
    if trips[target] > c.lanes:
        if not c.do(f"tile({target}, {c.lanes})", "tile", "a line of the copy", numbers):
            return
        target += "i"
    if not after or c.do(f"reorder({', '.join([*after, target])})", "reorder", "along the rows of the source", numbers):
        c.do(f"unroll({target})", "unroll", "whole lines of the copy", numbers)


def turned_back(c: Chooser, name: str, along: int | None) -> None:
    """The copy of a tile of results to its places: lines of the tile run along axis `along` of the result, so square blocks of
    them are turned in registers."""
    trips: dict[int, int] = {}
    for s in loops(c.kernel.body):
        axis = s.name.removeprefix(f"{name}_")
        if axis != s.name and axis.isdigit():
            trips[int(axis)] = max(trips.get(int(axis), 0), s.trips)
    rows = [axis for axis in trips if axis != along]
    if rows:
        row = f"{name}_{max(rows)}"
        block = 1 << (min(trips[max(rows)], c.lanes).bit_length() - 1)
        numbers = {"iterations": trips[max(rows)], "lines": trips.get(along or 0, 1)}
        if trips[max(rows)] % block and not c.machine.masks:
            c.refuse("vectorize", row, "stores under a mask take longer here than those of single elements", numbers)
            return
        steps = [
            (f"vectorize({row}, {block})", "vectorize", "lines of the result"),
            (f"tile({name}_{along}, {block})", "tile", "a block"),
            (f"unroll({name}_{along}i)", "unroll", "the lines of a block share what is loaded: it is turned in registers"),
        ]
        if block > 2 and trips.get(-1 if along is None else along, 0) % block == 0 and c.do_all(steps, numbers):
            return
    copy_loops(c, name, tuple(sorted(trips)), False)
