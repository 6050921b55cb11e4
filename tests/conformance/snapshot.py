"""The text of every stage of one program, the same on every machine: no paths, no addresses, no times that were measured."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest import mock

from tests.conformance.programs import PROGRAMS
from tinyengine import Tensor, backends, hooks, machine
from tinyengine.backends.llvm import shared_memory
from tinyengine.backends.llvm_jit import Target
from tinyengine.backends.llvm_module import module
from tinyengine.jit import jit
from tinyengine.loopnest import Kernel, kernel_lines
from tinyengine.machine import FIXTURE
from tinyengine.node import Graph, Node
from tinyengine.pipeline import STAGES, Lowered, lower
from tinyengine.stages import simplify
from tinyengine.stages.emit import prepare
from tinyengine.stages.fusion.groups import decision_text

TARGET = Target("x86_64-unknown-linux-gnu", "znver4", "+avx512f,+fma")  # text only: nothing is compiled for it
SOURCE_LINES = 30
_stages = {s.name: s for s in STAGES}


def lowered(name: str) -> Lowered:
    """A program of `programs.py`, lowered for the fixture machine; nothing has run, except one step of what is jitted."""
    with mock.patch.object(machine, "current", lambda: FIXTURE), backends.use("reference"):
        out = PROGRAMS[name]()
        if isinstance(out, jit):
            out()
            return out.lowered[0]
        tensors = (out,) if isinstance(out, Tensor) else out
        return lower(Graph([t.node for t in tensors]), machine=FIXTURE, backend="reference")


def text(name: str, c: Lowered) -> str:
    parts = [inspect.getsource(PROGRAMS[name]).strip()]

    def stage(stage: str, lines: list[str]) -> None:
        parts.append(f"== {stage}: {_stages[stage].question}\n" + "\n".join(lines))

    stage("record", annotated(c.graph, lambda n: n.phase != "backward"))
    if any(n.phase == "backward" for n in c.graph.nodes):
        stage("differentiate", annotated(c.graph, lambda n: n.phase == "backward"))
    stage("simplify", [*firings(c), "", *c.simplified.text().split("\n")])
    stage("fuse", c.fusion.text().split("\n"))
    stage("loops", ["\n".join(linked(n.kernel)) for n in c.nests])
    lines = []
    for k in c.scheduled:
        lines += ["\n".join(linked(k)), *decided(c, "schedule", k.name)]
    stage("schedule", lines)
    stage("plan", [*c.plan.text().split("\n"), *decided(c, "plan"), "", *c.certificate.text().split("\n")])
    stage("emit", source_head(c))
    # a message may name the line; edits of the file above it must not show here
    whole = re.sub(r"(programs\.py):\d+", r"\1", "\n\n".join(parts))
    return whole.replace("\n\n\n", "\n\n") + "\n"


def annotated(graph: Graph, wanted: Callable[[Node], bool]) -> list[str]:
    """The lines of these nodes, each with its phase, the rule of its derivative, and the user's line."""
    number = graph.number
    out = []
    for n, line in zip(graph.nodes, graph.text().split("\n"), strict=True):
        if not wanted(n):
            continue
        o = n.origin[0]
        notes = [o.phase] if o.phase != "forward" else []
        notes += [f"{o.derivative} of %{number[o.forward]}" if o.forward in number else o.derivative] if o.derivative else []
        notes += [f"in {o.module}"] if o.module else []
        notes += [o.frames[0].text] if o.frames and n.op != "buffer" else []
        out.append(f"{line:<58} # {'; '.join(notes)}" if notes else line)
    return out


def firings(c: Lowered) -> list[str]:
    """Rule, how often it fired, its reason; in the order of first firing. Then the stage's decisions."""
    events = simplify.explain(c.graph, c.choices, c.machine)
    counts = Counter(e.rule for e in events)
    reasons = {e.rule: e.reason for e in events}
    out = [f"{len(events)} firings"] + [f"  {counts[r]:>3} × {r}: {reasons[r]}" for r in reasons]
    return out + decided(c, "simplify")


def decided(c: Lowered, stage: str, kernel: str | None = None) -> list[str]:
    """The decisions of a stage; those about one kernel, when it is named."""
    found: list[hooks.Decision] = [d for d in c.decisions if d.stage == stage and (kernel is None or d.subject[0] == kernel)]
    return [f"  {d.kind}: {decision_text(d)}" for d in found]


def linked(k: Kernel) -> list[str]:
    """The kernel's text; at the end of each statement the nodes that it serves."""
    out = []
    for line, s in kernel_lines(k):
        nodes = " ".join(f"%{n}" for n in s.nodes) if s is not None else ""
        out.append(f"{line:<70} # {nodes}" if nodes else line)
    if k.schedule:
        out.append("  schedule: " + "; ".join(map(str, k.schedule)))
    return out


def source_head(c: Lowered) -> list[str]:
    """The beginning of the LLVM IR of the first kernel's body."""
    if not c.plan.calls:
        return ["no kernel"]
    code = prepare(c.plan.calls[0].kernel, shared_memory(c.plan, c.plan.calls[0]))
    lines = module([code], TARGET).split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith("define internal"))
    head = [line.replace(code.symbol, code.kernel.name) for line in lines[start : start + SOURCE_LINES]]
    more = len(lines) - start - SOURCE_LINES
    return head + ([f"... {more} more lines"] if more > 0 else [])


def values(c: Lowered, backend: str) -> Any:
    return c.with_backend(backend).run()
