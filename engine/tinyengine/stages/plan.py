"""Stage 7, plan: which memory, when?

Input: the fusion and its scheduled kernels. Output: a Program: kernels in an order that respects every read and write, each value
in a
slot; temporaries share one arena by lifetime; an update (`assign`) writes its target in place. Where an update would destroy what
is
still needed, a copy is made, and a Decision says so.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tinyengine import hooks
from tinyengine import loopnest as ir
from tinyengine.choices import Choices
from tinyengine.loopnest import Buf, Kernel, Loop, Store
from tinyengine.machine import Machine
from tinyengine.node import Graph, Node
from tinyengine.program import Call, Program, Slot
from tinyengine.size import Symbol
from tinyengine.stages import schedule
from tinyengine.stages.fusion.recompute import again
from tinyengine.stages.loops import Nest
from tinyengine.stages.specs.plan import ALIGN
from tinyengine.stages.specs.plan import SPEC as SPEC
from tinyengine.stages.values import base


@dataclass(eq=False)
class _Step:
    """A kernel with the values behind its parameters, or a copy."""

    kernel: Kernel
    values: list[Any]  # Node, or a key of a temporary made here
    writes: set[Any] = field(default_factory=set)


class _Taken(NamedTuple):
    """A piece of the arena that is taken from call `first` to call `last`."""

    offset: int
    end: int
    first: int
    last: int
    name: str


def _some(names: Sequence[str]) -> str:
    """All of a few names, the first of many."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _stand(names: Sequence[str]) -> str:
    return f"{_some(names)} stand{'s' * (len(names) == 1)}"


class _Pick(NamedTuple):
    """A step that was taken next, why, the bytes of temporaries that it takes and that are free after it, and what stood before
    it in the given order: name -> why it was not taken."""

    step: _Step
    reason: str
    taken: int
    freed: int
    passed: dict[str, str]


FREES = "Of the kernels that wait for nothing, the first one that takes no more memory than it frees."
FIRST = "Every kernel that waits for nothing takes more memory than it frees: the first of them."
AGAIN = "It is computed again instead of kept, and what reads it waits for nothing else."
LEFT = "What is computed again is all that is left."
SAVES = "A later kernel needs the content that the next one overwrites."


class _Order:
    """List scheduling of the steps as far as nothing waits in a circle; `done`: those that it could place."""

    def __init__(self, steps: Sequence[_Step], updated: Mapping[Node, Node], slot_key: Callable[[Any], Any]) -> None:
        self.steps, self.slot_key = list(steps), slot_key
        self.done: set[_Step] = set()
        maker: dict[Any, _Step] = {}
        readers: dict[Any, list[_Step]] = {}  # of the old content
        for s in steps:
            for v in s.writes:
                maker[v] = s
                if v in updated:  # an update in place also makes the assign node as a value
                    maker[updated[v]] = s
            for v in s.values:
                if v not in s.writes:
                    readers.setdefault(v, []).append(s)
        self.after: dict[_Step, set[_Step]] = {}  # step -> those that must have run
        for s in steps:
            before = {maker[v] for v in s.values if v in maker and not _is_memory(v)}
            for v in s.writes:
                if _is_memory(v):  # a buffer may be overwritten only when nobody waits for its old content
                    before.update(readers.get(v, ()))
            self.after[s] = before - {s}
        self.before: dict[_Step, list[_Step]] = {s: [] for s in steps}  # the same, the other way round
        for s, before in self.after.items():
            for o in before:
                self.before[o].append(s)
        self.left = {s: len(before) for s, before in self.after.items()}  # how many of them have not
        self.waiting = dict.fromkeys(steps)
        # what is computed again for its gradient: as late as can be
        self.late = {s for s in steps if s.writes and all(isinstance(v, Node) and again(v) for v in s.writes)}
        self.open: dict[Any, set[_Step]] = {}  # temporary -> steps that still touch it
        for s in steps:
            for key in self._temporaries(s):
                self.open.setdefault(key, set()).add(s)
        self.alive: set[Any] = set()

    def run(self) -> list[_Pick]:
        out: list[_Pick] = []
        while (found := self._next()) is not None:
            s, reason = found
            out.append(_Pick(s, reason, *self._grows(s), self._passed(s)))
            self.done.add(s)
            del self.waiting[s]
            for o in self.before[s]:
                self.left[o] -= 1
            for key in self._temporaries(s):
                self.alive.add(key)
                self.open[key].discard(s)
        return out

    def _next(self) -> tuple[_Step, str] | None:
        waiting, left = self.waiting, self.left
        ready = [s for s in waiting if not left[s]]
        late = self.late - self.done if self.late else self.late
        for s in ready:
            taken, freed = self._grows(s)
            if s not in late and taken <= freed:
                return s, FREES
        for s in waiting:
            if s in late:
                continue
            if not left[s]:
                return s, FIRST
            below = self._below(s) if late else set()
            if below and below <= late:
                return next(o for o in ready if o in below), AGAIN
        return (ready[0], LEFT) if ready else None

    def _passed(self, s: _Step) -> dict[str, str]:
        """Some of the steps that stand before `s` and are not done, with the reason."""
        out: dict[str, str] = {}
        for o in self.waiting:
            if o is s or len(out) == 3:
                break
            waits = [x.kernel.name for x in self.waiting if x in self.after[o]] if self.left[o] else []
            taken, freed = self._grows(o)
            out[o.kernel.name] = f"it waits for {_some(waits)}" if waits else f"it takes {taken} bytes and frees {freed}"
        return out

    def _below(self, s: _Step) -> set[_Step]:
        """The steps that `s` still waits for, directly or not."""
        found: set[_Step] = set()
        stack = [s]
        while stack:
            more = self.after[stack.pop()] - self.done - found
            found |= more
            stack += more
        return found

    def _temporaries(self, s: _Step) -> set[Any]:
        return {k for v in s.values if not _is_memory(k := self.slot_key(v))}

    def _grows(self, s: _Step) -> tuple[int, int]:
        """Bytes of temporaries that the step makes, and of those that nobody needs after it."""
        keys = self._temporaries(s)
        return sum(_nbytes(k) for k in keys - self.alive), sum(_nbytes(k) for k in keys if self.open[k] == {s})


def _is_memory(v: Any) -> bool:
    return isinstance(v, Symbol) or (isinstance(v, Node) and v.op == "buffer")


def _nbytes(k: Any) -> int:
    """Of a value, or of a temporary made here."""
    return (k if isinstance(k, Node) else k[1]).nbytes


def copy_kernel(name: str, dtype: Any, size: int, nodes: tuple[int, ...] = ()) -> Kernel:
    """out[i] = x[i] over `size` elements; `nodes`: numbers of those that it is for."""
    x, out = Buf("x", dtype, (size,)), Buf("out", dtype, (size,))
    i = ir.var("i", 0, max(size - 1, 0))
    return Kernel(name, (x, out), (Loop(i, 0, size, 1, (Store(out, (i,), ir.load(x, (i,)), nodes=nodes),)),), ("out",))


def unscheduled_copy(k: Kernel) -> Kernel:
    """Of a copy that this stage put between the kernels of the nests: as it was before it was scheduled."""
    nodes = next((s.nodes for s in ir.walk(k.body) if isinstance(s, Store)), ())
    return copy_kernel(k.name, k.params[0].dtype, k.params[0].size, nodes)


class _Planner:
    def __init__(self, graph: Graph, nests: Sequence[Nest], buffers: Sequence[Any], name: str) -> None:
        self.graph, self.name = graph, name
        self.buffers = buffers
        self.decisions: list[hooks.Decision] = []
        self.steps: list[_Step] = []
        self.node_of = {id(n.arg): n for n in graph.nodes if n.op == "buffer"}
        in_place: set[Node] = set()
        for nest in nests:
            in_place |= set(nest.in_place)
            outs = set(nest.kernel.outputs)
            step = _Step(
                nest.kernel,
                list(nest.values),
                {v for p, v in zip(nest.kernel.params, nest.values, strict=True) if p.name in outs},
            )
            self.steps.append(step)
        self.in_place = in_place
        self.copies = 0
        self.finish: Callable[[Kernel], tuple[Kernel, tuple[hooks.Decision, ...]]] = lambda k: (k, ())

    def run(self) -> Program:
        for n in self.graph.nodes:
            if n.op == "assign" and n not in self.in_place and n.size:
                # the kernel reads its target at other places than it writes: the new content goes to a temporary first
                step = _Step(self._copy_kernel(n), [n, self._target(n)], {self._target(n)})
                self.steps.append(step)
                self._decide(n, "copied", "Its kernel reads the old content at other places than it writes.")
            elif n.op == "assign" and n.size:
                self._decide(n, "in place", "Every element is read only by the iteration that overwrites it.")
        calls = self._order()
        return self._place(calls)

    def _decide(self, n: Node, verdict: str, reason: str) -> None:
        self.decisions.append(
            hooks.Decision("plan", "update", (self.graph.number[n],), verdict, reason, {"bytes": float(n.nbytes)})
        )

    def _decide_place(self, n: Node, offset: int, passed: list[str], taken: list[_Taken], new: _Taken) -> None:
        """Place a temporary in the arena, and say whose memory it takes over."""
        shared = [t.name for t in taken if t.offset < new.end and offset < t.end]
        others = f"{_stand(shared)} there at other times" if shared else "nothing else stands there"
        reason = f"The lowest place that is free from call {new.first} to call {new.last}; {others}."
        numbers = {"bytes": float(new.end - offset), "offset": float(offset), "first": float(new.first), "last": float(new.last)}
        refused = {"lower": f"{_stand(passed)} there at the same time"} if passed else {}
        verdict = f"at {offset}" + (f", in turn with {_some(shared)}" if shared else "")
        self.decisions.append(hooks.Decision("plan", "place", (self.graph.number[n],), verdict, reason, numbers, refused))
        taken.append(new)

    def _target(self, n: Node) -> Node:
        return self.node_of[id(n.src[0].arg)]

    def _copy_kernel(self, n: Node) -> Kernel:
        return self._add(f"copy_{n.size}" + (f"_{self.copies + 1}" if self.copies else ""), n)

    def _add(self, name: str, n: Node) -> Kernel:
        """A scheduled copy of `n`'s size, for `n`."""
        self.copies += 1
        made, decisions = self.finish(copy_kernel(name, n.dtype, n.size, (self.graph.number[n],)))
        self.decisions += decisions
        return made

    # -- order

    def _order(self) -> list[_Step]:
        """Reads after writes and writes after reads; where that leaves a choice, what frees as much memory as it takes goes
        first, then the given order. What is computed again waits until a reader needs nothing else."""
        waiting = list(self.steps)
        done: list[_Step] = []
        picks: dict[_Step, _Pick] = {}
        while waiting:
            order = _Order(waiting, {self._target(n): n for n in self.in_place}, self._slot_key)
            picked = order.run()
            done += [p.step for p in picked]
            picks.update((p.step, p) for p in picked)
            waiting = [s for s in waiting if s not in order.done]
            if waiting:
                self._break_cycle(waiting, done)
        for call, s in enumerate(done):
            p = picks.get(s) or _Pick(s, SAVES, sum(map(_nbytes, s.writes)), 0, {})
            numbers = {"call": float(call), "bytes_taken": float(p.taken), "bytes_freed": float(p.freed)}
            self.decisions.append(hooks.Decision("plan", "order", (s.kernel.name,), f"call {call}", p.reason, numbers, p.passed))
        return done

    def _break_cycle(self, waiting: list[_Step], done: list[_Step]) -> None:
        """Save the old content of a buffer whose readers wait for its writer."""
        for s in waiting:
            for v in s.writes:
                if isinstance(v, Node) and v.op == "buffer":
                    readers = [o for o in waiting if o is not s and v in o.values and v not in o.writes]
                    if readers:
                        saved = ("old", v)
                        update = next((a for a in self.in_place if self._target(a) is v), v)
                        done.append(_Step(self._add(f"save_{v.size}_{self.copies + 1}", update), [v, saved], {saved}))
                        for o in readers:
                            o.values = [saved if x is v else x for x in o.values]
                        reason = "A kernel needs the old content after the update, and the update waits for that kernel."
                        self._decide(v, "old content saved", reason)
                        return
        raise RuntimeError(f"the kernels of {self.name} wait for each other in a circle")

    # -- memory

    def _slot_key(self, v: Any) -> Any:
        """Values that live in the same memory have the same key."""
        if isinstance(v, Node) and v.op == "assign" and v in self.in_place:
            return self._target(v)
        return v

    def _place(self, steps: list[_Step]) -> Program:
        roots: list[Node] = []
        for r in self.graph.roots:
            b = base(r)
            if b.op not in ("buffer", "assign") and b not in roots:
                roots.append(b)
        written = {self._slot_key(v) for s in steps for v in s.writes}
        slots: list[Slot] = []
        place: dict[Any, int] = {}
        for i, b in enumerate(self.buffers):
            n = self.node_of.get(id(b))
            if (symbol := getattr(b, "symbol", None)) is not None:
                place[symbol] = len(slots)
                slots.append(Slot(symbol.name, b.dtype, (1,), "input"))
                continue
            if n is None:  # simplified away: the slot stays, so that the caller's list fits
                slots.append(Slot(f"unused{i}", b.dtype, (b.size,), "input"))
                continue
            place[n] = len(slots)
            slots.append(Slot(b.name or f"b{i}", n.dtype, n.shape, "state" if n in written else "input"))
        for r in roots:
            place[r] = len(slots)
            slots.append(Slot(f"t{self.graph.number[r]}", r.dtype, r.shape, "output"))
        spans: dict[Any, list[int]] = {}
        for i, s in enumerate(steps):
            for v in s.values:
                k = self._slot_key(v)
                if k not in place:
                    spans.setdefault(k, [i, i])[1] = i
        arena = 0
        taken: list[_Taken] = []
        by_place: list[_Taken] = []
        for k, (first, last) in sorted(spans.items(), key=lambda kv: (-_nbytes(kv[0]), kv[1])):
            n = k if isinstance(k, Node) else k[1]
            label = f"t{self.graph.number[n]}" + ("" if isinstance(k, Node) else "_old")
            nbytes = -(-_nbytes(k) // ALIGN) * ALIGN
            offset = 0
            passed: list[str] = []  # what stands lower, at the same time
            for t in by_place:
                if t.first <= last and first <= t.last and t.offset < offset + nbytes and offset < t.end:
                    offset = t.end
                    passed.append(t.name)
            new = _Taken(offset, offset + nbytes, first, last, label)
            self._decide_place(n, offset, passed, taken, new)
            insort(by_place, new)
            arena = max(arena, offset + nbytes)
            place[k] = len(slots)
            slots.append(Slot(label, n.dtype, n.shape, "temporary", offset))
            if hooks.watching:
                hooks.publish(hooks.BufferPlanned(label, _nbytes(k), offset, first, last))
        calls = tuple(Call(s.kernel, tuple(place[self._slot_key(v)] for v in s.values)) for s in steps)
        return Program(self.name, tuple(slots), calls, arena)


def run(
    graph: Graph, nests: Sequence[Nest], buffers: Sequence[Any], choices: Choices, machine: Machine, name: str = "program"
) -> tuple[Program, tuple[hooks.Decision, ...]]:
    """(program, decisions). `nests`: the scheduled kernels. `buffers`: the runtime Buffers that the caller will give, in order;
    then come
    the outputs, in the order of the graph's roots, each value once. `choices` and `machine` schedule the copies that are added
    here."""
    p = _Planner(graph, nests, buffers, name)
    p.finish = lambda k: schedule.run(k, choices, machine)
    program = p.run()
    return program, tuple(p.decisions)
