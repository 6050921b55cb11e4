"""The compiler's table of contents: the stages in order, and `lower`, which runs them and keeps every output as a value.

Each stage is pure: equal input gives equal output. `Lowered` computes a stage when it is first asked for.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from tinyengine import backends, hooks, spec, stages, units
from tinyengine.choices import DEFAULT, Choices
from tinyengine.extent import valued
from tinyengine.machine import Machine
from tinyengine.node import Graph, Node
from tinyengine.origin import user_line
from tinyengine.program import Program, Slot
from tinyengine.runtime.buffer import Buffer, SizeBuffer

if TYPE_CHECKING:
    from tinyengine.loopnest import Kernel
    from tinyengine.stages.fuse import Fusion
    from tinyengine.stages.loops import Nest


class Stage(NamedTuple):
    name: str
    question: str
    output: str


STAGES = (
    Stage("record", "what did you ask for?", "Graph of primitive ops; nothing has run"),
    Stage("differentiate", "what does the gradient need?", "the same Graph with backward nodes"),
    Stage("simplify", "what need not be computed?", "Graph after named rules"),
    Stage("fuse", "what is computed together, and where is each value kept?", "Fusion: kernels and one Decision per edge"),
    Stage("loops", "which loops and which addresses?", "LoopNest per kernel"),
    Stage("schedule", "in what order, how wide, on how many cores?", "LoopNest after schedule primitives"),
    Stage("plan", "which memory, when?", "Program: kernels in order, buffers placed"),
    Stage("emit", "what does the machine get?", "source, object code and assembly for each kernel"),
    Stage("run", "what happened?", "launches with times"),
)


FRAMES = 20_000  # of Python, while a stage runs: what the usual stack of 8 MiB holds


@contextlib.contextmanager
def _deep(graph: Graph) -> Iterator[None]:
    """Stages walk chains of ops by recursion, three frames an op: more than Python allows by default."""
    old = sys.getrecursionlimit()
    if threading.current_thread() is threading.main_thread() and old < FRAMES:
        sys.setrecursionlimit(FRAMES)
    try:
        yield
    except RecursionError:
        raise RecursionError(
            f"a graph of {len(graph)} nodes has a chain of ops that is too long to be compiled at once; call realize() on the way"
            f"\n  at {user_line()}"
        ) from None
    finally:
        sys.setrecursionlimit(old)


class Lowered:
    """A graph on its way to the machine. `graph`, `simplified`, `fusion`, `kernels`, `plan`, `executable` are the stages'
    outputs;
    `with_choices`, `with_fusion` and `Compiled.with_schedule` give another Lowered that continues from an edit."""

    def __init__(self, graph: Graph, buffers: Sequence[Buffer], choices: Choices, machine: Machine, backend: str) -> None:
        self.graph, self.buffers, self.choices, self.machine, self.backend = graph, list(buffers), choices, machine, backend
        self.roots: Sequence[Node] = graph.roots
        self._decided: dict[str, list[hooks.Decision]] = {}
        self.seconds: dict[str, float] = {}

    def _stage(
        self,
        name: str,
        subject: Any,
        f: Callable[[], tuple[Any, Iterable[hooks.Decision]]],
        sentences: Sequence[spec.Sentence] = (),
    ) -> Any:
        """Run one stage: publish its start, decisions and finish; keep its decisions and its time; check its spec."""
        if hooks.watching:
            hooks.publish(hooks.StageStarted(name, subject))
        began = time.perf_counter()
        with _deep(self.graph):
            output, decisions = f()
        self.seconds[name] = time.perf_counter() - began
        self._decided[name] = list(decisions)
        for value in output if isinstance(output, tuple) else (output,):
            spec.check(name, sentences, value)
        if hooks.watching:
            for d in decisions:
                hooks.publish(d)
            hooks.publish(hooks.StageFinished(name, subject, output, self.seconds[name]))
        return output

    @cached_property
    def simplified(self) -> Graph:
        out: Graph = self._stage("simplify", self.graph, lambda: stages.simplify.run(self.graph, self.choices, self.machine))
        return out

    @cached_property
    def fusion(self) -> Fusion:
        g = self.simplified
        out: Fusion = self._stage("fuse", g, lambda: stages.fuse.run(g, self.choices, self.machine), stages.fuse.SPEC)
        return out

    @cached_property
    def nests(self) -> tuple[Nest, ...]:
        fusion = self.fusion

        def f() -> tuple[tuple[Nest, ...], list[hooks.Decision]]:
            nests = stages.loops.run(fusion)
            return nests, [d for n in nests for d in n.decisions]

        out: tuple[Nest, ...] = self._stage("loops", fusion, f, stages.loops.SPEC)
        return out

    @cached_property
    def scheduled(self) -> tuple[Kernel, ...]:
        """The kernels of the plan after scheduling, in the order of `nests`."""
        nests = self.nests

        def f() -> tuple[tuple[Kernel, ...], list[hooks.Decision]]:
            kernels: list[Kernel] = []
            decisions: list[hooks.Decision] = []
            for n in nests:
                k, ds = stages.schedule.run(n.kernel, self.choices, self.machine)
                kernels.append(k)
                decisions += ds
            return tuple(kernels), [*decisions, *stages.schedule.matched((n.kernel for n in nests), self.choices)]

        out: tuple[Kernel, ...] = self._stage("schedule", nests, f, stages.schedule.SPEC)
        return out

    @cached_property
    def plan(self) -> Program:
        nests = tuple(stages.loops.Nest(k, n.values, n.in_place) for k, n in zip(self.scheduled, self.nests, strict=True))
        g, buffers = self.simplified, self._own_buffers
        out: Program = self._stage(
            "plan", nests, lambda: stages.plan.run(g, nests, buffers, self.choices, self.machine), stages.plan.SPEC
        )
        return out

    @cached_property
    def executable(self) -> backends.Executable:
        p = self.plan

        def f() -> tuple[backends.Executable, Sequence[hooks.Decision]]:
            made = backends.get(self.backend).compile(p)
            return made, getattr(made, "decisions", ())

        out: backends.Executable = self._stage("emit", p, f)
        return out

    @cached_property
    def kernels(self) -> tuple[Compiled, ...]:
        """One entry per call of the plan."""
        return tuple(Compiled(self, i) for i in range(len(self.plan.calls)))

    @cached_property
    def certificate(self) -> Any:
        """What the program will cost, known before it runs; with symbolic sizes for their values of now, with formulas and the
        ends of the range beside it."""
        from tinyengine import cost, ranges

        if self.graph.sizes():
            return ranges.certify(self)
        return cost.certify(self.plan, self.machine, {n.kernel.name: n.kernel for n in self.nests})

    @property
    def decisions(self) -> list[hooks.Decision]:
        """Of the stages that are done, in their order."""
        return [d for stage in STAGES for d in self._decided.get(stage.name, ())]

    def note(self, stage: str, decisions: Sequence[hooks.Decision]) -> None:
        """Keep decisions that were made about the graph before the stages."""
        self._decided[stage] = list(decisions)
        if hooks.watching:
            for d in decisions:
                hooks.publish(d)

    def rebind(self, graph: Graph, buffers: Sequence[Buffer]) -> Lowered:
        """The same compiled program seen from another graph of equal form: its own origins, the shared plan and executable."""
        other = Lowered(graph, buffers, self.choices, self.machine, self.backend)
        shared = ("plan", "executable", "root_slots", "updated_roots", "slots", "empty")
        other.__dict__.update({k: self.__dict__[k] for k in shared if k in self.__dict__})
        other._decided.update({k: v for k, v in self._decided.items() if k in shared or k in ("record", "emit")})
        return other

    def seen(self, roots: Sequence[Node], buffers: Sequence[Buffer]) -> Lowered:
        """`rebind` to the graph under `roots`, which is made when somebody looks at it."""
        other = object.__new__(Lowered)
        other.__dict__.update(self._rebound, roots=roots, buffers=buffers, seconds={}, _decided=dict(self._rebound["_decided"]))
        return other

    @cached_property
    def _rebound(self) -> dict[str, Any]:
        """What is the same in every `seen`."""
        out = dict(self.rebind(self.graph, self.buffers).__dict__)
        del out["graph"]
        return out

    @cached_property
    def graph(self) -> Graph:
        return Graph(self.roots)

    def restored(
        self, slots: tuple[Slot, ...], root_slots: list[int], updated_roots: list[bool], executable: backends.Executable
    ) -> Lowered:
        """This graph with what a run needs, as an earlier process left it; the stages are done when somebody looks."""
        self.__dict__.update(
            slots=slots, root_slots=root_slots, updated_roots=updated_roots, executable=executable, empty=False
        )
        return self

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """The slots of the plan whose memory a run is given."""
        return self.plan.slots[: self.plan.given]

    @cached_property
    def empty(self) -> bool:
        """Whether there is nothing to run: every root is memory that the caller has."""
        return not self.plan.calls

    @property
    def values(self) -> dict[str, int]:
        """The values of the variables, in the memory that the program is given."""
        return {b.symbol.name: int(b.array[0]) for b in self.buffers if isinstance(b, SizeBuffer)}

    @property
    def outputs(self) -> tuple[Slot, ...]:
        """The slots that a run gets fresh memory for."""
        return self.slots[len(self.buffers) :]

    @cached_property
    def root_slots(self) -> list[int]:
        """For each root the slot of the plan that holds its value after the run."""
        return root_slots(self.simplified, self._own_buffers)

    @cached_property
    def _own_buffers(self) -> list[Buffer]:
        """The buffers that the graph names; a run may be given others in their places (`jit.lower`)."""
        return self.graph.key()[1]

    @cached_property
    def updated_roots(self) -> list[bool]:
        """For each root whether it is the new content of memory that the program updates."""
        from tinyengine.stages.values import base

        return [base(r).op == "assign" for r in self.simplified.roots]

    def with_choices(self, choices: Choices) -> Lowered:
        """The same graph under other choices. What simplify did is taken over where they recompute the same values: no other
        choice is about it."""
        other = Lowered(self.graph, self.buffers, choices, self.machine, self.backend)
        if "simplified" in self.__dict__ and set(choices.recompute) == set(self.choices.recompute):
            other.__dict__["simplified"] = self.simplified
            other._decided["simplify"] = self._decided["simplify"]
            other.seconds["simplify"] = self.seconds["simplify"]
        return other

    def with_fusion(self, edge: str, verdict: str) -> Lowered:
        """Continue from another fusion verdict for that edge (see `stages.keys.edge_key`)."""
        return self.with_choices(self.choices.with_fusion(edge, verdict))

    def with_recompute(self, *values: str) -> Lowered:
        """Continue with these values computed again for their gradient (see `stages.fusion.recompute.key`)."""
        return self.with_choices(self.choices.with_recompute(*values))

    def with_backend(self, name: str) -> Lowered:
        return Lowered(self.graph, self.buffers, self.choices, self.machine, name)

    def run(self, clocks: bool = False) -> Any:
        """The roots' values as NumPy arrays, computed on copies: nothing of the user's memory changes.
        With `clocks`: (values, Times)."""
        import numpy as np

        memory = []
        for slot, b in zip(self.slots, [*self.buffers, *[None] * len(self.outputs)], strict=True):
            if b is None:
                memory.append(Buffer(slot.size, slot.dtype, slot.name))
            else:
                if b.array is None:
                    raise ValueError(
                        f"input {b.name} of this program has no value: it was traced from a function. "
                        "Give one: jit(f).lower(arguments).run()"
                    )
                memory.append(b.copy() if slot.role == "state" else b)
        times = self.executable.run(memory, clocks)
        values = []
        for r, at in zip(self.simplified.roots, self.root_slots, strict=True):
            values.append(valued(np.array(memory[at].values).reshape(r.shape), r.shape, self.values))
        return (values, times) if clocks else values

    def bisect(self, tolerance: float | None = None) -> Any:
        """The first firing, primitive or kernel after which a value is another: see `bisection.bisect`."""
        from tinyengine.bisection import bisect

        return bisect(self, tolerance)

    def count(self) -> Any:
        """FLOPs, bytes and peak memory of one run, counted by the reference interpreter: see `counting.count`."""
        from tinyengine.counting import count

        return count(self)

    def what_if(self, edge: Any, verdict: str, limit: float = 0.2) -> Any:
        """This program with another verdict for one edge, beside it as it is: see `edits.what_if`. `lowered.what_if((4, 7),
        "whole")`: numbers of the simplified graph."""
        from tinyengine.edits import what_if

        return what_if(self, edge, verdict, limit)

    def recompute(self, values: Any, limit: float = 0.2) -> Any:
        """This program with activations computed again for their gradient instead of kept, beside it as it is: see
        `edits.recompute`. `lowered.recompute(14)`: a number of the simplified graph, or the name of a pin, or several."""
        from tinyengine.edits import recompute

        return recompute(self, values, limit)

    def recompute_under(self, peak_bytes: int) -> Any:
        """The activations to compute again so that the predicted peak of memory is at most that many bytes, found by bytes freed
        for each FLOP: see `recompute_search.search`. Nothing runs; `lowered.recompute(found.names)` measures it."""
        from tinyengine.recompute_search import search

        return search(self, peak_bytes)

    def try_schedule(self, kernel: int, lines: Any, limit: float = 0.1) -> Any:
        """Kernel number `kernel` under another schedule, beside its own: see `edits.try_schedule`."""
        from tinyengine.choices import primitives
        from tinyengine.edits import try_schedule

        return try_schedule(self, kernel, primitives(lines), limit)

    def tune(self, budget: float = 2.0, **options: Any) -> Any:
        """`tinyengine.tune.tune` of this program: a `Tuning`, whose `lowered` has what was found."""
        from tinyengine.tune import tune

        return tune(self, budget=budget, **options)

    def text(self) -> str:
        return "\n\n".join([self.simplified.text(), self.fusion.text(), *(k.text() for k in self.scheduled), self.plan.text()])

    def __repr__(self) -> str:
        kernels = units.some(len(self.fusion.groups), "kernel")
        return f"Lowered({units.some(len(self.graph), 'node')}, {kernels}, backend {self.backend})"


class Compiled:
    """One kernel of a Lowered: `loops` (before), `scheduled` (after), `schedule` (its primitives), `source`, `assembly`."""

    def __init__(self, lowered: Lowered, call: int) -> None:
        self.lowered, self.call = lowered, call
        self.scheduled = lowered.plan.calls[call].kernel
        self.name = self.scheduled.name
        self.schedule = self.scheduled.schedule
        before = {n.kernel.name: n.kernel for n in lowered.nests}
        self.loops = before.get(self.name, self.scheduled)

    @property
    def source(self) -> str:
        return self.lowered.executable.source(self.call)

    @property
    def assembly(self) -> str:
        return self.lowered.executable.assembly(self.call)

    @property
    def decisions(self) -> list[hooks.Decision]:
        return [d for d in self.lowered.decisions if d.subject and d.subject[0] == self.name]

    @property
    def cost(self) -> Any:
        """What one launch of it costs, known before the run: FLOPs, bytes, addresses, seconds (`tinyengine.cost.KernelCost`)."""
        return self.lowered.certificate.kernels[self.call]

    def with_schedule(self, primitives: Any) -> Lowered:
        """Continue from another schedule: text with one primitive per line, or a list of them."""
        return self.lowered.with_choices(self.lowered.choices.with_schedule(self.name, primitives))

    def ablate(self, limit: float = 0.2) -> Any:
        """What bounds it, measured: the kernel without arithmetic, without memory traffic, and empty, beside itself, for about
        `limit` seconds. An `ablation.Ablation`: four `Timing`s in seconds per launch, and a sentence."""
        from tinyengine.ablation import ablate

        return ablate(self.lowered, self.call, limit)

    def __repr__(self) -> str:
        return self.scheduled.text()


def root_slots(graph: Graph, buffers: Sequence[Buffer]) -> list[int]:
    """For each root the slot of the program that holds its value after the run."""
    from tinyengine.stages.values import base

    position = {id(b): i for i, b in enumerate(buffers)}
    outputs: list[Any] = []
    out = []
    for r in graph.roots:
        b = base(r)
        if b.op == "assign":
            out.append(position[id(b.src[0].arg)])
        elif b.op == "buffer":
            out.append(position[id(b.arg)])
        else:
            if b not in outputs:
                outputs.append(b)
            out.append(len(buffers) + outputs.index(b))
    return out


def lower(graph: Graph, choices: Choices = DEFAULT, machine: Machine | None = None, backend: str | None = None) -> Lowered:
    """`graph` ready to be looked at stage by stage, edited, and run."""
    _, buffers = graph.key()
    backend = backend or backends.current()
    return Lowered(graph, buffers, choices, machine or backends.machine(backend), backend)


__all__ = ["STAGES", "Compiled", "Lowered", "Stage", "lower", "root_slots"]
