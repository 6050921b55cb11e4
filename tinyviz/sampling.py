"""Values over training: which of a program's values are worth a look, their figures run by run, and where one stopped being
finite.

Nothing of this happens unless asked for (`watch(values=10)`, `watch(finite=True)`). A sampled run is computed a second time on
the same memory, before the run itself; the program that the user waits for stays as it is.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinyengine import hooks
from tinyengine.node import Node
from tinyengine.ops import OPS
from tinyengine.probe import Fault, Probe, replay
from tinyengine.runtime.buffer import Buffer
from tinyviz.tables import plain_name

Array = np.ndarray[Any, Any]
KINDS = ("weight", "gradient", "update", "activation", "softmax", "input")
MOST_SERIES = 96
MOST_SAMPLES = 64  # of one series; when they are full every second one goes
BINS = 32
TILES, EDGE = 8, 24  # pictures: how many, and the most rows and columns of one
MAP = 48  # of an attention map: where a token looks is seen at full size only


@dataclass(frozen=True)
class Watched:
    """One value: `kind` of KINDS. An update is the new content less the old one."""

    name: str
    kind: str
    module: str
    node: Node


@dataclass
class Sample:
    """Figures of one value in one run; low to norm are of its finite elements, None where there is none."""

    run: int
    low: float | None
    high: float | None
    mean: float | None
    std: float | None
    norm: float | None
    zeros: float  # share of elements that are 0
    nonfinite: int
    subnormal: float  # share of elements that are not 0 but smaller than the least normal float32
    dead: int | None  # units (along axis 1 or, with two axes, the last) that are 0 everywhere
    histogram: list[int]  # BINS counts from low to high


@dataclass
class Picture:
    """Small images of a value, its first `TILES` planes: 0 to 255 from low to high; -1 for what is not finite."""

    rows: int
    columns: int
    low: float
    high: float
    tiles: list[list[int]]


@dataclass
class Series:
    watched: Watched
    samples: list[Sample] = field(default_factory=list)
    picture: Picture | None = None


def watched(graph: Any) -> list[Watched]:
    """The values of a recorded graph that are worth watching."""
    users: dict[Node, list[Node]] = {}
    for n in graph.nodes:
        for s in n.src:
            users.setdefault(s, []).append(n)
    parents = {m.rpartition(".")[0] for n in graph.nodes if (m := _module(n))}
    out: list[Watched] = []
    used: dict[Node, str] = {}
    for n in graph.nodes:
        if n.op == "assign" and (w := n.src[0]).dtype.is_float and (gradient := _gradient(graph, w, users)) is not None:
            name, module = w.arg.name or "weight", next((_module(u) for u in users[w] if _module(u)), "")
            out += [Watched(name, "weight", module, w), Watched(name, "gradient", module, gradient)]
            out.append(Watched(name, "update", module, n))
            used[w] = name
    for n in graph.nodes:
        if n.phase != "forward" or not n.dtype.is_float:
            continue
        if n.op == "buffer" and n not in used and n.size > 1 and any(_module(u) for u in users.get(n, ())):
            out.append(Watched(n.arg.name or "input", "input", "", n))
        elif n.op not in ("buffer", "const") and _module(n) and _leaves(n, users):
            module, line = _module(n), n.origin[0].frames[0].text.strip() if n.origin[0].frames else n.op
            out.append(Watched(f"{module}: {line[:40]}" if module in parents else module, "activation", module, n))
        elif _is_softmax(n) or _divided_later(n, users):
            out.append(Watched(f"{_module(n)}: softmax".lstrip(": "), "softmax", _module(n), n))
    return out


def fair(out: list[Watched], most: int = MOST_SERIES) -> list[Watched]:
    """At most `most` of them: inputs and attention maps stay, activations and parameters (each with its gradient and its update)
    share the rest; of each kind some from the first layer to the last."""
    if len(out) <= most:
        return out
    units: dict[str, dict[str, list[Watched]]] = {"input": {}, "softmax": {}, "activation": {}, "parameter": {}}
    for w in out:
        kind = w.kind if w.kind in units else "parameter"
        key = w.name if kind == "parameter" else str(id(w.node))
        units[kind].setdefault(key, []).append(w)
    left, kept = most, []
    for i, (kind, of) in enumerate(units.items()):
        rows = list(of.values())
        share = left // 4 if i < 2 else left // 2 if kind == "activation" else left
        size = max((len(row) for row in rows), default=1)
        n = min(len(rows), share // size)
        picked = [rows[j * (len(rows) - 1) // max(n - 1, 1)] for j in range(n)]
        kept += [w for row in picked for w in row]
        left = most - len(kept)
    chosen = {id(w) for w in kept}
    return [w for w in out if id(w) in chosen]


def _module(n: Node) -> str:
    return n.origin[0].module if n.origin else ""


def _gradient(graph: Any, w: Node, users: dict[Node, list[Node]]) -> Node | None:
    """The last backward node with the weight's shape that serves the weight or what first reads it."""
    near = {id(w), *(id(u) for u in users.get(w, ()))}
    last: Node
    for last in reversed(graph.nodes):
        if last.phase == "backward" and last.shape == w.shape and any(id(o.forward) in near for o in last.origin):
            return last
    return None


def _leaves(n: Node, users: dict[Node, list[Node]]) -> bool:
    """Whether a value goes from one module to another: a layer's result, or what stands between two layers."""
    mine = _module(n)
    forward = [u for u in users.get(n, ()) if u.phase == "forward" and u.op not in ("assign",)]
    return bool(forward) and any(_module(u) != mine for u in forward)


def _is_softmax(n: Node) -> bool:
    """exp divided by its own sum."""
    if n.op not in ("mul", "div") or n.phase != "forward" or len(n.shape) < 3:
        return False
    for e in n.src:
        if e.op == "exp":
            other = n.src[1 - n.src.index(e)]
            chain = other
            while chain.op in ("expand", "reshape", "reciprocal") and chain.src:
                chain = chain.src[0]
            if chain.op == "sum" and chain.src[0] is e:
                return True
    return False


def _divided_later(n: Node, users: dict[Node, list[Node]]) -> bool:
    """exp whose sum divides what is made of it, as attention divides its result: the weights themselves are never computed."""
    if n.op != "exp" or n.phase != "forward" or len(n.shape) < 3:
        return False
    mine = users.get(n, ())
    return any(u.op == "sum" and u.shape == (*n.shape[:-1], 1) for u in mine) and not any(_is_softmax(u) for u in mine)


class Values:
    """The series of one program."""

    def __init__(self, lowered: Any, every: int) -> None:
        self.every = every
        worth = watched(lowered.graph)
        self.series = [Series(w) for w in fair(worth)]
        self.left_out = len(worth) - len(self.series)
        self._stride = every
        nodes = [s.watched.node for s in self.series]
        self._probe = Probe(lowered, nodes) if nodes else None
        self._old = [Probe(lowered, [n.src[0]]) if n.op == "assign" else None for n in nodes]

    def take(self, program: Any, run: int, memory: Sequence[Buffer]) -> None:
        """Sample this run, when it is its turn."""
        if self._probe is None or run % self._stride:
            return
        for s, old, value in zip(self.series, self._old, self._probe.run(memory), strict=True):
            if old is not None:
                value = value - old.run(memory)[0]
            if s.watched.kind == "softmax" and s.watched.node.op == "exp":
                value = value / value.sum(-1, keepdims=True)  # see `_divided_later`
            s.samples.append(figures(run, value, s.watched.kind))
            if s.watched.kind in ("weight", "activation", "softmax", "input"):
                s.picture = picture(value, MAP if s.watched.kind == "softmax" else EDGE)
            if hooks.ValueCaptured in hooks.heard:
                hooks.publish(hooks.ValueCaptured(program, run, s.watched.node, value))
        if len(self.series[0].samples) >= MOST_SAMPLES:
            self._stride *= 2
            for s in self.series:
                del s.samples[1::2]


def figures(run: int, value: Array, kind: str) -> Sample:
    """What is kept of one value."""
    x = np.asarray(value, np.float32).reshape(-1)
    fine = np.isfinite(x)
    count = int(fine.sum())
    zeros = float(np.count_nonzero(x == 0) / max(x.size, 1))
    dead = dead_units(value) if kind == "activation" else None
    if count == 0:
        return Sample(run, None, None, None, None, None, zeros, x.size, 0.0, dead, [])
    if count < x.size:
        x = x[fine]
    low, high = float(x.min()), float(x.max())
    wide = x.astype(np.float64)
    bins = np.histogram(wide, BINS, (low, high) if high > low else (low - 0.5, low + 0.5))[0]
    norm = math.sqrt(float(np.square(wide).sum()))  # not by BLAS: its threads would wait busily on the program's cores
    small = float(np.count_nonzero((x != 0) & (np.abs(x) < np.finfo(np.float32).tiny)) / x.size)
    mean, std, missing = float(wide.mean()), float(wide.std()), value.size - count
    return Sample(run, low, high, mean, std, norm, zeros, missing, small, dead, bins.tolist())


def dead_units(value: Array) -> int | None:
    """Units that are 0 for everything in the batch: channels of images, features of rows; None for other forms."""
    if value.ndim < 2:
        return None
    axis = 1 if value.ndim == 4 else value.ndim - 1
    others = tuple(i for i in range(value.ndim) if i != axis)
    return int(np.count_nonzero(~np.any(value, axis=others)))


def picture(value: Array, edge: int = EDGE) -> Picture | None:
    """The first planes of a value, thinned out to at most `edge` rows and columns; None for what has no two axes."""
    if value.ndim < 2 or min(value.shape[-2:]) < 2 or not value.size:
        return None
    planes = value.reshape(-1, *value.shape[-2:])[:TILES].astype(np.float64)
    steps = [max(-(-n // edge), 1) for n in planes.shape[1:]]
    planes = planes[:, :: steps[0], :: steps[1]]
    fine = np.isfinite(planes)
    low, high = (float(planes[fine].min()), float(planes[fine].max())) if fine.any() else (0.0, 0.0)
    scaled = np.full(planes.shape, -1)
    scaled[fine] = np.clip((planes[fine] - low) / ((high - low) or 1.0), 0, 1) * 255
    return Picture(planes.shape[1], planes.shape[2], low, high, [t.reshape(-1).tolist() for t in scaled])


@dataclass
class Found:
    """A fault, in which run, and every node that was not finite then."""

    run: int
    fault: Fault | None
    bad: set[Node]


class Finite:
    """Watches that the results of a program are finite. Before each run its memory is copied (the last `RING` runs are kept);
    when a result is not finite, the run is replayed from there, once, and the op and line that made it are named."""

    RING = 2

    def __init__(self) -> None:
        self.found: Found | None = None
        self._ring: list[tuple[int, list[Buffer]]] = []
        self._memory: Sequence[Buffer] = ()

    def before(self, run: int, lowered: Any, memory: Sequence[Buffer]) -> None:
        if self.found is None:
            given = memory[: len(lowered.buffers)]
            self._ring.append((run, [Buffer.of(np.array(b.array), b.dtype, b.name) for b in given]))
            del self._ring[: -self.RING]
            self._memory = memory

    def after(self, lowered: Any) -> Found | None:
        """What was found by the run that has just ended; only once, later runs inherit it."""
        if self.found is not None or not self._ring or all(_finite(b) for b in self._memory):
            return None
        run, memory = self._ring[-1]
        self.found = Found(run, *replay(lowered, memory))
        self._ring.clear()
        self._memory = ()
        return self.found


def _finite(b: Buffer) -> bool:
    """Whether all elements are; the sum says so in one pass, unless it overflows."""
    if b.array is None or b.array.dtype.kind != "f":
        return True
    with np.errstate(all="ignore"):
        return bool(np.isfinite(b.array.sum())) or bool(np.isfinite(b.array).all())


def warn(found: Found) -> None:
    """Say it at once, on stderr."""
    print("tinyviz: " + sentence(found), file=sys.stderr)


def sentence(found: Found) -> str:
    """'run 12: log made the first NaN (3 of 40 elements, at [0, 2], from -1.0) at train.py:12: loss = x.log()'."""
    f = found.fault
    if f is None:
        return f"run {found.run}: a result is not finite; it was so in the memory that the program was given"
    o = f.node.origin[0] if f.node.origin else None
    frame = o.frames[0] if o is not None and o.frames else None
    where = "" if frame is None else f" at {plain_name(frame.file)[0]}:{frame.line}: {frame.text.strip()}"
    of = f", from {', '.join(f'{x:g}' for x in f.operands)}" if f.operands else ""
    phase = f" ({o.phase})" if o is not None and o.phase != "forward" else ""
    name = OPS[f.node.op].name
    return f"run {found.run}: {name} made the first {f.what} ({f.count} of {f.node.size}, at {list(f.place)}{of}){phase}{where}"
